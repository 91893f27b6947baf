"""The audit log in the job database."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

import sqlalchemy as sa

from sienn_ray.access.audit import AuditEntry, AuditOrigin, AuditReport, PrincipalKind
from sienn_ray.jobs.audit_schema import AuditPage, AuditQuery
from sienn_ray.jobs.schema import utc_now
from sienn_ray.jobs.store import audit_log
from sienn_ray.jobs.store.cursors import cursor_of, seq_of
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.tables import audit_entries, audit_horizon

# In one transaction, so that no change waits for long.
_PRUNED_AT_ONCE = 5000


class AuditStore:
    """Adds entries, reads them, and forgets the oldest.

    Args:
        database: Where they are kept.
        clock: The time.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    def add(self, reports: Iterable[AuditReport]) -> None:
        """Write entries; those that were written before are left as they are."""
        with self._database.writing() as connection:
            audit_log.add(connection, *reports)

    def note(self, origin: AuditOrigin, target_kind: str | None = None, target_id: str | None = None) -> None:
        """Write down a change that has just been made, in its transaction where it has one."""
        with self._database.adding() as connection:
            audit_log.add_new(connection, origin, self._clock(), target_kind, target_id)

    def page(self, query: AuditQuery) -> AuditPage:
        """Return a page, the newest first.

        Raises:
            InvalidInputError: The cursor isn't one.
        """
        conditions = _conditions(query)
        if query.cursor is not None:
            conditions.append(audit_entries.c.seq < seq_of(query.cursor))
        found = sa.select(audit_entries).where(*conditions).order_by(audit_entries.c.seq.desc()).limit(query.limit + 1)
        with self._database.reading() as connection:
            rows = connection.execute(found).mappings().all()
        entries = [to_entry(row) for row in rows[: query.limit]]
        return AuditPage(entries, cursor_of(entries[-1].seq) if entries and len(rows) > len(entries) else None)

    def prune(self, lifetime_s: float, max_rows: int) -> int:
        """Forget the oldest entries: those that are older, and those that are too many; returns how many."""
        entries = audit_entries.c
        too_old = sa.select(sa.func.max(entries.seq)).where(
            entries.created_at < self._clock() - timedelta(seconds=lifetime_s)
        )
        too_many = sa.select(entries.seq).order_by(entries.seq.desc()).offset(max_rows).limit(1)
        with self._database.reading() as connection:
            last = max(connection.scalar(too_old) or 0, connection.scalar(too_many) or 0)
        num_pruned = 0
        while number := self._prune_up_to(last):
            num_pruned += number
        return num_pruned

    def _prune_up_to(self, last: int) -> int:
        """Forget some of the oldest entries. The database lets none go that the horizon hasn't passed."""
        entries = audit_entries.c
        oldest = sa.select(entries.seq, entries.hash).where(entries.seq <= last).order_by(entries.seq)
        with self._database.writing() as connection:
            rows = connection.execute(oldest.limit(_PRUNED_AT_ONCE)).all()
            if rows:
                values = {"seq": rows[-1].seq, "hash": rows[-1].hash}
                connection.execute(sa.update(audit_horizon).values(**values))
                connection.execute(sa.delete(audit_entries).where(entries.seq <= rows[-1].seq))
        return len(rows)


def to_entry(row: sa.RowMapping) -> AuditEntry:
    """Return the entry that a row holds."""
    return AuditEntry(**{**row, "principal_kind": PrincipalKind(row["principal_kind"])})


def _conditions(query: AuditQuery) -> list[sa.ColumnElement[bool]]:
    entries = audit_entries.c
    conditions: list[sa.ColumnElement[bool]] = []
    if query.since is not None:
        conditions.append(entries.created_at >= query.since)
    if query.until is not None:
        conditions.append(entries.created_at < query.until)
    if query.principal is not None:
        conditions.append(sa.or_(entries.principal_id == query.principal, entries.owner == query.principal))
    equal = {
        entries.action: query.action,
        entries.target_kind: query.target_kind,
        entries.target_id: query.target_id,
        entries.status: query.status,
        entries.request_id: query.request_id,
    }
    return [*conditions, *(column == value for column, value in equal.items() if value is not None)]
