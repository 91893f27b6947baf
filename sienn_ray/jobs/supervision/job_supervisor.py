"""Keeps jobs moving: starts those that may start, stops those that must, notices those that ended silently."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from sienn_ray.errors import FailureReason, NotFoundError, TransitionError, first_line
from sienn_ray.jobs.schema import JobPhase, JobRecord, JobStatus, utc_now
from sienn_ray.jobs.store.job_store import JobStore
from sienn_ray.jobs.supervision.exit_watch import ExitWatch
from sienn_ray.jobs.supervision.isolation import Isolation
from sienn_ray.jobs.supervision.ray_job_client import JobApiTimeoutError
from sienn_ray.jobs.supervision.ray_jobs import RayJobReport, RayJobs, RayJobState, submission_id_of
from sienn_ray.jobs.supervision.refusals import words_of_refusal
from sienn_ray.jobs.supervision.stopwatches import Stopwatches

logger = logging.getLogger(__name__)

# Ray sends SIGKILL 3 s after SIGTERM; one that takes longer has another trouble, and needs no close look.
_END_OF_A_STOP = timedelta(seconds=10)
# Ray ends what it can reach within seconds; its job API calls a run active whose node it hasn't missed yet.
_STOP_TIMEOUT_S = 600.0


class Supervisor:
    """One `step` brings the database and Ray in line; between steps it keeps no more than when to try again.

    Users change jobs at any moment in between, so every change names the attempt that it is about. What fails for one
    job is logged, and tried again with exponential back-off, while the others are looked after.

    Args:
        jobs: The jobs in the database.
        ray_jobs: Ray's job API.
        max_running: Fine-tunes that may run at once.
        max_attempts: Times a job is started, or started again after its run was lost.
        pause_timeout_s: Seconds in which a run may pause by itself, before it is stopped.
        silence_timeout_s: Seconds without a report after which a run is stopped, and goes on with its next attempt.
        start_timeout_s: Seconds that a run may wait for its workers, without a report, on top of that.
        clock: The time.
        clock_s: A clock that only rises.
    """

    def __init__(
        self,
        jobs: JobStore,
        ray_jobs: RayJobs,
        *,
        max_running: int,
        max_attempts: int,
        pause_timeout_s: float = 120.0,
        silence_timeout_s: float = 3600.0,
        start_timeout_s: float = 600.0,
        clock: Callable[[], datetime] = utc_now,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._jobs = jobs
        self._ray_jobs = ray_jobs
        self._max_running = max_running
        self._max_attempts = max_attempts
        self._pause_timeout = timedelta(seconds=pause_timeout_s)
        self._clock = clock
        self._isolation = Isolation(clock_s)
        self._silence_timeout_s = silence_timeout_s
        self._start_timeout_s = start_timeout_s
        self._silences = Stopwatches(clock_s)
        self._stops = Stopwatches(clock_s)
        self._exits = ExitWatch(jobs, ray_jobs, clock, clock_s)
        # Attempts that Ray refused for what they are, not because it was away.
        self._refused: dict[str, str] = {}

    def step(self) -> None:
        """Stop cancelled jobs, look at running ones, stop those that don't pause, then admit waiting ones."""
        try:
            self._each("stop", self._stop, self._jobs.stopping())
            self._each("look at", self._look_at, self._jobs.running())
            self._each("pause", self._stop_pausing, filter(self._is_overdue, self._jobs.running()))
            self._admit()
            self._each("see the end of", self._exits.look_at, self._exits.awaited())
        except JobApiTimeoutError:
            # Waiting so long for each job would hold up the step. The one that met it is in back-off at the next step.
            logger.warning("Ray's job API doesn't answer; the rest is left to the next look")

        self._forget_ended()

    def _forget_ended(self) -> None:
        busy = {job.id for job in (*self._jobs.running(), *self._jobs.stopping())}
        self._silences.keep_only(busy)
        self._stops.keep_only(busy)

    def _each(self, what: str, act: Callable[[JobRecord], None], jobs: Iterable[JobRecord]) -> None:
        for job in jobs:
            self._isolation.attempt(what, act, job)

    def _admit(self) -> None:
        """Start waiting jobs in the queue's order, but for those of which the last start has just failed."""
        # A run that is being stopped still has its workers.
        num_free = self._max_running - len(self._jobs.running()) - len(self._jobs.stopping())
        if num_free <= 0:
            return
        for job in self._jobs.waiting(num_free, self._isolation.waiting("start")):
            num_free -= self._isolation.attempt("start", self._start, job)
            # A start takes its time, in which others may have been cancelled.
            self._each("stop", self._stop, self._jobs.stopping())
            if num_free <= 0:
                return

    def needs_close_look(self) -> bool:
        """Return whether a run was told to end just now, and is worth a closer look."""
        stopping = [*self._jobs.stopping(), *(job for job in self._jobs.running() if job.is_stopping)]
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
            num_failures = self._isolation.num_failures("start", job) + 1
            self._put_back(job, attempt, words_of_refusal(error, num_failures))
            raise
        except Exception as error:
            self._refused[submission_id] = f"{type(error).__name__}: {first_line(error)}"
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
            self._give_up_if_stuck(overdue)

    def _stop(self, job: JobRecord) -> None:
        """Ask until Ray says that the run has ended, or has had the time for it."""
        submission_id = job.submission_id or submission_id_of(job.id, job.attempt)
        if self._ray_jobs.look(submission_id).state is not RayJobState.ACTIVE or self._is_stuck(job):
            self._jobs.note_stop(job.id)
            return
        logger.info("job %s is cancelled, Ray job %s is being stopped", job.id, submission_id)
        self._ray_jobs.stop(submission_id)

    def _is_stuck(self, job: JobRecord) -> bool:
        """Return whether a run has been told to end for so long that it won't. Should it live, it is fenced off."""
        is_stuck = self._stops.elapsed_s(job.id, job.attempt) >= _STOP_TIMEOUT_S
        if is_stuck:
            logger.error("job %s: the run of attempt %d doesn't end, and is given up", job.id, job.attempt)
        return is_stuck

    def _give_up_if_stuck(self, job: JobRecord) -> None:
        if self._is_stuck(job):
            self._settle(job, RayJobReport(RayJobState.FAILED, "its run didn't end when it was stopped"))

    def _look_at(self, job: JobRecord) -> None:
        submission_id = job.submission_id or submission_id_of(job.id, job.attempt)
        report = self._ray_jobs.look(submission_id)
        if report.state is not RayJobState.ACTIVE:
            self._settle(job, report)
            return
        if job.submission_id is None:
            self._jobs.note_start(job.id, job.attempt, submission_id)  # a crash came in between
        if job.is_stopping and not job.is_pausing:
            self._ray_jobs.stop(submission_id)
            self._give_up_if_stuck(job)
        elif not job.is_pausing and self._silence_s(job) >= self._allowance_s(job):
            self._stop_silent(job, submission_id)

    def _silence_s(self, job: JobRecord) -> float:
        """Seconds since the last report, or since this process first saw the run."""
        return self._silences.elapsed_s(job.id, (job.attempt, job.updated_at))

    def _allowance_s(self, job: JobRecord) -> float:
        """Seconds that a run may be silent; Ray Train says nothing while it waits for workers."""
        waits = job.phase is JobPhase.WAITING_FOR_RESOURCES
        return self._silence_timeout_s + (self._start_timeout_s if waits else 0.0)

    def _stop_silent(self, job: JobRecord, submission_id: str) -> None:
        """Stop a run that hangs; once Ray says that it has ended, it counts as lost."""
        words = f"Its run has reported nothing for {self._allowance_s(job):.0f} s and is being stopped"
        logger.warning("job %s: %s", job.id, words)
        # Written first: whoever looks next must know that nobody stopped it by hand.
        self._jobs.note_silence(job.id, job.attempt, words)
        self._ray_jobs.stop(submission_id)

    def _settle(self, job: JobRecord, report: RayJobReport) -> None:
        """The program reports its own end before it exits, so a job that still counts as running ended silently."""
        refusal = self._refused.pop(submission_id_of(job.id, job.attempt), None)
        if job.is_pausing:
            logger.info("job %s: attempt %d has ended while it was to pause", job.id, job.attempt)
            self._jobs.requeue(job.id, job.attempt, _words_of(report), log_tail=report.log_tail or None)
        elif job.is_stopping:
            words = f"it reported nothing for SIENN_RUN_SILENCE_TIMEOUT_S={self._silence_timeout_s:g} and was stopped"
            self._lose(job, words, report)
        elif report.state is RayJobState.STOPPED:
            self._fail(job, FailureReason.STOPPED, "The Ray job was stopped by hand; start the fine-tune again")
        elif report.state is RayJobState.SUCCEEDED:
            self._fail(
                job, FailureReason.INTERNAL, "The training program ended without a result; see its Ray job's log"
            )
        elif refusal is not None:
            self._lose(job, f"Ray refused the submission ({refusal})", report)
        elif report.state is RayJobState.MISSING or report.is_loss_of_node:
            # The cluster, its head or the node was lost, or the tracker before it had submitted: not the run's doing.
            logger.warning("job %s: attempt %d went with its cluster or node, it resumes", job.id, job.attempt)
            self._jobs.requeue(job.id, job.attempt, _words_of(report), is_counted=False)
        else:
            self._lose(job, _words_of(report), report)

    def _lose(self, job: JobRecord, words: str, report: RayJobReport) -> None:
        """Count a loss; the job goes on, unless it was lost too often without a newer step in between."""
        num_losses, tail = job.num_losses_with_one_more, report.log_tail or None
        if num_losses < self._max_attempts:
            logger.warning("job %s: attempt %d was lost (%s), it resumes", job.id, job.attempt, words)
            self._jobs.requeue(job.id, job.attempt, words, log_tail=tail)
            return
        message = (
            f"Training was lost {num_losses} time(s) in a row without a newer step, and SIENN_MAX_ATTEMPTS is "
            f"{self._max_attempts}; last: {words}. Retry the job once the cause is gone, and it goes on from its last "
            "checkpoint"
        )
        self._fail(job, FailureReason.INTERRUPTED, message, tail)

    def _fail(self, job: JobRecord, reason: FailureReason, message: str, log_tail: str | None = None) -> None:
        logger.warning("job %s failed (%s): %s", job.id, reason, message)
        self._jobs.update(
            job.id,
            running_attempt=job.attempt,
            status=JobStatus.FAILED,
            failure_reason=reason,
            message=message,
            log_tail=log_tail,
        )


def _words_of(report: RayJobReport) -> str:
    return report.message or "its Ray job is gone"
