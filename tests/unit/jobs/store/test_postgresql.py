"""What only PostgreSQL can do to its users: hang, go away, and have several trackers write at once."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from sienn_ray.errors import CapacityError
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.store.tables import metric_values
from tests.support.fakes_jobs import dataset_record, job_record
from tests.unit.jobs.conftest import MigratedDatabase

DEADLINE_S = 30.0
AWAY = r"^the job database can't be used at the moment; try again in a moment$"


@pytest.fixture
def url(migrated_database: MigratedDatabase) -> Iterator[str]:
    """An empty database."""
    yield migrated_database.url
    migrated_database.restore()


@contextlib.contextmanager
def opened(url: str, **options: int) -> Iterator[Database]:
    """A database with timeouts of its own, in milliseconds, as a user may set them in the URL."""
    words = " ".join(f"-c {name}={value}" for name, value in options.items())
    longer = sa.make_url(url).update_query_dict({"options": words} if words else {})
    database = Database(longer.render_as_string(hide_password=False))
    try:
        yield database
    finally:
        database.close()


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it didn't happen in time"
        time.sleep(0.005)


def asked(url: str, query: str) -> Any:
    """What somebody else sees."""
    engine = sa.create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        return connection.scalar(sa.text(query))


def test_no_wait_is_without_an_end(url: str) -> None:
    with opened(url) as database, database.writing() as connection:
        for name, shown in (
            ("lock_timeout", "10s"),
            ("statement_timeout", "20s"),
            ("idle_in_transaction_session_timeout", "30s"),
        ):
            assert connection.scalar(sa.text(f"SHOW {name}")) == shown
        parameters = connection.connection.dbapi_connection.info.get_parameters()  # type: ignore[union-attr]
    expected = {"connect_timeout": "10", "tcp_user_timeout": "20000", "keepalives_idle": "5", "keepalives_count": "3"}
    assert expected.items() <= parameters.items()


def test_what_the_url_sets_stands(url: str) -> None:
    longer = sa.make_url(url).update_query_dict({"connect_timeout": "3"}).render_as_string(hide_password=False)
    with opened(longer, statement_timeout=60_000) as database, database.reading() as connection:
        assert connection.scalar(sa.text("SHOW statement_timeout")) == "1min"
        assert connection.scalar(sa.text("SHOW lock_timeout")) == "10s"
        assert connection.connection.dbapi_connection.info.get_parameters()["connect_timeout"] == "3"  # type: ignore[union-attr]


def test_statement_that_sleeps_is_cut(url: str) -> None:
    with opened(url, statement_timeout=500) as database:
        with pytest.raises(CapacityError, match=AWAY), database.reading() as connection:
            connection.execute(sa.text("SELECT pg_sleep(300)"))
        assert database.ping() > 0


def test_lock_that_another_tracker_holds_is_not_waited_for_without_an_end(url: str) -> None:
    with opened(url, lock_timeout=50) as database, opened(url) as other, contextlib.ExitStack() as stack:
        database.prepare()
        stack.enter_context(other.writing())
        with pytest.raises(CapacityError, match=AWAY), database.writing():
            pytest.fail("two are in here")
        assert database.ping() > 0  # reading needs no lock


def test_row_that_somebody_else_has_locked_is_not_waited_for_without_an_end(url: str) -> None:
    rows = sa.select(metric_values).with_for_update()
    other = sa.create_engine(url, poolclass=NullPool)
    with other.begin() as locking, opened(url, lock_timeout=50) as database:
        locking.execute(rows)
        with pytest.raises(CapacityError, match=AWAY), database.writing() as connection:
            connection.execute(rows)


def test_migrations_wait_for_another_tracker_and_are_tried_again(url: str) -> None:
    with opened(url, lock_timeout=50) as database, opened(url) as other:
        with other.writing(), pytest.raises(CapacityError, match=AWAY):
            database.prepare()
        database._next_try_at = 0.0
        database.prepare()


def test_two_trackers_lose_no_update(url: str) -> None:
    """The second one would read the job as it was, and write it back, in the middle of the first one's change."""
    first, second = Store(url), Store(url)
    first.datasets.add(dataset_record())
    first.jobs.add(job_record())
    second.jobs.get("job-1")  # connected
    is_done = threading.Event()

    def cancel() -> None:
        second.jobs.cancel("job-1")
        is_done.set()

    thread = threading.Thread(target=cancel)
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE "
    with first.database.writing() as connection:
        before = connection.scalar(sa.select(sa.func.count()).select_from(metric_values))
        thread.start()
        wait_until(lambda: is_done.is_set() or asked(url, f"{waiting} datname = current_database())"))
        assert not is_done.is_set(), "two are in here"
        assert connection.scalar(sa.select(sa.func.count()).select_from(metric_values)) == before
        connection.execute(sa.text("UPDATE jobs SET name = 'mine'"))
    thread.join()
    job = first.jobs.get("job-1")
    assert (job.name, job.status) == ("mine", JobStatus.CANCELLED)
    first.close()
    second.close()


def test_lock_of_a_tracker_that_hangs_comes_free(url: str) -> None:
    with opened(url, idle_in_transaction_session_timeout=100) as hanging, opened(url) as other:

        def hang() -> None:
            with hanging.writing() as connection:
                process = connection.scalar(sa.text("SELECT pg_backend_pid()"))
                wait_until(lambda: not asked(url, f"SELECT count(*) FROM pg_stat_activity WHERE pid = {process}"))
                with other.writing():
                    pass
                connection.execute(sa.text("SELECT 1"))

        with pytest.raises(CapacityError, match=AWAY):
            hang()
        with hanging.writing():
            pass


def test_connection_that_the_server_ends_is_replaced(url: str) -> None:
    with opened(url) as database:

        def lose() -> None:
            with database.writing() as connection:
                process = connection.scalar(sa.text("SELECT pg_backend_pid()"))
                asked(url, f"SELECT pg_terminate_backend({process}, 10000)")
                connection.execute(sa.text("SELECT 1"))

        with pytest.raises(CapacityError, match=AWAY):
            lose()
        with database.writing():
            pass


def test_standby_takes_no_changes_for_now(url: str) -> None:
    with opened(url, default_transaction_read_only=1) as standby:
        with pytest.raises(CapacityError, match=AWAY), standby.writing() as connection:
            connection.execute(sa.delete(metric_values))
        assert standby.ping() > 0
