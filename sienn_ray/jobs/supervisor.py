"""Keeps jobs moving: starts those that may start, and notices those whose Ray job has ended without a word."""

from __future__ import annotations

import logging

from sienn_ray.errors import FailureReason, TransitionError
from sienn_ray.jobs import queue
from sienn_ray.jobs.ray_jobs import RayJobReport, RayJobs, RayJobState, submission_id_of
from sienn_ray.jobs.schema import JobRecord, JobStatus
from sienn_ray.jobs.store import Store

logger = logging.getLogger(__name__)


class Supervisor:
    """One `step` brings the database and Ray in line; it keeps nothing between steps.

    Args:
        store: The job database.
        ray_jobs: Ray's job API.
        max_running: Fine-tunes that may run at once.
        max_attempts: Times a job is started again after its run was lost.
    """

    def __init__(self, store: Store, ray_jobs: RayJobs, *, max_running: int, max_attempts: int) -> None:
        self._store = store
        self._ray_jobs = ray_jobs
        self._max_running = max_running
        self._max_attempts = max_attempts

    def step(self) -> None:
        """Look at every running job, then admit waiting ones.

        Raises:
            ConnectionError: Ray's job API didn't answer; the next step tries again.
        """
        for job in self._store.jobs(JobStatus.RUNNING):
            self._look_at(job)
        running = self._store.jobs(JobStatus.RUNNING)
        pending = queue.in_order_of_arrival(self._store.jobs(JobStatus.PENDING))
        for job in queue.admissible(pending, len(running), self._max_running):
            self._start(job)

    def _start(self, job: JobRecord) -> None:
        attempt = job.attempt + 1
        submission_id = submission_id_of(job.id, attempt)
        # Written first: a crash between the two leaves a running job without a Ray job, which the next step notices.
        self._store.update_job(
            job.id,
            status=JobStatus.RUNNING,
            attempt=attempt,
            submission_id=submission_id,
            message="Starting the training program",
            facts={"phase": "starting"},
        )
        metadata = {"job_id": job.id, "dataset_id": job.dataset_id, "base_model": job.config.base_model}
        try:
            self._ray_jobs.submit(job.id, attempt, metadata)
        except ConnectionError as error:
            self._put_back(job, str(error))
            raise
        logger.info("job %s: attempt %d started as Ray job %s", job.id, attempt, submission_id)

    def _put_back(self, job: JobRecord, words: str) -> None:
        """Nothing has run, so this was no attempt."""
        self._store.update_job(
            job.id,
            status=JobStatus.PENDING,
            attempt=job.attempt,
            submission_id=job.submission_id,
            message=f"Waiting for Ray's job API: {words}",
        )

    def _look_at(self, job: JobRecord) -> None:
        report = self._ray_jobs.look(job.submission_id or submission_id_of(job.id, job.attempt))
        if report.state is RayJobState.ACTIVE:
            return
        try:
            self._settle(job, report)
        except TransitionError:
            # The program reports its own end before it exits, so only a job that still counts as running ended
            # without a word.
            logger.info("job %s reported its end meanwhile", job.id)

    def _settle(self, job: JobRecord, report: RayJobReport) -> None:
        if report.state is RayJobState.STOPPED:
            self._fail(job, FailureReason.STOPPED, "The Ray job was stopped by hand; start the fine-tune again")
        elif report.state is RayJobState.SUCCEEDED:
            self._fail(
                job, FailureReason.INTERNAL, "The training program ended without a result; see its Ray job's log"
            )
        elif job.attempt >= self._max_attempts:
            words = report.message or "its Ray job is gone"
            self._fail(
                job,
                FailureReason.INTERRUPTED,
                f"Training was lost {job.attempt} times and SIENN_MAX_ATTEMPTS is {self._max_attempts}; last: {words}",
            )
        else:
            self._requeue(job)

    def _fail(self, job: JobRecord, reason: FailureReason, message: str) -> None:
        logger.warning("job %s failed (%s): %s", job.id, reason, message)
        self._store.update_job(job.id, status=JobStatus.FAILED, failure_reason=reason, message=message)

    def _requeue(self, job: JobRecord) -> None:
        logger.warning("job %s: attempt %d was lost, it resumes from its last checkpoint", job.id, job.attempt)
        self._store.update_job(
            job.id,
            status=JobStatus.PENDING,
            submission_id=None,
            message=f"Attempt {job.attempt} was interrupted; waiting to resume from the last checkpoint",
            facts={"phase": "starting"},
        )
