"""The JobTracker actor: the only writer of the job database.

It keeps no truth in memory. Kill it, and Ray starts it again (`max_restarts=-1`); it then reads the database and finds
the running Ray jobs by their submission ids.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any

import sienn_ray
from sienn_ray.errors import CapacityError, FailureReason, NotFoundError
from sienn_ray.jobs.database import words_of
from sienn_ray.jobs.export_memory import memory_need_bytes
from sienn_ray.jobs.export_runs import ExportRuns, RayExportRuns
from sienn_ray.jobs.export_schema import ExportRecord
from sienn_ray.jobs.export_supervisor import ExportSupervisor
from sienn_ray.jobs.ray_jobs import RayJobApi, RayJobs
from sienn_ray.jobs.schema import (
    DatasetRecord,
    JobEvent,
    JobPage,
    JobQuery,
    JobRecord,
    JobStatus,
    MetricPoint,
    Overview,
    TrackerHealth,
    check_transition,
    utc_now,
)
from sienn_ray.jobs.store import Store
from sienn_ray.jobs.supervision import Supervision
from sienn_ray.jobs.supervisor import Supervisor
from sienn_ray.metrics import MetricBatch, Sample
from sienn_ray.ray_metrics import mirror_samples
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.training.reporting import Progress, RunCommand

logger = logging.getLogger(__name__)


class JobTracker:
    """State of datasets, jobs and exports. Runs as a threaded actor; every method may be repeated without harm.

    Args:
        settings: Where the database is and how many jobs may run.
        ray_jobs: Ray's job API; by default that of the cluster this process has joined.
        mirror: Takes all metrics every few seconds; by default they go to Ray's own endpoint.
        export_runs: Runs of exports; by default tasks of that cluster.
    """

    def __init__(
        self,
        settings: Settings,
        ray_jobs: RayJobs | None = None,
        mirror: Callable[[list[Sample]], None] = mirror_samples,
        export_runs: ExportRuns | None = None,
    ) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._settings = settings
        self._started_at = utc_now()
        self._store = Store(settings.database_url, export_lifetime_s=settings.export_lifetime_s)
        self._mirror = mirror
        self._mirrored_at = float("-inf")
        supervisor = Supervisor(
            self._store.jobs,
            ray_jobs or RayJobApi(),
            max_running=settings.max_running_jobs,
            max_attempts=settings.max_attempts,
            pause_timeout_s=settings.pause_timeout_s,
        )
        self._supervision = Supervision(supervisor, settings.job_poll_s, self._mirror_metrics)
        exporter = ExportSupervisor(
            self._store.exports,
            export_runs or RayExportRuns(settings),
            Storage(settings.storage_url),
            need_bytes=self._export_need_bytes,
            max_running=settings.max_running_exports,
            max_attempts=settings.max_attempts,
        )
        self._export_supervision = Supervision(exporter, settings.job_poll_s, what="exports")

    def _mirror_metrics(self) -> None:
        if time.monotonic() - self._mirrored_at >= self._settings.metrics_flush_s:
            self._mirror(self._store.metrics.samples())
            self._mirrored_at = time.monotonic()

    def _export_need_bytes(self, record: ExportRecord) -> int:
        return memory_need_bytes(record.base_model, record.options, self._settings)

    def close(self) -> None:
        """Stop looking after jobs and exports, and let go of the database."""
        self._supervision.close()
        self._export_supervision.close()
        self._store.close()

    def is_like(self, version: str, settings: Settings) -> bool:
        """Whether this actor runs that version of the code with those settings."""
        return version == sienn_ray.__version__ and settings == self._settings

    def settings(self) -> Settings:
        """What a training program must know, so that one started by hand uses the same storage."""
        return self._settings.without_secrets()

    # Datasets

    def add_dataset(self, record: DatasetRecord) -> DatasetRecord:
        """Add a dataset; the answer says in `duplicate_of` if its bytes were there before."""
        return self._store.datasets.add(record)

    def dataset(self, dataset_id: str) -> DatasetRecord:
        """One dataset; raises `NotFoundError`."""
        return self._store.datasets.get(dataset_id)

    def datasets(self) -> list[DatasetRecord]:
        """All datasets, the newest first."""
        return self._store.datasets.all()

    def delete_dataset(self, dataset_id: str) -> DatasetRecord:
        """Forget a dataset; raises `NotFoundError`, and `ConflictError` while a job refers to it."""
        return self._store.datasets.delete(dataset_id)

    # Jobs, as users see them

    def add_job(self, record: JobRecord) -> JobRecord:
        """Add a job to the queue, or one that already runs as a Ray job started by hand.

        Raises:
            NotFoundError: There is no such dataset.
            ConflictError: Its idempotency key came with another request before.
            TooManyRequestsError: The queue is full.
        """
        job = self._store.jobs.add(record, self._settings.max_pending_jobs)
        self._supervision.wake()
        return job

    def job_of_key(self, idempotency_key: str) -> JobRecord | None:
        """The job that came with this idempotency key, if any."""
        return self._store.jobs.of_key(idempotency_key)

    def job(self, job_id: str) -> JobRecord:
        """One job; raises `NotFoundError`. One that waits says so with its place in the queue."""
        return self._store.jobs.get(job_id)

    def jobs(self, query: JobQuery) -> JobPage:
        """Jobs, the newest first; raises `InvalidInputError` for a cursor that isn't one."""
        return self._store.jobs.page(query)

    def cancel_job(self, job_id: str) -> JobRecord:
        """End a waiting, running or paused job; raises `NotFoundError`, and `ConflictError` for one that has ended."""
        job = self._store.jobs.cancel(job_id)
        self._supervision.wake()
        return job

    def retry_job(self, job_id: str) -> JobRecord:
        """Put a failed or cancelled job back into the queue; raises `NotFoundError` and `ConflictError`."""
        job = self._store.jobs.retry(job_id)
        self._supervision.wake()
        return job

    def pause_job(self, job_id: str) -> JobRecord:
        """Pause a waiting or running job; raises `NotFoundError`, and `ConflictError` for one that is neither."""
        job = self._store.jobs.pause(job_id)
        self._supervision.wake()
        return job

    def resume_job(self, job_id: str) -> JobRecord:
        """Have a paused job go on, or one that is being paused; raises `NotFoundError` and `ConflictError`."""
        job = self._store.jobs.resume(job_id)
        self._supervision.wake()
        return job

    def delete_job(self, job_id: str) -> JobRecord:
        """Forget an ended job; raises `NotFoundError`, and `ConflictError` for one that hasn't ended."""
        return self._store.jobs.delete(job_id)

    def events(self, job_id: str, after: int, limit: int) -> list[JobEvent]:
        """A job's events with a `seq` above `after`, the oldest first; raises `NotFoundError`."""
        return self._store.jobs.events(job_id, after, limit)

    def metric_points(self, job_id: str, max_points: int) -> list[MetricPoint]:
        """A job's curves in order of steps, thinned out evenly to `max_points`; raises `NotFoundError`."""
        return self._store.jobs.metric_points(job_id, max_points)

    # Exports

    def request_export(self, record: ExportRecord) -> ExportRecord:
        """Ask for an export, which may be there already; raises `NotFoundError` and `ConflictError` about its job."""
        export = self._store.exports.request(record)
        self._export_supervision.wake()
        return export

    def redo_export(self, export_id: str, words: str) -> ExportRecord:
        """Have a completed export made again, since its file is gone; raises `NotFoundError`."""
        export = self._store.exports.redo(export_id, words)
        self._export_supervision.wake()
        return export

    def export(self, export_id: str) -> ExportRecord:
        """One export; raises `NotFoundError`."""
        return self._store.exports.get(export_id)

    def exports(self, job_id: str) -> list[ExportRecord]:
        """A job's exports, the newest first; raises `NotFoundError`."""
        return self._store.exports.of_job(job_id)

    def cancel_export(self, export_id: str) -> ExportRecord:
        """End an export that waits or runs; raises `NotFoundError`, and `ConflictError` for one that has ended."""
        export = self._store.exports.cancel(export_id)
        self._export_supervision.wake()
        return export

    def delete_export(self, export_id: str) -> ExportRecord:
        """Forget an export, and stop it if it runs; raises `NotFoundError`."""
        export = self._store.exports.delete(export_id)
        self._export_supervision.wake()
        return export

    def report_export(self, export_id: str, attempt: int, progress: int, message: str) -> bool:
        """Take the progress of a running export; returns whether it is to go on."""
        return self._store.exports.report(export_id, attempt, progress, message)

    def signing_key(self) -> bytes:
        """What links to downloads are signed with."""
        return self._store.signing_key()

    # Jobs, as their training programs tell of them

    def report(self, job_id: str, attempt: int, progress: Progress) -> RunCommand:
        """Take a running job's progress; words of an earlier attempt, or after the end, are dropped.

        Returns:
            What is wanted of the run.
        """
        try:
            return self._store.jobs.report(job_id, attempt, progress)
        except NotFoundError:
            logger.warning("job %s is gone: a report of its attempt %d is dropped", job_id, attempt)
            return RunCommand.GO_ON

    def pause(self, job_id: str, attempt: int, facts: dict[str, Any]) -> None:
        """Note that a run has ended at a checkpoint, since its job was to be paused."""
        try:
            job = self._store.jobs.note_pause(job_id, attempt, facts)
        except NotFoundError:
            logger.warning("job %s is gone: the pause of its attempt %d is dropped", job_id, attempt)
            return
        logger.info("job %s: attempt %d has paused, and the job is '%s'", job_id, attempt, job.status)
        self._supervision.wake()

    def complete(self, job_id: str, attempt: int, facts: dict[str, Any]) -> None:
        """Note that a job's adapter is published."""
        self._end(
            job_id,
            attempt,
            status=JobStatus.COMPLETED,
            progress=100,
            message="Training completed successfully",
            facts={**facts, "phase": "completed", "time_left_s": 0.0},
        )

    def fail(self, job_id: str, attempt: int, reason: FailureReason, message: str) -> None:
        """Note that a job ended without an adapter, and why."""
        facts = {"phase": "failed"}
        self._end(job_id, attempt, status=JobStatus.FAILED, failure_reason=reason, message=message, facts=facts)

    def _end(self, job_id: str, attempt: int, *, status: JobStatus, **changes: Any) -> None:
        try:
            job = self._store.jobs.update(job_id, running_attempt=attempt, status=status, **changes)
        except NotFoundError:
            logger.warning("job %s is gone: the end of its attempt %d as '%s' is dropped", job_id, attempt, status)
            return
        if job.attempt == attempt and job.status is JobStatus.PENDING:
            # Taken for lost, and about to be tried again: the program must leave its checkpoints where they are.
            check_transition(job_id, job.status, status)
        # A call that is repeated after a restart of this actor finds its own work done.
        if (job.attempt, job.status) != (attempt, status):
            logger.warning(
                "job %s: attempt %d ended as '%s', but the job is '%s' with attempt %d; that stands",
                job_id,
                attempt,
                status,
                job.status,
                job.attempt,
            )
        self._supervision.wake()

    # What is measured

    def overview(self) -> Overview:
        """Numbers over all jobs and datasets."""
        return self._store.overview()

    def add_metrics(self, batch: MetricBatch) -> None:
        """Add up what a process has counted."""
        self._store.metrics.add(batch)

    def metric_samples(self) -> list[Sample]:
        """All metrics, those about jobs included."""
        return self._store.metrics.samples()

    def health(self) -> TrackerHealth:
        """How the tracker and its database are."""
        response_s, error_words = None, None
        try:
            response_s = self._store.database.ping()
        except CapacityError as error:
            error_words = words_of(error.__cause__)
        return TrackerHealth(
            database=self._store.database.name,
            database_response_s=response_s,
            database_error=error_words,
            started_at=self._started_at,
            gcs="Ray GCS with Redis" if os.environ.get("RAY_REDIS_ADDRESS") else "Ray GCS",
        )
