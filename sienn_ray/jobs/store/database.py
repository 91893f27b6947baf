"""The connection to the job database: SQLite by default, PostgreSQL by its URL."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
import pydantic_core
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from sienn_ray.errors import CapacityError
from sienn_ray.jobs.store.tables import safe_text

logger = logging.getLogger(__name__)

_MIGRATIONS = Path(__file__).parent / "migrations"
_CONNECT_TIMEOUT_S = 10
_NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
# How the database was lost or is full; anything else is a fault of ours.
_OUT_OF_REACH = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError)


class Database:
    """Hands out transactions, to several threads.

    Args:
        url: SQLAlchemy URL. Migrations run here, so a new database is ready to use.
    """

    def __init__(self, url: str) -> None:
        self._engine = _create_engine(url)
        self._writer = self._engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")
        # One moment for all statements of a transaction; SQLite has no other way.
        one_moment = {} if self._engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
        self._reader = self._engine.execution_options(**one_moment)
        # A read-check-write must not interleave with another; the tracker is the only process that writes.
        self._write_lock = threading.Lock()
        try:
            self._migrate()
        except BaseException:
            self.close()
            raise

    def _migrate(self) -> None:
        config = alembic.config.Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        with self._writer.begin() as connection:
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, "head")

    @property
    def name(self) -> str:
        """The product's name, as its makers write it."""
        return _NAMES.get(self._engine.dialect.name, self._engine.dialect.name)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that changes nothing, and sees one moment.

        Raises:
            CapacityError: The database is out of reach.
        """
        with _out_of_reach_said(), self._reader.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that is written as a whole, or not at all when anything is raised in it.

        Raises:
            CapacityError: The database is out of reach.
        """
        with self._write_lock, _out_of_reach_said(), self._writer.begin() as connection:
            yield connection

    def ping(self) -> float:
        """Ask a trivial question; returns the seconds that it took.

        Raises:
            CapacityError: The database is out of reach.
        """
        started = time.perf_counter()
        with self.reading() as connection:
            connection.execute(sa.text("SELECT 1"))
        return time.perf_counter() - started

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()


@contextlib.contextmanager
def _out_of_reach_said() -> Iterator[None]:
    try:
        yield
    except _OUT_OF_REACH as error:
        # A user isn't told: the driver's words name hosts and accounts.
        logger.warning("the job database can't be used: %s", words_of(error))
        raise CapacityError("the job database can't be used at the moment; try again in a moment") from error


def words_of(error: BaseException | None) -> str:
    """The driver's own words, in one line."""
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]


def _create_engine(url: str) -> sa.Engine:
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        arguments = {"connect_timeout": _CONNECT_TIMEOUT_S}
        return sa.create_engine(url, pool_pre_ping=True, connect_args=arguments, **_JSON)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, poolclass=NullPool, **_JSON)

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        # Python's driver begins no transaction before a read or a CREATE TABLE; so it begins none at all, see below.
        connection.isolation_level = None
        for pragma in ("busy_timeout=10000", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))

    return engine


def _to_json(value: Any) -> str:
    """JSON that both databases and every reader take; see `_clean`."""
    with contextlib.suppress(ValueError):
        text = json.dumps(value, allow_nan=False)
        if "\\ud" not in text and "\\u0000" not in text:
            return text
    return json.dumps(_clean(value))


def _clean(value: Any) -> Any:
    """Without numbers that are none (NaN, infinity), which become null, and with safe text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return safe_text(value)
    if isinstance(value, dict):
        return {_clean(key): _clean(part) for key, part in value.items()}
    return [_clean(part) for part in value] if isinstance(value, list | tuple) else value


def _of_json(text: str) -> Any:
    """Twice as fast as `json.loads`, which reads what this refuses (a lone surrogate of an earlier version)."""
    try:
        return pydantic_core.from_json(text)
    except ValueError:
        return json.loads(text)


_JSON: dict[str, Any] = {"json_serializer": _to_json, "json_deserializer": _of_json}
