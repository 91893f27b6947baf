"""The audit log as a table: entries are added, each behind the one before it, and never changed."""

from __future__ import annotations

import uuid
from datetime import datetime

import sqlalchemy as sa

from sienn_ray.access.audit import AuditEntry, AuditOrigin, AuditReport
from sienn_ray.jobs.store.tables import audit_entries, audit_horizon


def add(connection: sa.Connection, *reports: AuditReport) -> None:
    """Write entries, in the transaction of what they tell; one that was written before is left as it is."""
    given = [report.id for report in reports]
    known = set(connection.scalars(sa.select(audit_entries.c.id).where(audit_entries.c.id.in_(given))))
    previous = _last_hash(connection)
    for report in reports:
        if report.id not in known:
            known.add(report.id)
            _insert(connection, entry := AuditEntry.of(report, previous))
            previous = entry.hash


def add_new(
    connection: sa.Connection,
    origin: AuditOrigin,
    moment: datetime,
    target_kind: str | None = None,
    target_id: str | None = None,
) -> None:
    """Write one entry that nobody repeats."""
    report = AuditReport(uuid.uuid4().hex, moment, origin, target_kind, target_id)
    _insert(connection, AuditEntry.of(report, _last_hash(connection)))


def add_by_service(connection: sa.Connection, action: str, moment: datetime, kind: str | None, target: str) -> None:
    """Write down what the service did by itself, as a deletion of what has expired."""
    add_new(connection, AuditOrigin(action=action), moment, kind, target)


def _insert(connection: sa.Connection, entry: AuditEntry) -> None:
    values = {**vars(entry), "principal_kind": entry.principal_kind.value}
    del values["seq"]
    connection.execute(_INSERT, values)


_INSERT = sa.insert(audit_entries)
# As text, since it is asked for at each change, and SQLAlchemy takes three times as long to build it as it takes.
_NEWEST = "SELECT hash FROM audit_entries ORDER BY seq DESC LIMIT 1"


def _last_hash(connection: sa.Connection) -> str:
    """The hash that the next entry goes on from; one writer at a time is here."""
    newest = connection.exec_driver_sql(_NEWEST).scalar()
    if newest is None:
        newest = connection.scalar(sa.select(audit_horizon.c.hash))
    return str(newest or "")
