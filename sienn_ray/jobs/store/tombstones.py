"""Tombstones: written in the transaction that takes a record away, and gone once its files are."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from sienn_ray.errors import ConflictError
from sienn_ray.jobs.deletion_schema import DeletionKind
from sienn_ray.jobs.store.tables import deletions


def add(
    connection: sa.Connection, kind: DeletionKind, record_id: str, moment: datetime, job_id: str | None = None
) -> None:
    """Have the files of a record deleted; a tombstone that is there already stands for them as well."""
    if not is_there(connection, kind, record_id):
        values = {"kind": kind.value, "id": record_id, "job_id": job_id, "num_failures": 0}
        connection.execute(sa.insert(deletions).values(**values, created_at=moment, due_at=moment))


def is_there(connection: sa.Connection, kind: DeletionKind, record_id: str) -> bool:
    """Return whether the files of a record are yet to be deleted."""
    query = sa.select(deletions.c.seq).where(deletions.c.kind == kind.value, deletions.c.id == record_id)
    return connection.scalar(query) is not None


def check_checkpoints(connection: sa.Connection, job_id: str) -> None:
    """Let a job go on only where its checkpoints stay, or are gone.

    Raises:
        ConflictError: They have expired, and are being deleted just now.
    """
    if is_there(connection, DeletionKind.CHECKPOINTS, job_id):
        raise ConflictError(f"Checkpoints of job {job_id} have expired and are being deleted; try again in a moment")
