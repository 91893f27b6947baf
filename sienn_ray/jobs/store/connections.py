"""Connections to the job database, SQLite or PostgreSQL, with their timeouts and the JSON that goes through them."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic_core
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from sienn_ray.jobs.store.tables import safe_text

# Of the driver (libpq). A peer that has gone without a word is noticed after 20 s, whether we wait for it or send.
_CONNECT_ARGUMENTS = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
# Of the server. The third frees the locks of a tracker that has gone without a word, or hangs.
_SERVER_TIMEOUTS_MS = {
    "lock_timeout": 10_000,
    "statement_timeout": 20_000,
    "idle_in_transaction_session_timeout": 30_000,
}
_POOL_TIMEOUT_S = 10.0


def create_engine(url: str) -> sa.Engine:
    """The engine for a database.

    On PostgreSQL nothing waits without an end: neither a connection, a lock, a statement nor a dead network. What the
    URL itself sets (`?connect_timeout=3&options=-c%20statement_timeout%3D60s`) stands.

    Args:
        url: SQLAlchemy URL.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_engine(parsed)
    return _postgresql_engine(parsed)


def _postgresql_engine(url: sa.URL) -> sa.Engine:
    arguments = {name: value for name, value in _CONNECT_ARGUMENTS.items() if name not in url.query}
    given = str(url.query.get("options", ""))
    timeouts = [f"SET {name} = {value}" for name, value in _SERVER_TIMEOUTS_MS.items() if name not in given]
    engine = sa.create_engine(url, pool_pre_ping=True, pool_timeout=_POOL_TIMEOUT_S, connect_args=arguments, **_OPTIONS)

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        # Not as `options` of the connection, which PgBouncer refuses.
        _execute_each(connection, timeouts)
        connection.commit()

    return engine


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(url, poolclass=NullPool, **_OPTIONS)

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        # Python's driver begins no transaction before a read or a CREATE TABLE; so it begins none at all, see below.
        connection.isolation_level = None
        # What is committed stays after a power failure: checkpoints are deleted once the end of their run is written.
        pragmas = ("busy_timeout=10000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")
        _execute_each(connection, [f"PRAGMA {pragma}" for pragma in pragmas])

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))

    return engine


def make_folder(engine: sa.Engine) -> None:
    """Make the folder of an SQLite database, if it can be made; connecting tells if it can't."""
    if engine.dialect.name == "sqlite" and engine.url.database:
        with contextlib.suppress(OSError):
            Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)


def _execute_each(connection: Any, statements: Sequence[str]) -> None:
    for statement in statements:
        connection.execute(statement).close()


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


_OPTIONS: dict[str, Any] = {
    "json_serializer": _to_json,
    "json_deserializer": _of_json,
    # Values are among them that nobody is to read in a log or in an error: keys that sign tokens.
    "hide_parameters": True,
}
