"""Refresh tokens in the job database."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa

from sienn_ray.access.api_keys import ApiKeyRecord
from sienn_ray.access.refresh_tokens import (
    LOST,
    REPEAT_S,
    RefreshFault,
    RefreshOutcome,
    RefreshRequest,
    RefreshTokenRecord,
)
from sienn_ray.jobs.schema import utc_now
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.tables import api_keys, refresh_tokens

logger = logging.getLogger(__name__)


class RefreshTokenStore:
    """Reads and writes refresh tokens; every method is one transaction.

    Args:
        database: Where they are kept, without what proves them.
        clock: The time.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    def add(self, record: RefreshTokenRecord) -> None:
        """Add the first token of a family, and forget families that have ended."""
        with self._database.writing() as connection:
            connection.execute(sa.delete(refresh_tokens).where(refresh_tokens.c.expires_at <= self._clock()))
            _insert(connection, record)

    def exchange(self, request: RefreshRequest) -> RefreshOutcome:
        """Exchange a token for its successor; a second exchange of a token ends its family, and so does a key's end.

        Raises:
            TokenRequestError: It isn't exchanged, and nothing has changed.
        """
        now = self._clock()
        with self._database.writing() as connection:
            query = sa.select(refresh_tokens).where(refresh_tokens.c.sha256 == request.sha256)
            row = connection.execute(query).mappings().first()
            if row is None:
                raise RefreshFault.UNKNOWN.error
            record = RefreshTokenRecord.model_validate(dict(row))
            key = _key_of(connection, record)
            outcome = (
                RefreshOutcome() if key is None else RefreshOutcome(key_id=key.id, key_name=key.name, owner=key.owner)
            )
            lost = _lost_successor(connection, record, now)
            if fault := _fault(record, key, request, lost, now):
                if not fault.ends_family:
                    raise fault.error
                logger.warning("a family of refresh tokens of the key %s ends: %s", record.client_id, fault)
                is_family = refresh_tokens.c.family == record.family
                connection.execute(sa.update(refresh_tokens).where(is_family).values(revoked_at=now))
                return outcome.model_copy(update={"fault": fault})
            used, used_at = (record.sha256, now) if lost is None else (lost, LOST)
            is_used = refresh_tokens.c.sha256 == used
            connection.execute(sa.update(refresh_tokens).where(is_used).values(used_at=used_at))
            fresh = {"sha256": request.successor_sha256, "created_at": now, "used_at": None}
            successor = record.model_copy(update=fresh)
            _insert(connection, successor)
            return outcome.model_copy(update={"successor": successor})


def _key_of(connection: sa.Connection, record: RefreshTokenRecord) -> ApiKeyRecord | None:
    row = connection.execute(sa.select(api_keys).where(api_keys.c.prefix == record.client_id)).mappings().first()
    return None if row is None else ApiKeyRecord.model_validate(dict(row))


def _lost_successor(connection: sa.Connection, record: RefreshTokenRecord, now: datetime) -> str | None:
    """The hash of the successor of a token that comes again soon, if nobody has used it and so its answer was lost."""
    if record.used_at is None or now - record.used_at > timedelta(seconds=REPEAT_S):
        return None
    columns = refresh_tokens.c
    later = sa.select(columns.sha256, columns.used_at).where(
        columns.family == record.family, columns.created_at >= record.used_at, columns.sha256 != record.sha256
    )
    rows = [row for row in connection.execute(later) if row.used_at != LOST]
    return rows[0].sha256 if len(rows) == 1 and rows[0].used_at is None else None


def _fault(
    record: RefreshTokenRecord, key: ApiKeyRecord | None, request: RefreshRequest, lost: str | None, now: datetime
) -> RefreshFault | None:
    if request.client_id is not None and request.client_id != record.client_id:
        return RefreshFault.OTHER_CLIENT
    if record.revoked_at is not None:
        return RefreshFault.REVOKED
    if record.used_at is not None and lost is None:
        return RefreshFault.REUSED
    if record.expires_at <= now:
        return RefreshFault.EXPIRED
    if key is None or key.fault_at(now):
        return RefreshFault.KEY_ENDED
    if request.scopes is not None and not request.scopes <= record.scopes:
        return RefreshFault.SCOPES
    return None


def _insert(connection: sa.Connection, record: RefreshTokenRecord) -> None:
    connection.execute(sa.insert(refresh_tokens).values(**record.model_dump() | {"scopes": sorted(record.scopes)}))
