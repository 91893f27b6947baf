"""A training program's line to the tracker."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ray.exceptions import GetTimeoutError, RayActorError

from sienn_ray.errors import CapacityError, FailureReason
from sienn_ray.jobs.client.run_commands import NewestCommand
from sienn_ray.jobs.client.tracker_client import ask, send
from sienn_ray.jobs.schema import JobRecord
from sienn_ray.jobs.tracker_protocol import Tracker
from sienn_ray.training.reporting import Progress, RunCommand
from sienn_ray.training.summary import RunSummary

logger = logging.getLogger(__name__)

# A finished run is worth waiting for: the end of a job that nobody noted would be trained again.
_WRITE_TIMEOUT_S = 600.0
_WRITE_RETRY_S = 2.0


class TrainingSession:
    """A training program's line to the tracker, for one attempt at one job. It pickles, so workers have it too.

    The tracker is looked up by name each time: a redeploy may replace it while a job runs.
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

    def complete(self, summary: RunSummary) -> None:
        """Note that the adapter is published; waits until that is written, through restarts of the tracker."""
        _persist(lambda: ask(Tracker.complete, self._job_id, self._attempt, summary))

    def pause(self) -> None:
        """Note that the run has ended at a checkpoint, to go on later; waits as `complete` does."""
        _persist(lambda: ask(Tracker.pause, self._job_id, self._attempt))

    def fail(self, reason: FailureReason, message: str) -> None:
        """Note why there is no adapter; waits until that is written, through restarts of the tracker."""
        _persist(lambda: ask(Tracker.fail, self._job_id, self._attempt, reason, message))


def _persist(write: Callable[[], None]) -> None:
    """Have the tracker write something down, through its restarts."""
    deadline = time.monotonic() + _WRITE_TIMEOUT_S
    while True:
        try:
            write()
        except (RayActorError, GetTimeoutError, ValueError, CapacityError) as error:
            if time.monotonic() > deadline:
                raise
            logger.warning("the tracker or its database is away (%s); trying again", type(error).__name__)
            time.sleep(_WRITE_RETRY_S)
        else:
            return
