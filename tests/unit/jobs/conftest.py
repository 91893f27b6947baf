"""A job database for each test: SQLite, and PostgreSQL as well if SIENN_TEST_POSTGRES_URL names a server."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from sienn_ray.jobs.store import Store
from tests.fakes_jobs import Clock, dataset_record

POSTGRES_URL = os.environ.get("SIENN_TEST_POSTGRES_URL", "")


@pytest.fixture(params=["sqlite", *(["postgresql"] if POSTGRES_URL else [])])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a database without tables; one of SQLite doesn't exist yet, nor its folder."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/home/sienn.db"
        return
    name = f"sienn_{uuid.uuid4().hex}"
    server = sa.create_engine(POSTGRES_URL, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield sa.make_url(POSTGRES_URL).set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


@pytest.fixture
def clock() -> Clock:
    """The store's time, which moves when a test says so."""
    return Clock()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database after all migrations, which take longer than most tests."""
    path = tmp_path_factory.mktemp("migrated") / "sienn.db"
    Store(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def store(database_url: str, migrated_file: Path, clock: Clock) -> Iterator[Store]:
    """A store with one dataset, `dataset-1`."""
    if path := sa.make_url(database_url).database if database_url.startswith("sqlite") else None:
        Path(path).parent.mkdir()
        shutil.copy(migrated_file, path)
    store = Store(database_url, clock)
    store.datasets.add(dataset_record())
    yield store
    store.close()
