"""API keys in the job database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa

from sienn_ray.access.api_keys import ApiKeyRecord
from sienn_ray.errors import ConflictError, InvalidInputError
from sienn_ray.jobs.ids import check_id, not_found
from sienn_ray.jobs.schema import Page, utc_now
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.tables import api_keys

_INHERITED = ("name", "owner", "scopes", "rate_limits", "tokens_per_minute", "max_open_answers")


class ApiKeyStore:
    """Reads and writes API keys; every method is one transaction.

    Args:
        database: Where they are kept, without their secrets.
        clock: The time.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    def add(self, record: ApiKeyRecord) -> ApiKeyRecord:
        """Add a key; adding the same one again changes nothing."""
        with self._database.writing() as connection:
            known = connection.execute(sa.select(api_keys).where(api_keys.c.id == record.id)).mappings().first()
            if known is None:
                _insert(connection, record)
            return record if known is None else ApiKeyRecord.model_validate(dict(known))

    def of_prefix(self, prefix: str) -> ApiKeyRecord | None:
        """Return the key with a prefix, if there is one, valid or not."""
        with self._database.reading() as connection:
            row = connection.execute(sa.select(api_keys).where(api_keys.c.prefix == prefix)).mappings().first()
        return None if row is None else ApiKeyRecord.model_validate(dict(row))

    def page(self, limit: int | None = None, cursor: str | None = None) -> Page[ApiKeyRecord]:
        """Return a page of all keys, the newest first; without a limit, all that follow.

        The cursor is the id of the last key before the page: keys are revoked, and never deleted.

        Raises:
            InvalidInputError: The cursor isn't one.
        """
        query = sa.select(api_keys).order_by(api_keys.c.created_at.desc(), api_keys.c.id)
        with self._database.reading() as connection:
            count = connection.scalar(sa.select(sa.func.count()).select_from(api_keys)) or 0
            if cursor is not None:
                query = query.where(_is_behind(connection, cursor))
            if limit is not None:
                query = query.limit(limit + 1)
            found = [ApiKeyRecord.model_validate(dict(row)) for row in connection.execute(query).mappings()]
        records = found[:limit]
        return Page(records, count, records[-1].id if records and len(found) > len(records) else None)

    def rotate(self, key_id: str, successor: ApiKeyRecord, grace_s: float) -> ApiKeyRecord:
        """Give a key a successor with the same name, owner, scopes and limits; both are valid for a grace period.

        Args:
            key_id: The key that is to end.
            successor: Has the new id, prefix, hash and dates.
            grace_s: Seconds that the old key stays valid, or less if it expires before.

        Returns:
            The successor as it is kept.

        Raises:
            NotFoundError: There is no such key.
            ConflictError: It has ended already.
        """
        now = self._clock()
        with self._database.writing() as connection:
            old = _read(connection, key_id)
            known = connection.execute(sa.select(api_keys).where(api_keys.c.id == successor.id)).mappings().first()
            if known is not None:
                return ApiKeyRecord.model_validate(dict(known))
            if fault := old.fault_at(now):
                raise ConflictError(f"key {key_id} {fault}; create a new one")
            kept = {name: getattr(old, name) for name in _INHERITED}
            added = successor.model_copy(update=kept)
            _insert(connection, added)
            ends_at = now + timedelta(seconds=grace_s)
            if old.expires_at is None or ends_at < old.expires_at:
                connection.execute(sa.update(api_keys).where(api_keys.c.id == key_id).values(expires_at=ends_at))
        return added

    def revoke(self, key_id: str) -> ApiKeyRecord:
        """End a key at once and for good; one that was revoked before stays as it is.

        Raises:
            NotFoundError: There is no such key.
        """
        with self._database.writing() as connection:
            record = _read(connection, key_id)
            if record.revoked_at is None:
                record = record.model_copy(update={"revoked_at": self._clock()})
                values = {"revoked_at": record.revoked_at}
                connection.execute(sa.update(api_keys).where(api_keys.c.id == key_id).values(**values))
        return record


def _is_behind(connection: sa.Connection, key_id: str) -> sa.ColumnElement[bool]:
    """The condition of keys that come behind one in the list."""
    created_at = connection.scalar(sa.select(api_keys.c.created_at).where(api_keys.c.id == key_id))
    if created_at is None:
        raise InvalidInputError("cursor isn't the `next_cursor` of a page; leave it out for the first page")
    is_as_old = sa.and_(api_keys.c.created_at == created_at, api_keys.c.id > key_id)
    return sa.or_(api_keys.c.created_at < created_at, is_as_old)


def _read(connection: sa.Connection, key_id: str) -> ApiKeyRecord:
    check_id("Key", key_id)
    row = connection.execute(sa.select(api_keys).where(api_keys.c.id == key_id)).mappings().first()
    if row is None:
        raise not_found("Key", key_id)
    return ApiKeyRecord.model_validate(dict(row))


def _insert(connection: sa.Connection, record: ApiKeyRecord) -> None:
    values = {**record.model_dump(), "scopes": sorted(record.scopes)}
    connection.execute(sa.insert(api_keys).values(**values))
