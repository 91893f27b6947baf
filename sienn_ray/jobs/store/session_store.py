"""Sessions of browsers in the job database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa

from sienn_ray.access.sessions import SessionRecord
from sienn_ray.jobs.schema import utc_now
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.tables import sessions


class SessionStore:
    """Reads and writes sessions; every method is one transaction.

    Args:
        database: Where they are kept, without what their cookies prove them with.
        clock: The time.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    def add(self, record: SessionRecord) -> None:
        """Add a session, and forget those that are over."""
        with self._database.writing() as connection:
            connection.execute(sa.delete(sessions).where(sessions.c.expires_at <= self._clock()))
            connection.execute(sa.insert(sessions).values(**record.model_dump() | {"scopes": sorted(record.scopes)}))

    def of_hash(self, sha256: str) -> SessionRecord | None:
        """Return the session of a cookie, if there is one, valid or not."""
        with self._database.reading() as connection:
            row = connection.execute(sa.select(sessions).where(sessions.c.sha256 == sha256)).mappings().first()
        return None if row is None else SessionRecord.model_validate(dict(row))

    def touch(self, sha256: str) -> None:
        """Note that a session has just been used."""
        with self._database.writing() as connection:
            connection.execute(sa.update(sessions).where(sessions.c.sha256 == sha256).values(seen_at=self._clock()))

    def end_all_of(self, owner: str) -> int:
        """End all sessions of an owner for good, and return how many."""
        now = self._clock()
        with self._database.writing() as connection:
            is_open = (sessions.c.owner == owner) & sessions.c.ended_at.is_(None) & (sessions.c.expires_at > now)
            return connection.execute(sa.update(sessions).where(is_open).values(ended_at=now)).rowcount

    def end(self, sha256: str) -> None:
        """End a session for good."""
        with self._database.writing() as connection:
            is_open = (sessions.c.sha256 == sha256) & sessions.c.ended_at.is_(None)
            connection.execute(sa.update(sessions).where(is_open).values(ended_at=self._clock()))
