"""Exports and the rows that they are kept in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypedDict, Unpack

import sqlalchemy as sa

from sienn_ray.errors import NotFoundError
from sienn_ray.jobs.deletion_schema import DeletionKind
from sienn_ray.jobs.export_schema import ExportFailure, ExportRecord, ExportStatus
from sienn_ray.jobs.ids import shown
from sienn_ray.jobs.store import tombstones, webhook_outbox
from sienn_ray.jobs.store.tables import exports
from sienn_ray.jobs.transitions import check_export_transition

COLUMNS = [column for column in exports.columns if column.name != "seq"]


class ExportChanges(TypedDict, total=False):
    """Fields of an export that change."""

    status: ExportStatus
    progress: int
    message: str
    failure_reason: ExportFailure | None
    attempt: int
    num_losses: int
    loss_progress: int
    file_name: str
    size_bytes: int
    sha256: str
    updated_at: datetime
    ended_at: datetime | None
    expires_at: datetime | None


def find(connection: sa.Connection, export_id: str) -> ExportRecord | None:
    """One export, if it is there."""
    row = connection.execute(sa.select(*COLUMNS).where(exports.c.id == export_id)).mappings().first()
    return None if row is None else ExportRecord.model_validate(dict(row))


def get(connection: sa.Connection, export_id: str) -> ExportRecord:
    """One export.

    Raises:
        NotFoundError: There is none with this id.
    """
    found = find(connection, export_id)
    if found is None:
        raise NotFoundError(f"Export {shown(export_id)} not found; GET /api/exports/{{job_id}} lists a job's exports")
    return found


def write(connection: sa.Connection, known: ExportRecord, **changes: Unpack[ExportChanges]) -> ExportRecord:
    """Change an export's fields, and its status if the table of transitions allows that.

    Raises:
        TransitionError: The status change isn't allowed; nothing is written then.
    """
    if "status" in changes:
        check_export_transition(known.id, known.status, changes["status"])
    changed = known.model_copy(update=changes)
    connection.execute(sa.update(exports).where(exports.c.id == known.id).values(**columns(changed)))
    if "status" in changes:
        webhook_outbox.tell_of_export(connection, changed, changed.updated_at)
    return changed


def delete(connection: sa.Connection, known: ExportRecord, moment: datetime) -> None:
    """Forget an export, and have its files deleted."""
    discard_files(connection, known, moment)
    connection.execute(sa.delete(exports).where(exports.c.id == known.id))


def delete_of_job(connection: sa.Connection, job_id: str, moment: datetime) -> None:
    """Forget all exports of a job, and have their files deleted."""
    query = sa.select(*COLUMNS).where(exports.c.job_id == job_id)
    for row in connection.execute(query).mappings().all():
        delete(connection, ExportRecord.model_validate(dict(row)), moment)


def discard_files(connection: sa.Connection, record: ExportRecord, moment: datetime) -> None:
    """Have an export's files deleted, once it has no run; it starts no other one before that."""
    tombstones.add(connection, DeletionKind.EXPORT, record.id, moment, record.job_id)


def columns(record: ExportRecord) -> Mapping[str, Any]:
    """An export's values by column."""
    plain = record.model_dump(mode="json")
    moments = {name: getattr(record, name) for name in ("created_at", "updated_at", "ended_at", "expires_at")}
    return {**plain, **moments}
