"""Jobs in the job database."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Unpack

import sqlalchemy as sa

from sienn_ray.access.principals import ADMIN_OWNER
from sienn_ray.access.quotas import Quotas
from sienn_ray.jobs.schema import JobEvent, JobPage, JobQuery, JobRecord, JobStatus, MetricPoint, utc_now
from sienn_ray.jobs.store import (
    job_attempts,
    job_changes,
    job_curves,
    job_ends,
    job_entries,
    job_events,
    job_pages,
    job_pauses,
    job_reports,
    queue,
)
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.job_changes import JobChanges
from sienn_ray.jobs.store.quota_checks import QuotaChecks
from sienn_ray.jobs.store.records import read_job, to_job, write_job
from sienn_ray.jobs.store.tables import jobs
from sienn_ray.training.reporting import Progress, RunCommand


class JobStore:
    """Reads and writes jobs; every method is one transaction. All that name a job may raise `NotFoundError`.

    Args:
        database: Where they are kept.
        clock: The time.
        quotas: Checks the quotas of owners.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime] = utc_now,
        quotas: QuotaChecks | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._quotas = quotas or QuotaChecks(Quotas())
        self._max_running_per_owner = self._quotas.defaults.max_running_jobs

    def add(self, record: JobRecord, max_pending: int | None = None) -> JobRecord:
        """Add a job; adding the same id or idempotency key again gives the job that is there.

        Args:
            record: The job.
            max_pending: Jobs that may wait; None for any number.

        Raises:
            NotFoundError: There is no such dataset.
            ConflictError: The idempotency key came with another request before.
            TooManyRequestsError: So many wait already, or as many of its owner as may.
            QuotaExceededError: Its owner's storage is full.
        """
        try:
            return self._add(record, max_pending)
        except sa.exc.IntegrityError:
            # A tracker that is being replaced has added the same just now.
            return self._add(record, max_pending)

    def _add(self, record: JobRecord, max_pending: int | None) -> JobRecord:
        with self._database.writing() as connection:
            return job_entries.enter(connection, record, max_pending, self._quotas, self._clock())

    def of_key(self, idempotency_key: str, owner: str = ADMIN_OWNER) -> JobRecord | None:
        """The job of an owner that came with an idempotency key, if any."""
        with self._database.reading() as connection:
            return job_entries.of_key(connection, idempotency_key, owner)

    def get(self, job_id: str) -> JobRecord:
        """One job; one that waits says where it stands in the queue."""
        with self._database.reading() as connection:
            record = read_job(connection, job_id)
            if record.status is not JobStatus.PENDING:
                return record
            seq: int = connection.execute(sa.select(jobs.c.seq).where(jobs.c.id == job_id)).scalar_one()
            return queue.with_place(record, queue.places(connection, [seq], self._max_running_per_owner).get(seq))

    def page(self, query: JobQuery) -> JobPage:
        """Jobs, the newest first; those that wait say where they stand in the queue.

        Raises:
            InvalidInputError: The cursor isn't one.
        """
        with self._database.reading() as connection:
            return job_pages.read(connection, query, self._max_running_per_owner)

    def running(self) -> list[JobRecord]:
        """Jobs that run, the oldest first."""
        return self._list(jobs.c.status == JobStatus.RUNNING.value)

    def stopping(self) -> list[JobRecord]:
        """Cancelled jobs that are `is_stopping`, the oldest first; found by columns that have an index."""
        return self._list(jobs.c.status == JobStatus.CANCELLED.value, jobs.c.ended_at.is_(None))

    def waiting(self, limit: int, without: Collection[str] = ()) -> list[JobRecord]:
        """The jobs that are next to start, in this order; see `queue`.

        Args:
            limit: Jobs at the most.
            without: Ids of jobs that can't start at the moment.
        """
        with self._database.reading() as connection:
            seqs = queue.next_jobs(connection, limit, self._max_running_per_owner, without)
            found = connection.execute(sa.select(jobs).where(jobs.c.seq.in_(seqs))).mappings().all()
        by_seq = {row["seq"]: to_job(row) for row in found}
        return [by_seq[seq] for seq in seqs]

    def _list(self, *conditions: sa.ColumnElement[bool]) -> list[JobRecord]:
        query = sa.select(jobs).where(*conditions).order_by(jobs.c.seq)
        with self._database.reading() as connection:
            return [to_job(row) for row in connection.execute(query).mappings().all()]

    def update(
        self,
        job_id: str,
        *,
        status: JobStatus | None = None,
        running_attempt: int | None = None,
        **changes: Unpack[JobChanges],
    ) -> JobRecord:
        """Change a job's fields, and its status if the table of transitions allows that; see `job_changes.change`.

        Args:
            job_id: The job's id.
            status: The new status.
            running_attempt: Change nothing unless this attempt is running.
            **changes: The new fields.

        Raises:
            TransitionError: The status change isn't allowed; nothing is written then.
        """
        with self._database.writing() as connection:
            current = read_job(connection, job_id)
            if running_attempt is not None and not current.is_running(running_attempt):
                return current
            return job_changes.change(connection, current, self._clock(), status=status, **changes)

    def end(self, job_id: str, attempt: int, /, *, status: JobStatus, **changes: Unpack[JobChanges]) -> JobRecord:
        """End a running job as its run says; a repeat changes nothing.

        Raises:
            FencedError: The job doesn't await this attempt.
        """
        with self._database.writing() as connection:
            job = read_job(connection, job_id)
            if (job.attempt, job.status) == (attempt, status):
                return job
            running = job_attempts.check_awaited(connection, job, attempt, self._clock())
            return job_changes.change(connection, running, self._clock(), status=status, **changes)

    def note_start(self, job_id: str, attempt: int, submission_id: str) -> JobRecord:
        """Ray has taken an attempt; changes nothing unless that one still runs, or has yet to be stopped."""
        with self._database.writing() as connection:
            job = read_job(connection, job_id)
            if job.is_running(attempt) or (job.is_stopping and job.attempt == attempt):
                return job_changes.note_start(connection, job, submission_id, self._clock())
            return job

    def requeue(
        self, job_id: str, attempt: int, reason: str, *, is_counted: bool = True, log_tail: str | None = None
    ) -> JobRecord:
        """A running attempt is lost, and the job waits for its next one; one that is to be paused is paused then.

        See `job_changes.requeue`.
        """
        with self._database.writing() as connection:
            job = read_job(connection, job_id)
            if not job.is_running(attempt):
                return job
            if job.is_pausing:
                return job_pauses.note_pause(connection, job, self._clock(), job_pauses.WORDS_OF_LOSS)
            return job_changes.requeue(connection, job, reason, self._clock(), is_counted=is_counted, log_tail=log_tail)

    def put_back(self, job_id: str, attempt: int, submission_id: str, words: str) -> JobRecord:
        """Ray didn't say whether it has taken a running attempt, and the job waits again."""
        with self._database.writing() as connection:
            job = read_job(connection, job_id)
            if not job.is_running(attempt):
                return job
            return job_changes.put_back(connection, job, submission_id, words, self._clock())

    def report(self, job_id: str, attempt: int, progress: Progress) -> RunCommand:
        """Take a report of a running attempt; the answer is what is wanted of it."""
        with self._database.writing() as connection:
            return job_reports.take(connection, job_id, attempt, progress, self._clock())

    def cancel(self, job_id: str) -> JobRecord:
        """End a waiting or running job; a run has yet to be stopped then.

        Raises:
            ConflictError: It has ended.
        """
        with self._database.writing() as connection:
            return job_ends.cancel(connection, read_job(connection, job_id), self._clock())

    def note_stop(self, job_id: str) -> None:
        """A cancelled job's run has ended."""
        with self._database.writing() as connection:
            job_ends.note_stop(connection, read_job(connection, job_id), self._clock())

    def pause(self, job_id: str) -> JobRecord:
        """Pause a waiting job, or note the wish to pause a running one.

        Raises:
            ConflictError: It is neither, or it is being paused already.
        """
        with self._database.writing() as connection:
            return job_pauses.pause(connection, read_job(connection, job_id), self._clock())

    def resume(self, job_id: str) -> JobRecord:
        """Put a paused job back into the queue, or withdraw the wish to pause a running one.

        Raises:
            ConflictError: It is neither, or its run is being stopped.
            TooManyRequestsError: As many of its owner's jobs wait as may.
            QuotaExceededError: Its owner's storage is full.
        """
        with self._database.writing() as connection:
            job = read_job(connection, job_id)
            if job.status is JobStatus.PAUSED:
                self._quotas.check_job(connection, job.owner)
            return job_pauses.resume(connection, job, self._clock())

    def note_pause(self, job_id: str, attempt: int) -> JobRecord:
        """A running attempt has ended at a checkpoint, to go on later; a repeat changes nothing.

        Raises:
            FencedError: The job doesn't await this attempt.
        """
        with self._database.writing() as connection:
            job = read_job(connection, job_id)
            if job.attempt == attempt and job.status in {JobStatus.PAUSED, JobStatus.PENDING}:
                return job
            running = job_attempts.check_awaited(connection, job, attempt, self._clock())
            return job_pauses.note_pause(connection, running, self._clock(), job_pauses.WORDS_OF_PAUSE)

    def note_silence(self, job_id: str, attempt: int, words: str) -> JobRecord:
        """A running attempt has reported nothing for too long and is about to be stopped."""
        with self._database.writing() as connection:
            job = read_job(connection, job_id)
            return job_pauses.note_silence(connection, job, self._clock(), words) if job.is_running(attempt) else job

    def note_log_tail(self, job_id: str, attempt: int, tail: str) -> None:
        """Keep the end of the log of a job that has failed."""
        with self._database.writing() as connection:
            job = read_job(connection, job_id)
            if job.status is JobStatus.FAILED and job.attempt == attempt and job.log_tail is None:
                write_job(connection, job.model_copy(update={"log_tail": tail}))

    def ended_since(self, moment: datetime, limit: int) -> list[JobRecord]:
        """Jobs whose run has said that it is over since then, the newest first."""
        words = (JobStatus.COMPLETED.value, JobStatus.FAILED.value, JobStatus.PAUSED.value)
        conditions = (jobs.c.status.in_(words), jobs.c.submission_id.is_not(None), jobs.c.updated_at >= moment)
        query = sa.select(jobs).where(*conditions).order_by(jobs.c.updated_at.desc()).limit(limit)
        with self._database.reading() as connection:
            return [to_job(row) for row in connection.execute(query).mappings().all()]

    def note_overdue(self, job_id: str, attempt: int) -> JobRecord:
        """A running attempt that is to be paused is about to be stopped; changes nothing if it isn't any more."""
        with self._database.writing() as connection:
            job = read_job(connection, job_id)
            if not (job.is_running(attempt) and job.is_pausing):
                return job
            return job_pauses.note_overdue(connection, job, self._clock())

    def retry(self, job_id: str, *, has_checkpoint: bool = True) -> JobRecord:
        """Put a failed or cancelled job back into the queue.

        Args:
            job_id: The job.
            has_checkpoint: Whether its run left one to go on from.

        Raises:
            ConflictError: It is neither, its run is still being stopped, or the job that it starts from was deleted.
            TooManyRequestsError: As many of its owner's jobs wait as may.
            QuotaExceededError: Its owner's storage is full.
        """
        with self._database.writing() as connection:
            job = read_job(connection, job_id)
            if job.status in {JobStatus.FAILED, JobStatus.CANCELLED}:
                self._quotas.check_job(connection, job.owner)
            return job_ends.retry(connection, job, self._clock(), has_checkpoint=has_checkpoint)

    def delete(self, job_id: str) -> JobRecord:
        """Forget an ended job and all that is known of it, and have its files deleted.

        Raises:
            ConflictError: It hasn't ended.
        """
        with self._database.writing() as connection:
            return job_ends.delete(connection, read_job(connection, job_id), self._clock())

    def events(self, job_id: str, after: int, limit: int) -> list[JobEvent]:
        """A job's events with a `seq` above `after`, the oldest first."""
        with self._database.reading() as connection:
            read_job(connection, job_id)
            return job_events.read(connection, job_id, after, limit)

    def metric_points(self, job_id: str, max_points: int) -> list[MetricPoint]:
        """A job's curves in order of steps, thinned out evenly to `max_points`."""
        with self._database.reading() as connection:
            read_job(connection, job_id)
            return job_curves.read(connection, job_id, max_points)
