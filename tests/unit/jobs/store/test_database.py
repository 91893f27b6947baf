from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sienn_ray.errors import CapacityError
from sienn_ray.jobs import job_facts
from sienn_ray.jobs.store.connections import _of_json, _to_json
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.store.tables import metric_values, safe_text
from tests.support import quick_sqlite
from tests.support.fakes_jobs import dataset_record, job_record

VALUES: dict[str, Any] = {"name": "one", "labels": "{}", "value": 1.0}


def number_of_values(database: Database) -> int:
    with database.reading() as connection:
        query = sa.select(sa.func.count()).select_from(metric_values).where(metric_values.c.name == "one")
        return connection.scalar(query) or 0


def test_what_is_written_is_there(store: Store) -> None:
    with store.database.writing() as connection:
        connection.execute(sa.insert(metric_values).values(**VALUES))
    assert number_of_values(store.database) == 1


def test_error_undoes_the_whole_transaction(store: Store) -> None:
    def write_and_fail() -> None:
        with store.database.writing() as connection:
            connection.execute(sa.insert(metric_values).values(**VALUES))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert number_of_values(store.database) == 0


def test_reading_sees_one_moment(store: Store) -> None:
    with store.database.reading() as connection:
        query = sa.select(sa.func.count()).select_from(metric_values).where(metric_values.c.name == "one")
        assert connection.scalar(query) == 0
        with store.database.writing() as writer:
            writer.execute(sa.insert(metric_values).values(**VALUES))
        assert connection.scalar(query) == 0
    assert number_of_values(store.database) == 1


def test_writers_take_turns(store: Store) -> None:
    inside, order = threading.Event(), []

    def write() -> None:
        inside.set()
        with store.database.writing():
            order.append("second")

    thread = threading.Thread(target=write)
    with store.database.writing():
        thread.start()
        inside.wait()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_ping(store: Store) -> None:
    assert 0 < store.database.ping() < 60
    assert store.database.name in {"SQLite", "PostgreSQL"}


def test_database_out_of_reach_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    database = Database(f"sqlite:///{tmp_path}/sienn.db")
    database.prepare()
    database.close()
    for path in tmp_path.iterdir():
        path.unlink()
    tmp_path.rmdir()
    with pytest.raises(CapacityError, match=r"^the job database can't be used at the moment; try again in a moment$"):
        database.ping()
    assert "unable to open database file" in caplog.text
    with pytest.raises(CapacityError), database.writing():
        pass


def test_fault_of_ours_is_no_capacity_error(store: Store) -> None:
    twice = sa.insert(metric_values).values([VALUES, VALUES])
    with pytest.raises(sa.exc.IntegrityError), store.database.writing() as connection:
        connection.execute(twice)


# A database that is away when it is first used


def blocked(tmp_path: Path) -> tuple[Database, Path, list[float]]:
    """A database whose folder can't be made, what to remove so that it can, and the time."""
    obstacle = tmp_path / "home"
    obstacle.write_text("no folder")
    now = [0.0]
    return Database(f"sqlite:///{obstacle}/sienn.db", clock=lambda: now[0]), obstacle, now


def test_database_that_is_away_at_first_is_used_once_it_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database, obstacle, now = blocked(tmp_path)
    for _ in range(2):
        with pytest.raises(CapacityError, match="try again in a moment"), database.reading():
            pass
    assert "unable to open database file" in caplog.text
    obstacle.unlink()
    now[0] += 10.0
    assert number_of_values(database) == 0
    assert database.ping() > 0
    database.close()


def test_tries_to_connect_have_longer_and_longer_pauses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    database, _, now = blocked(tmp_path)
    for _ in range(320):
        with pytest.raises(CapacityError):
            database.prepare()
        now[0] += 0.0625
    pauses = [record.message.rpartition("after ")[2] for record in caplog.records if "trying" in record.message]
    assert pauses == ["0.125 s", "0.25 s", "0.5 s", "1 s", "2 s", "4 s", "8 s", "8 s"]


def test_ping_does_not_wait_for_a_database_that_was_away(tmp_path: Path) -> None:
    database, _, now = blocked(tmp_path)
    with pytest.raises(CapacityError):
        database.prepare()
    now[0] += 10.0
    database._migrate = lambda: pytest.fail("it has tried to connect")  # type: ignore[method-assign]
    with pytest.raises(CapacityError) as raised:
        database.ping()
    assert "unable to open database file" in str(raised.value.__cause__)


# SQLite


def test_committed_changes_survive_a_power_failure(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/sienn.db")
    with quick_sqlite.uninstalled(), database.writing() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


# What goes into columns


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (
            {"a": float("nan"), "b": [float("inf"), {"c": float("-inf")}], "d": 0.5},
            {"a": None, "b": [None, {"c": None}], "d": 0.5},
        ),
        ({"a\0": "b\0"}, {"a\ufffd": "b\ufffd"}),
        (["\ud800", "⛴", "\ud83d\ude00"], ["\ufffd", "⛴", "😀"]),
        ({"größe": "ß", "n": 2**70, "t": True, "z": None}, {"größe": "ß", "n": 2**70, "t": True, "z": None}),
        ("\\ud800 and \\u0000 as they are written", "\\ud800 and \\u0000 as they are written"),
    ],
)
def test_json_that_every_database_takes(value: Any, kept: Any) -> None:
    text = _to_json(value)
    assert json.loads(text, parse_constant=lambda _: pytest.fail("no JSON")) == kept
    assert _of_json(text) == kept


def test_lone_surrogate_of_an_earlier_version_is_read() -> None:
    assert _of_json('{"a": "\\ud800"}') == {"a": "\ud800"}


@pytest.mark.parametrize(
    ("text", "safe"), [("", ""), ("abc", "abc"), ("\ufeffa", "\ufeffa"), ("a\0", "a\ufffd"), ("\udfff😀", "\ufffd😀")]
)
def test_safe_text(text: str, safe: str) -> None:
    assert safe_text(text) == safe


def test_records_with_everything_that_hurts(store: Store) -> None:
    nasty = {"text": "a\0\ud800", "loss": float("nan"), "deep": [[["\0"]]]}
    store.datasets.add(dataset_record("dataset-2", preview=[nasty], columns=["a\0"]))
    store.jobs.add(job_record(facts=nasty))
    kept = {"text": "a\ufffd\ufffd", "loss": None, "deep": [[["\ufffd"]]]}
    assert store.datasets.get("dataset-2").preview == [kept]
    assert store.datasets.get("dataset-2").columns == ["a\ufffd"]
    assert job_facts.to_flat(store.jobs.get("job-1")) == kept
