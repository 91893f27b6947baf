"""The doctor and the health command, without a service where none is wanted."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sienn_ray import cli
from sienn_ray.cli.doctor import command, findings, places
from sienn_ray.cli.doctor.findings import Level
from sienn_ray.cli.health import line_of
from sienn_ray.jobs.store.store import Store
from sienn_ray.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(env="test", home=tmp_path / "home")


def test_every_check_has_a_line_and_a_deadline(capsys: pytest.CaptureFixture[str]) -> None:
    never = threading.Event()

    def hang() -> findings.Finding:
        never.wait()
        return findings.ok("too late")

    def fail() -> findings.Finding:
        raise RuntimeError("secret")

    checks = [("hangs", hang), ("breaks", fail), ("works", lambda: findings.ok("fine"))]
    found = command.examined(checks, deadline_s=0.05)
    never.set()
    assert [finding.level for finding in found] == [Level.FAIL, Level.FAIL, Level.OK]
    said = capsys.readouterr().out
    assert said.splitlines()[0].startswith("fail  hangs      no answer within 0.05 s; ")
    assert "secret" not in said


def test_a_new_home_is_fine_and_nothing_is_made(settings: Settings) -> None:
    for check in (places.check_storage, places.check_database):
        assert check(settings).level is Level.OK
    assert places.check_home(settings).level is not Level.FAIL
    assert not settings.home.exists()


def test_a_database_is_looked_at_and_left_as_it_is(settings: Settings) -> None:
    settings.home.mkdir()
    path = settings.home / "sienn.db"
    sqlite3.connect(path).close()
    assert "at migration none of" in places.check_database(settings).words
    store = Store(settings.database_url.get_secret_value())
    store.overview()
    store.close()
    assert places.check_database(settings).level is Level.OK
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    found = places.check_database(settings)
    assert (found.level, "newer version" in found.way_out) == (Level.FAIL, True)


def test_a_database_out_of_reach_shows_no_secret(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    url = "postgresql+psycopg://me:hunter2@127.0.0.1:1/jobs"
    found = places.check_database(Settings(env="test", home=tmp_path, database_url=url))
    assert found.level is Level.FAIL
    assert "hunter2" not in found.line("database")


def test_a_home_that_is_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert places.check_home(Settings(env="test", home=tmp_path / "file")).level is Level.FAIL


def test_storage_is_written_read_and_deleted(settings: Settings) -> None:
    settings.home.mkdir()
    assert places.check_storage(settings).words == "local files: written, read and deleted"


def test_wrong_settings_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "checks_of", lambda settings: [])
    monkeypatch.setenv("SIENN_PORT", "abc")
    result = CliRunner().invoke(cli.app, ["doctor"])
    assert result.exit_code == 1
    assert result.stdout.startswith("fail  settings   SIENN_PORT is 'abc', but must be a valid integer")


@pytest.mark.parametrize(
    ("part", "line"),
    [
        (
            {
                "status": "healthy",
                "implementation": "SQLite",
                "role": "records",
                "response_time_ms": 2.1,
                "detail": None,
            },
            "healthy    SQLite: 2.1 ms, records",
        ),
        (
            {"status": "degraded", "detail": "no look for 9 s", "age_s": 9},
            "degraded   heartbeat: no look for 9 s, age_s 9",
        ),
    ],
)
def test_a_part_of_the_service_is_a_line_whatever_it_has(part: dict[str, Any], line: str) -> None:
    assert line_of("heartbeat", part) == line
