"""The JobTracker actor: the only writer of the job database.

It keeps no truth in memory. Kill it, and Ray starts it again (`max_restarts=-1`); it then reads the database and finds
the running Ray jobs by their submission ids.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Unpack

import sienn_ray
from sienn_ray.errors import CapacityError, FailureReason, NotFoundError
from sienn_ray.jobs.export_schema import ExportRecord
from sienn_ray.jobs.schema import (
    DatasetRecord,
    JobEvent,
    JobPage,
    JobPhase,
    JobQuery,
    JobRecord,
    JobStatus,
    MetricPoint,
    Overview,
    TrackerHealth,
    utc_now,
)
from sienn_ray.jobs.store.database import words_of
from sienn_ray.jobs.store.job_changes import JobChanges
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.supervision.export_memory import memory_need_bytes
from sienn_ray.jobs.supervision.export_runs import ExportRuns, RayExportRuns
from sienn_ray.jobs.supervision.export_supervisor import ExportSupervisor
from sienn_ray.jobs.supervision.job_supervisor import Supervisor
from sienn_ray.jobs.supervision.ray_jobs import RayJobApi, RayJobs
from sienn_ray.jobs.supervision.threads import Supervise, Supervision
from sienn_ray.jobs.transitions import check_job_transition
from sienn_ray.metrics import MetricBatch, Sample
from sienn_ray.ray_metrics import mirror_samples
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.training.reporting import Progress, RunCommand, RunProgress
from sienn_ray.training.summary import RunSummary

logger = logging.getLogger(__name__)


class JobTracker:
    """State of datasets, jobs and exports. Runs as a threaded actor.

    It answers the calls of `tracker_protocol.Tracker`, under the same names and described there.

    Args:
        settings: Where the database is and how many jobs may run.
        ray_jobs: Ray's job API; by default that of the cluster this process has joined.
        mirror: Takes all metrics every few seconds; by default they go to Ray's own endpoint.
        export_runs: Runs of exports; by default tasks of that cluster.
        supervise: Begins to look after jobs, and after exports; by default in threads.
    """

    def __init__(
        self,
        settings: Settings,
        ray_jobs: RayJobs | None = None,
        mirror: Callable[[list[Sample]], None] = mirror_samples,
        export_runs: ExportRuns | None = None,
        supervise: Supervise = Supervision,
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
        self._supervision = supervise(supervisor, settings.job_poll_s, self._mirror_metrics)
        exporter = ExportSupervisor(
            self._store.exports,
            export_runs or RayExportRuns(settings),
            Storage(settings.storage_url),
            need_bytes=self._export_need_bytes,
            max_running=settings.max_running_exports,
            max_attempts=settings.max_attempts,
        )
        self._export_supervision = supervise(exporter, settings.job_poll_s, what="exports")

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
        """Return whether this actor runs that version of the code with those settings."""
        return version == sienn_ray.__version__ and settings == self._settings

    def settings(self) -> Settings:
        return self._settings.without_secrets()

    # Datasets

    def add_dataset(self, record: DatasetRecord) -> DatasetRecord:
        return self._store.datasets.add(record)

    def dataset(self, dataset_id: str) -> DatasetRecord:
        return self._store.datasets.get(dataset_id)

    def datasets(self) -> list[DatasetRecord]:
        return self._store.datasets.all()

    def delete_dataset(self, dataset_id: str) -> DatasetRecord:
        return self._store.datasets.delete(dataset_id)

    # Jobs, as users see them

    def add_job(self, record: JobRecord) -> JobRecord:
        job = self._store.jobs.add(record, self._settings.max_pending_jobs)
        self._supervision.wake()
        return job

    def job_of_key(self, idempotency_key: str) -> JobRecord | None:
        return self._store.jobs.of_key(idempotency_key)

    def job(self, job_id: str) -> JobRecord:
        return self._store.jobs.get(job_id)

    def jobs(self, query: JobQuery) -> JobPage:
        return self._store.jobs.page(query)

    def cancel_job(self, job_id: str) -> JobRecord:
        job = self._store.jobs.cancel(job_id)
        self._supervision.wake()
        return job

    def retry_job(self, job_id: str) -> JobRecord:
        job = self._store.jobs.retry(job_id)
        self._supervision.wake()
        return job

    def pause_job(self, job_id: str) -> JobRecord:
        job = self._store.jobs.pause(job_id)
        self._supervision.wake()
        return job

    def resume_job(self, job_id: str) -> JobRecord:
        job = self._store.jobs.resume(job_id)
        self._supervision.wake()
        return job

    def delete_job(self, job_id: str) -> JobRecord:
        return self._store.jobs.delete(job_id)

    def events(self, job_id: str, after: int, limit: int) -> list[JobEvent]:
        return self._store.jobs.events(job_id, after, limit)

    def metric_points(self, job_id: str, max_points: int) -> list[MetricPoint]:
        return self._store.jobs.metric_points(job_id, max_points)

    # Exports

    def request_export(self, record: ExportRecord) -> ExportRecord:
        export = self._store.exports.request(record)
        self._export_supervision.wake()
        return export

    def redo_export(self, export_id: str, words: str) -> ExportRecord:
        export = self._store.exports.redo(export_id, words)
        self._export_supervision.wake()
        return export

    def export(self, export_id: str) -> ExportRecord:
        return self._store.exports.get(export_id)

    def exports(self, job_id: str) -> list[ExportRecord]:
        return self._store.exports.of_job(job_id)

    def cancel_export(self, export_id: str) -> ExportRecord:
        export = self._store.exports.cancel(export_id)
        self._export_supervision.wake()
        return export

    def delete_export(self, export_id: str) -> ExportRecord:
        export = self._store.exports.delete(export_id)
        self._export_supervision.wake()
        return export

    def report_export(self, export_id: str, attempt: int, progress: int, message: str) -> bool:
        return self._store.exports.report(export_id, attempt, progress, message)

    def signing_key(self) -> bytes:
        return self._store.signing_key()

    # Jobs, as their training programs tell of them

    def report(self, job_id: str, attempt: int, progress: Progress) -> RunCommand:
        try:
            return self._store.jobs.report(job_id, attempt, progress)
        except NotFoundError:
            logger.warning("job %s is gone: a report of its attempt %d is dropped", job_id, attempt)
            return RunCommand.GO_ON

    def pause(self, job_id: str, attempt: int) -> None:
        try:
            job = self._store.jobs.note_pause(job_id, attempt)
        except NotFoundError:
            logger.warning("job %s is gone: the pause of its attempt %d is dropped", job_id, attempt)
            return
        logger.info("job %s: attempt %d has paused, and the job is '%s'", job_id, attempt, job.status)
        self._supervision.wake()

    def complete(self, job_id: str, attempt: int, summary: RunSummary) -> None:
        self._end(
            job_id,
            attempt,
            status=JobStatus.COMPLETED,
            progress=100,
            message="Training completed successfully",
            phase=JobPhase.COMPLETED,
            run=RunProgress(time_left_s=0.0),
            summary=summary,
        )

    def fail(self, job_id: str, attempt: int, reason: FailureReason, message: str) -> None:
        self._end(
            job_id,
            attempt,
            status=JobStatus.FAILED,
            phase=JobPhase.FAILED,
            failure_reason=reason,
            message=message,
        )

    def _end(self, job_id: str, attempt: int, /, *, status: JobStatus, **changes: Unpack[JobChanges]) -> None:
        try:
            job = self._store.jobs.update(job_id, running_attempt=attempt, status=status, **changes)
        except NotFoundError:
            logger.warning("job %s is gone: the end of its attempt %d as '%s' is dropped", job_id, attempt, status)
            return
        if job.attempt == attempt and job.status is JobStatus.PENDING:
            # Taken for lost, and about to be tried again: the program must leave its checkpoints where they are.
            check_job_transition(job_id, job.status, status)
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
        return self._store.overview()

    def add_metrics(self, batch: MetricBatch) -> None:
        self._store.metrics.add(batch)

    def metric_samples(self) -> list[Sample]:
        return self._store.metrics.samples()

    def health(self) -> TrackerHealth:
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
