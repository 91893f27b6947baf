"""Keeps jobs moving: starts those that may start, stops those that must, notices those that ended silently."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from sienn_ray.errors import FailureReason, NotFoundError, TransitionError
from sienn_ray.jobs.schema import JobPhase, JobRecord, JobStatus, utc_now
from sienn_ray.jobs.store.job_store import JobStore
from sienn_ray.jobs.supervision.ray_jobs import RayJobReport, RayJobs, RayJobState, submission_id_of

logger = logging.getLogger(__name__)

# Ray sends SIGKILL 3 s after SIGTERM; one that takes longer has another trouble, and needs no close look.
_END_OF_A_STOP = timedelta(seconds=10)


class Supervisor:
    """One `step` brings the database and Ray in line; it keeps nothing between steps.

    Users change jobs at any moment in between, so every change names the attempt that it is about.

    Args:
        jobs: The jobs in the database.
        ray_jobs: Ray's job API.
        max_running: Fine-tunes that may run at once.
        max_attempts: Times a job is started, or started again after its run was lost.
        pause_timeout_s: Seconds in which a run may pause by itself, before it is stopped.
        clock: The time.
    """

    def __init__(
        self,
        jobs: JobStore,
        ray_jobs: RayJobs,
        *,
        max_running: int,
        max_attempts: int,
        pause_timeout_s: float = 120.0,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._jobs = jobs
        self._ray_jobs = ray_jobs
        self._max_running = max_running
        self._max_attempts = max_attempts
        self._pause_timeout = timedelta(seconds=pause_timeout_s)
        self._clock = clock

    def step(self) -> None:
        """Stop cancelled jobs, look at running ones, stop those that don't pause, then admit waiting ones.

        Raises:
            ConnectionError: Ray's job API didn't answer; the next step tries again.
        """
        trouble = _each(self._stop, self._jobs.stopping())
        for job in self._jobs.running():
            self._look_at(job)
        trouble = _each(self._stop_pausing, filter(self._is_overdue, self._jobs.running())) or trouble
        # A run that is being stopped still has its workers.
        num_busy = len(self._jobs.running()) + len(self._jobs.stopping())
        for job in self._jobs.waiting(self._max_running - num_busy):
            self._start(job)
            # A start takes its time, in which others may have been cancelled.
            trouble = _each(self._stop, self._jobs.stopping()) or trouble
        if trouble is not None:
            raise trouble

    def needs_close_look(self) -> bool:
        """Return whether a run was told to end just now, and is worth a closer look."""
        stopping = [*self._jobs.stopping(), *filter(self._is_overdue, self._jobs.running())]
        return any(self._clock() - job.updated_at < _END_OF_A_STOP for job in stopping)

    def _start(self, job: JobRecord) -> None:
        attempt = job.attempt + 1
        submission_id = submission_id_of(job.id, attempt)
        try:
            # Written first: a crash between the two leaves a running job without a Ray job, which is noticed.
            self._jobs.update(
                job.id,
                status=JobStatus.RUNNING,
                attempt=attempt,
                submission_id=None,
                message="Starting the training program",
                phase=JobPhase.STARTING,
            )
        except (NotFoundError, TransitionError):
            logger.info("job %s was cancelled before it started", job.id)
            return
        metadata = {"job_id": job.id, "dataset_id": job.dataset_id, "base_model": job.config.base_model}
        try:
            self._ray_jobs.submit(job.id, attempt, metadata)
        except ConnectionError as error:
            self._put_back(job, attempt, str(error))
            raise
        logger.info("job %s: attempt %d started as Ray job %s", job.id, attempt, submission_id)
        started = self._jobs.note_start(job.id, attempt, submission_id)
        if started.status is JobStatus.CANCELLED:
            self._stop(started)  # meanwhile

    def _put_back(self, job: JobRecord, attempt: int, words: str) -> None:
        """Nothing is known to run, so this was no attempt; its submission is noted, since it may have arrived."""
        self._jobs.put_back(job.id, attempt, submission_id_of(job.id, attempt), words)

    def _is_overdue(self, job: JobRecord) -> bool:
        """Whether its run has had the time to pause by itself."""
        requested_at = job.pause_requested_at
        return requested_at is not None and self._clock() - requested_at >= self._pause_timeout

    def _stop_pausing(self, job: JobRecord) -> None:
        """Stop a run that didn't pause; it is noted as paused once Ray says that it has ended."""
        # Written first: a wish that is withdrawn meanwhile must not meet a run that is about to end.
        overdue = self._jobs.note_overdue(job.id, job.attempt)
        if overdue.is_running(job.attempt) and overdue.is_pausing:
            submission_id = job.submission_id or submission_id_of(job.id, job.attempt)
            logger.warning("job %s didn't pause in time, Ray job %s is being stopped", job.id, submission_id)
            self._ray_jobs.stop(submission_id)

    def _stop(self, job: JobRecord) -> None:
        """Ask until Ray says that the run has ended."""
        submission_id = job.submission_id or submission_id_of(job.id, job.attempt)
        if self._ray_jobs.look(submission_id).state is RayJobState.ACTIVE:
            logger.info("job %s is cancelled, Ray job %s is being stopped", job.id, submission_id)
            self._ray_jobs.stop(submission_id)
        else:
            self._jobs.note_stop(job.id)

    def _look_at(self, job: JobRecord) -> None:
        submission_id = job.submission_id or submission_id_of(job.id, job.attempt)
        report = self._ray_jobs.look(submission_id)
        if report.state is not RayJobState.ACTIVE:
            self._settle(job, report)
        elif job.submission_id is None:
            self._jobs.note_start(job.id, job.attempt, submission_id)  # a crash came in between

    def _settle(self, job: JobRecord, report: RayJobReport) -> None:
        """The program reports its own end before it exits, so a job that still counts as running ended silently."""
        attempts = job.attempt - job.attempt_base
        if job.is_pausing:
            logger.info("job %s: attempt %d has ended while it was to pause", job.id, job.attempt)
            self._jobs.requeue(job.id, job.attempt, _words_of(report))
        elif report.state is RayJobState.STOPPED:
            self._fail(job, FailureReason.STOPPED, "The Ray job was stopped by hand; start the fine-tune again")
        elif report.state is RayJobState.SUCCEEDED:
            self._fail(
                job, FailureReason.INTERNAL, "The training program ended without a result; see its Ray job's log"
            )
        elif attempts >= self._max_attempts:
            self._fail(
                job,
                FailureReason.INTERRUPTED,
                f"Training was lost {attempts} times and SIENN_MAX_ATTEMPTS is {self._max_attempts}; "
                f"last: {_words_of(report)}",
            )
        else:
            logger.warning("job %s: attempt %d was lost, it resumes from its last checkpoint", job.id, job.attempt)
            self._jobs.requeue(job.id, job.attempt, _words_of(report))

    def _fail(self, job: JobRecord, reason: FailureReason, message: str) -> None:
        logger.warning("job %s failed (%s): %s", job.id, reason, message)
        self._jobs.update(
            job.id, running_attempt=job.attempt, status=JobStatus.FAILED, failure_reason=reason, message=message
        )


def _each(act: Callable[[JobRecord], None], jobs: Iterable[JobRecord]) -> ConnectionError | None:
    """Act on each job; a run that can't be stopped must not hold up the others, so the last trouble is handed back."""
    trouble = None
    for job in jobs:
        try:
            act(job)
        except ConnectionError as error:
            trouble = error
    return trouble


def _words_of(report: RayJobReport) -> str:
    return report.message or "its Ray job is gone"
