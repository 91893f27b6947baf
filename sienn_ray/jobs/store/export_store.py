"""Exports in the job database."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Unpack

import sqlalchemy as sa

from sienn_ray.access.quotas import Quotas
from sienn_ray.errors import ConflictError
from sienn_ray.jobs.deletion_schema import DeletionKind
from sienn_ray.jobs.export_schema import ExportFailure, ExportRecord, ExportStatus
from sienn_ray.jobs.schema import JobStatus, Page
from sienn_ray.jobs.store import audit_log, export_records, queue, tombstones
from sienn_ray.jobs.store.cursors import read_page
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.queue import QueueKind
from sienn_ray.jobs.store.quota_checks import QuotaChecks
from sienn_ray.jobs.store.records import read_job
from sienn_ray.jobs.store.tables import exports
from sienn_ray.storage import FileEntry


class ExportStore:
    """Reads and writes exports; every method is one transaction.

    Args:
        database: Where they are kept.
        clock: The time.
        lifetime_s: Seconds that a completed export is kept after it was last asked for.
        quotas: Checks the quotas of owners.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        lifetime_s: float,
        quotas: QuotaChecks | None = None,
    ) -> None:
        self._quotas = quotas or QuotaChecks(Quotas())
        self._database = database
        self._clock = clock
        self._lifetime = timedelta(seconds=lifetime_s)

    def request(self, record: ExportRecord) -> ExportRecord:
        """Ask for an export: a new one waits, a failed or cancelled one waits again, any other is given as it is.

        One that is completed is kept for another lifetime.

        Raises:
            NotFoundError: Its job is gone.
            ConflictError: Its job isn't completed any more.
            TooManyRequestsError: As many of its owner's exports wait or run as may.
            QuotaExceededError: Its owner keeps as much as it may.
        """
        with self._database.writing() as connection:
            job = read_job(connection, record.job_id)
            if job.status is not JobStatus.COMPLETED:
                raise ConflictError(f"Job {record.job_id} isn't completed any more; export it once it is")
            known = export_records.find(connection, record.id)
            if known is None or known.status in {ExportStatus.FAILED, ExportStatus.CANCELLED}:
                self._quotas.check_export(connection, job.owner)
            if known is None:
                queue.note_wait(connection, QueueKind.EXPORTS, job.owner)
                connection.execute(sa.insert(exports).values(**export_records.columns(record)))
                return record
            if known.status in {ExportStatus.FAILED, ExportStatus.CANCELLED}:
                return self._put_back(connection, known, record.message)
            if known.status is ExportStatus.COMPLETED:
                return export_records.write(connection, known, expires_at=self._clock() + self._lifetime)
            return known

    def redo(self, export_id: str, words: str) -> ExportRecord:
        """Have a completed export made again, since its file is gone.

        Raises:
            NotFoundError: There is no such export.
        """
        with self._database.writing() as connection:
            known = export_records.get(connection, export_id)
            return self._put_back(connection, known, words) if known.status is ExportStatus.COMPLETED else known

    def _put_back(self, connection: sa.Connection, known: ExportRecord, words: str) -> ExportRecord:
        queue.note_wait(connection, QueueKind.EXPORTS, read_job(connection, known.job_id).owner)
        return export_records.write(
            connection,
            known,
            status=ExportStatus.PENDING,
            progress=0,
            message=words,
            failure_reason=None,
            attempt=0,
            num_losses=0,
            loss_progress=0,
            updated_at=self._clock(),
            ended_at=None,
            expires_at=None,
        )

    def get(self, export_id: str) -> ExportRecord:
        """One export.

        Raises:
            NotFoundError: There is none with this id.
        """
        with self._database.reading() as connection:
            return export_records.get(connection, export_id)

    def of_job(self, job_id: str, limit: int | None = None, cursor: str | None = None) -> Page[ExportRecord]:
        """A page of a job's exports, the newest first; without a limit, all that follow.

        Raises:
            NotFoundError: There is no such job.
            InvalidInputError: The cursor isn't one.
        """
        query = sa.select(exports).where(exports.c.job_id == job_id)
        with self._database.reading() as connection:
            read_job(connection, job_id)
            rows, count, following = read_page(connection, query, exports.c.seq, limit=limit, cursor=cursor)
        return Page([ExportRecord.model_validate(dict(row)) for row in rows], count, following)

    def with_status(self, status: ExportStatus) -> list[ExportRecord]:
        """All exports with a status, the oldest first."""
        query = sa.select(*export_records.COLUMNS).where(exports.c.status == status.value).order_by(exports.c.seq)
        with self._database.reading() as connection:
            return [ExportRecord.model_validate(dict(row)) for row in connection.execute(query).mappings()]

    def waiting(self, limit: int, without: Collection[str] = ()) -> list[ExportRecord]:
        """The exports that are next to start, in this order; see `queue`.

        Args:
            limit: Exports at the most.
            without: Ids of exports that can't start at the moment.
        """
        with self._database.reading() as connection:
            seqs = queue.next_exports(connection, limit, without)
            query = sa.select(exports).where(exports.c.seq.in_(seqs))
            by_seq = {row["seq"]: dict(row) for row in connection.execute(query).mappings()}
        return [ExportRecord.model_validate(by_seq[seq]) for seq in seqs]

    def delete_expired(self) -> list[ExportRecord]:
        """Forget the exports whose time is over, and have their files deleted."""
        now = self._clock()
        # Nobody has asked again for those that failed or were cancelled, which have no such moment of their own.
        is_left = sa.and_(
            exports.c.status.in_([ExportStatus.FAILED.value, ExportStatus.CANCELLED.value]),
            exports.c.ended_at <= now - self._lifetime,
        )
        is_over = sa.or_(exports.c.expires_at <= now, is_left)
        query = sa.select(*export_records.COLUMNS).where(is_over).order_by(exports.c.seq)
        with self._database.reading() as connection:  # seldom any, and many may wait for the only writer
            if connection.execute(query.limit(1)).first() is None:
                return []
        with self._database.writing() as connection:
            rows = connection.execute(query).mappings().all()
            expired = [ExportRecord.model_validate(dict(row)) for row in rows]
            for record in expired:
                export_records.delete(connection, record, now)
                audit_log.add_by_service(connection, "export_expired", now, "export", record.id)
        return expired

    def is_running(self, export_id: str, attempt: int) -> bool:
        """Return whether this very attempt is the one that runs."""
        with self._database.reading() as connection:
            known = export_records.find(connection, export_id)
            return known is not None and known.is_running(attempt)

    def discard_unwanted(self, record: ExportRecord) -> None:
        """Have the files of a run that has ended deleted, unless its export is wanted still."""
        with self._database.writing() as connection:
            known = export_records.find(connection, record.id)
            if known is None or known.status in {ExportStatus.FAILED, ExportStatus.CANCELLED}:
                export_records.discard_files(connection, record, self._clock())

    def start(self, export_id: str) -> ExportRecord | None:
        """Begin the next attempt of a waiting export; None where it doesn't wait, or earlier files have yet to go."""
        with self._database.writing() as connection:
            known = export_records.find(connection, export_id)
            if known is None or known.status is not ExportStatus.PENDING:
                return None
            if tombstones.is_there(connection, DeletionKind.EXPORT, export_id):
                return None
            queue.note_start(connection, QueueKind.EXPORTS, read_job(connection, known.job_id).owner)
            return export_records.write(
                connection,
                known,
                status=ExportStatus.RUNNING,
                attempt=known.attempt + 1,
                message="Waiting for a worker process",
                updated_at=self._clock(),
            )

    def report(self, export_id: str, attempt: int, progress: int, message: str) -> bool:
        """Take the progress of a running export; returns whether it is to go on."""
        with self._database.writing() as connection:
            known = export_records.find(connection, export_id)
            if known is None or not known.is_running(attempt):
                return False
            # What was made in an earlier attempt isn't shown as undone.
            export_records.write(
                connection,
                known,
                progress=max(known.progress, progress),
                message=message,
                updated_at=self._clock(),
            )
            return True

    def complete(self, export_id: str, attempt: int, file: FileEntry) -> bool:
        """Note that an export is published; returns whether it was wanted still."""
        now = self._clock()
        return self._end(
            export_id,
            attempt,
            status=ExportStatus.COMPLETED,
            progress=100,
            message="The export is complete",
            file_name=file.name,
            size_bytes=file.size_bytes,
            sha256=file.sha256,
            expires_at=now + self._lifetime,
        )

    def fail(self, export_id: str, attempt: int, reason: ExportFailure, message: str) -> bool:
        """Note that an export couldn't be made; returns whether it was wanted still."""
        return self._end(export_id, attempt, status=ExportStatus.FAILED, failure_reason=reason, message=message)

    def _end(self, export_id: str, attempt: int, /, **changes: Unpack[export_records.ExportChanges]) -> bool:
        with self._database.writing() as connection:
            known = export_records.find(connection, export_id)
            if known is None or not known.is_running(attempt):
                return False
            changes["updated_at"] = changes["ended_at"] = self._clock()
            ended = export_records.write(connection, known, **changes)
            if ended.status is ExportStatus.FAILED:
                export_records.discard_files(connection, ended, self._clock())
            return True

    def requeue(self, export_id: str, attempt: int, words: str, *, is_counted: bool = True) -> None:
        """Have an export wait again whose run was lost.

        Args:
            export_id: Its id.
            attempt: The attempt that was lost.
            words: What a user is told.
            is_counted: Whether it is a loss of the run's own, rather than of the cluster that it was on.
        """
        with self._database.writing() as connection:
            known = export_records.find(connection, export_id)
            if known is None or not known.is_running(attempt):
                return
            progress = max(known.progress, known.loss_progress)
            export_records.write(
                connection,
                known,
                status=ExportStatus.PENDING,
                message=words,
                num_losses=known.num_losses_with_one_more if is_counted else known.num_losses,
                loss_progress=progress if is_counted else known.loss_progress,
                updated_at=self._clock(),
            )

    def cancel(self, export_id: str) -> ExportRecord:
        """End an export that waits or runs.

        Raises:
            NotFoundError: There is no such export.
            ConflictError: It has ended.
        """
        with self._database.writing() as connection:
            known = export_records.get(connection, export_id)
            if known.status.is_final:
                raise ConflictError(
                    f"Export {export_id} is '{known.status}' and can't be cancelled; DELETE "
                    f"/api/exports/{known.job_id}/{export_id} removes it"
                )
            now = self._clock()
            export_records.discard_files(connection, known, now)
            return export_records.write(
                connection,
                known,
                status=ExportStatus.CANCELLED,
                message="The export was cancelled",
                updated_at=now,
                ended_at=now,
            )

    def delete(self, export_id: str) -> ExportRecord:
        """Forget an export, and have its files deleted; one that runs is stopped first, by who looks after it.

        Raises:
            NotFoundError: There is no such export.
        """
        with self._database.writing() as connection:
            known = export_records.get(connection, export_id)
            export_records.delete(connection, known, self._clock())
            return known
