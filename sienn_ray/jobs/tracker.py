"""The JobTracker actor: the only writer of the job database.

It keeps no truth in memory. Kill it, and Ray starts it again (`max_restarts=-1`); it then reads the database and finds
the running Ray jobs by their submission ids.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

import sienn_ray
from sienn_ray.errors import FailureReason, TransitionError
from sienn_ray.jobs import queue
from sienn_ray.jobs.ray_jobs import RayJobApi
from sienn_ray.jobs.schema import DatasetRecord, JobRecord, JobStatus
from sienn_ray.jobs.store import Store
from sienn_ray.jobs.supervisor import Supervisor
from sienn_ray.settings import Settings
from sienn_ray.training.reporting import Progress

logger = logging.getLogger(__name__)


class JobTracker:
    """State of datasets and jobs. Runs as a threaded actor; every method may be repeated without harm.

    Args:
        settings: Where the database is and how many jobs may run.
    """

    def __init__(self, settings: Settings) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._settings = settings
        self._store = Store(settings.database_url)
        self._supervisor = Supervisor(
            self._store,
            RayJobApi(),
            max_running=settings.max_running_jobs,
            max_attempts=settings.max_attempts,
        )
        self._wake = threading.Event()
        threading.Thread(target=self._supervise, name="supervisor", daemon=True).start()

    def _supervise(self) -> None:
        last_error = ""
        while True:
            try:
                self._supervisor.step()
                last_error = ""
            except Exception as error:  # nothing may end this thread: without it no job starts or is missed
                if str(error) != last_error:
                    logger.exception(
                        "looking after the jobs failed; trying again every %s s", self._settings.job_poll_s
                    )
                last_error = str(error)
            self._wake.wait(self._settings.job_poll_s)
            self._wake.clear()

    def is_like(self, version: str, settings: Settings) -> bool:
        """Whether this actor runs that version of the code with those settings."""
        return version == sienn_ray.__version__ and settings == self._settings

    def settings(self) -> Settings:
        """What a training program must know, so that one started by hand uses the same storage."""
        return self._settings.without_secrets()

    def add_dataset(self, record: DatasetRecord) -> DatasetRecord:
        """Add a dataset."""
        return self._store.add_dataset(record)

    def dataset(self, dataset_id: str) -> DatasetRecord:
        """One dataset; raises `NotFoundError`."""
        return self._store.dataset(dataset_id)

    def datasets(self) -> list[DatasetRecord]:
        """All datasets, the newest first."""
        return self._store.datasets()

    def add_job(self, record: JobRecord) -> JobRecord:
        """Add a job to the queue, or one that already runs as a Ray job started by hand."""
        job = self._store.add_job(record)
        self._wake.set()
        return job

    def job(self, job_id: str) -> JobRecord:
        """One job; raises `NotFoundError`. One that waits says so with its place in the queue."""
        job = self._store.job(job_id)
        return self._with_place(job, self._pending()) if job.status is JobStatus.PENDING else job

    def jobs(self) -> list[JobRecord]:
        """All jobs, the newest first."""
        pending = self._pending()
        return [self._with_place(job, pending) for job in self._store.jobs()]

    def _pending(self) -> list[JobRecord]:
        return queue.in_order_of_arrival(self._store.jobs(JobStatus.PENDING))

    def _with_place(self, job: JobRecord, pending: list[JobRecord]) -> JobRecord:
        place = queue.position(pending, job.id)
        if place is None:
            return job
        return job.model_copy(update={"facts": {**job.facts, "queue_position": place}})

    def report(self, job_id: str, attempt: int, progress: Progress) -> None:
        """Take a running job's progress; words of an earlier attempt, or after the end, are dropped."""
        self._store.update_job(
            job_id,
            running_attempt=attempt,
            message=progress.message,
            progress=progress.percent,
            facts=progress.facts(),
        )

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
        if self._store.job(job_id).attempt != attempt:
            logger.warning("job %s: attempt %d ended as '%s' after it was given up", job_id, attempt, status)
            return
        try:
            self._store.update_job(job_id, status=status, **changes)
        except TransitionError:
            # A call that is repeated after a restart of this actor finds its own work done.
            if self._store.job(job_id).status is not status:
                raise
        self._wake.set()
