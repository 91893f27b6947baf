"""A training program's line to the tracker."""

from __future__ import annotations

import logging

from sienn_ray.errors import FailureReason, NotFoundError
from sienn_ray.jobs.client.run_commands import NewestCommand
from sienn_ray.jobs.client.tracker_client import ask_patiently, send
from sienn_ray.jobs.schema import JobRecord
from sienn_ray.jobs.tracker_protocol import Tracker
from sienn_ray.training.reporting import Progress, RunCommand
from sienn_ray.training.summary import RunSummary

logger = logging.getLogger(__name__)

# A finished run is worth waiting for: the end of a job that nobody noted would be trained again.
_WRITE_PATIENCE_S = 600.0


class TrainingSession:
    """A training program's line to the tracker, for one attempt at one job. It pickles, so workers have it too.

    The tracker is looked up by name every few seconds: a redeploy may replace it while a job runs.
    """

    def __init__(self, job: JobRecord) -> None:
        self._job_id = job.id
        self._attempt = job.attempt
        self._commands = NewestCommand()

    def report(self, progress: Progress) -> None:
        """Pass progress on without waiting for an answer."""
        try:
            self._commands.expect(send(Tracker.report, self._job_id, self._attempt, progress))
        except Exception:  # a run must not end because nobody listens
            logger.warning("progress couldn't be sent", exc_info=True)

    def command(self) -> RunCommand:
        """The newest wish among the answers to reports that have arrived; `GO_ON` while none is known."""
        return self._commands.now()

    def is_awaited(self) -> bool:
        """Return whether the job awaits this attempt still; waits for the answer, through restarts of the tracker."""
        try:
            return ask_patiently(_WRITE_PATIENCE_S, Tracker.job, self._job_id).awaits(self._attempt)
        except NotFoundError:
            return False

    def complete(self, summary: RunSummary) -> None:
        """Note that the adapter is published; waits until that is written, through restarts of the tracker.

        Raises:
            FencedError: The job doesn't await this attempt any more; so do `pause` and `fail`.
        """
        ask_patiently(_WRITE_PATIENCE_S, Tracker.complete, self._job_id, self._attempt, summary)

    def pause(self) -> None:
        """Note that the run has ended at a checkpoint, to go on later; waits as `complete` does."""
        ask_patiently(_WRITE_PATIENCE_S, Tracker.pause, self._job_id, self._attempt)

    def fail(self, reason: FailureReason, message: str) -> None:
        """Note why there is no adapter; waits until that is written, through restarts of the tracker."""
        ask_patiently(_WRITE_PATIENCE_S, Tracker.fail, self._job_id, self._attempt, reason, message)
