"""A job database for each test, once in SQLite and once in PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from sienn_ray.jobs.store import tables
from sienn_ray.jobs.store.store import Store
from tests.support.fakes_jobs import Clock, FakeRayJobs, dataset_record
from tests.support.postgres import PostgresServer

# A test that has one of these is given a database after all migrations, which take longer than most tests.
OVER_TABLES = {"store", "tracker"}


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a database. Without tables, one of SQLite doesn't exist yet, nor its folder."""
    has_tables = bool(OVER_TABLES.intersection(request.fixturenames))
    if request.param == "sqlite":
        path = tmp_path / "home" / "sienn.db"
        if has_tables:
            path.parent.mkdir()
            shutil.copy(request.getfixturevalue("migrated_file"), path)
        yield f"sqlite:///{path}"
        return
    if has_tables:
        # Restored rather than made anew: a copy of a database, however small, takes a third of a second.
        database: MigratedDatabase = request.getfixturevalue("migrated_database")
        yield database.url
        database.restore()
        return
    postgres: PostgresServer = request.getfixturevalue("postgres")
    with postgres.database() as url:
        yield url


@pytest.fixture
def clock() -> Clock:
    """The store's time, which moves when a test says so."""
    return Clock()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database after all migrations."""
    path = tmp_path_factory.mktemp("migrated") / "sienn.db"
    store = Store(f"sqlite:///{path}")
    store.database.prepare()
    store.close()
    return path


@dataclass(frozen=True)
class MigratedDatabase:
    """A database of PostgreSQL after all migrations, for one test after the other.

    Args:
        url: SQLAlchemy URL.
        rows: What the migrations have put into its tables.
    """

    url: str
    rows: dict[sa.Table, list[dict[str, Any]]]

    def restore(self) -> None:
        """Have it as it was, with nobody connected."""
        engine = sa.create_engine(self.url, poolclass=NullPool)
        others = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database()"
        with engine.begin() as connection:
            connection.execute(sa.text(f"{others} AND pid <> pg_backend_pid()"))
            connection.execute(sa.text(f"TRUNCATE {', '.join(tables.metadata.tables)} RESTART IDENTITY CASCADE"))
            for table, rows in self.rows.items():
                connection.execute(sa.insert(table), rows)
        engine.dispose()


@pytest.fixture(scope="session")
def migrated_database(postgres: PostgresServer) -> Iterator[MigratedDatabase]:
    """The same in PostgreSQL."""
    with postgres.database() as url:
        store = Store(url)
        with store.database.reading() as connection:
            found = {
                table: [dict(row) for row in connection.execute(sa.select(table)).mappings()]
                for table in tables.metadata.sorted_tables
            }
        store.close()
        yield MigratedDatabase(url, {table: rows for table, rows in found.items() if rows})


@pytest.fixture
def store(database_url: str, clock: Clock) -> Iterator[Store]:
    """A store with one dataset, `dataset-1`."""
    store = Store(database_url, clock)
    store.datasets.add(dataset_record())
    yield store
    store.close()


@pytest.fixture
def ray_jobs() -> FakeRayJobs:
    """Ray's job API, with no job yet."""
    return FakeRayJobs()
