"""Queries of a sweep: ids that the job database knows, and tombstones for files of those that it doesn't."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

import sqlalchemy as sa

from sienn_ray.jobs.deletion_schema import DeletionKind
from sienn_ray.jobs.export_schema import ExportStatus
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.store import audit_log, tombstones
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.tables import exports, jobs, signing_keys

_PURPOSE = "owner of storage"
_AT_REST = (JobStatus.FAILED.value, JobStatus.CANCELLED.value, JobStatus.PAUSED.value)
_UNWANTED = (ExportStatus.FAILED.value, ExportStatus.CANCELLED.value)
# A run that has completed deletes its checkpoints itself.
_AFTER_THE_END = timedelta(hours=1)


class SweepStore:
    """Writes tombstones for what a sweep has found; each is checked in the transaction that writes it.

    Args:
        database: Where they are kept.
        clock: The time.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def owner_id(self) -> str:
        """The name of this database among others that may use the same storage; made once."""
        with self._database.writing() as connection:
            query = sa.select(signing_keys.c.value).where(signing_keys.c.purpose == _PURPOSE)
            value = connection.scalar(query)
            if value is None:
                value = secrets.token_hex(16)
                connection.execute(sa.insert(signing_keys).values(purpose=_PURPOSE, value=value))
        return str(value)

    def job_ids(self) -> set[str]:
        """Ids of all jobs."""
        with self._database.reading() as connection:
            return set(connection.scalars(sa.select(jobs.c.id)))

    def wanted_exports(self) -> set[str]:
        """Ids of the exports whose files are wanted, or will be."""
        with self._database.reading() as connection:
            return set(connection.scalars(sa.select(exports.c.id).where(exports.c.status.not_in(_UNWANTED))))

    def discard_unknown_job(self, job_id: str) -> bool:
        """Have all files of a job deleted, unless it is there; returns whether they are."""
        with self._database.writing() as connection:
            if connection.scalar(sa.select(jobs.c.seq).where(jobs.c.id == job_id)) is not None:
                return False
            self._discard(connection, DeletionKind.JOB, job_id, "leftovers_deleted")
            return True

    def discard_unwanted_export(self, job_id: str, export_id: str) -> bool:
        """Have the files of an export deleted, unless they are wanted; returns whether they are deleted."""
        with self._database.writing() as connection:
            wanted = sa.select(exports.c.seq).where(exports.c.id == export_id, exports.c.status.not_in(_UNWANTED))
            if connection.scalar(wanted) is not None:
                return False
            self._discard(connection, DeletionKind.EXPORT, export_id, "leftovers_deleted", job_id)
            return True

    def discard_checkpoints(self, job_ids: Iterable[str], lifetime_s: float) -> list[str]:
        """Have checkpoints deleted that nobody needs, or that have waited for a retry for too long.

        Args:
            job_ids: Jobs that have some.
            lifetime_s: Seconds that those of failed, cancelled and paused jobs are kept.

        Returns:
            The jobs whose checkpoints are deleted.
        """
        now = self._clock()
        completed = sa.and_(jobs.c.status == JobStatus.COMPLETED.value, jobs.c.updated_at < now - _AFTER_THE_END)
        left = sa.and_(jobs.c.status.in_(_AT_REST), jobs.c.updated_at < now - timedelta(seconds=lifetime_s))
        with self._database.writing() as connection:
            found = set(connection.scalars(sa.select(jobs.c.id).where(sa.or_(completed, left))))
            discarded = sorted(found.intersection(job_ids))
            for job_id in discarded:
                self._discard(connection, DeletionKind.CHECKPOINTS, job_id, "checkpoints_expired")
        return discarded

    def _discard(
        self, connection: sa.Connection, kind: DeletionKind, record_id: str, action: str, job_id: str | None = None
    ) -> None:
        """Have files deleted, and write that down, unless that was done and storage only has to be there again."""
        if not tombstones.is_there(connection, kind, record_id):
            tombstones.add(connection, kind, record_id, self._clock(), job_id)
            target = "export" if kind is DeletionKind.EXPORT else "job"
            audit_log.add_by_service(connection, action, self._clock(), target, record_id)
