"""The exit of programs that have reported their end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from sienn_ray.jobs.schema import JobRecord
from sienn_ray.jobs.store.job_store import JobStore
from sienn_ray.jobs.supervision.ray_jobs import RayJobs, RayJobState
from sienn_ray.jobs.supervision.stopwatches import Stopwatches

logger = logging.getLogger(__name__)

# After its last report a program deletes checkpoints, and has an engine load the adapter.
EXIT_TIMEOUT_S = 300.0
_WATCHED = timedelta(hours=1)
_MAX_WATCHED = 100


class ExitWatch:
    """Stops programs that have reported their end and don't exit, and keeps the end of the log of those that failed.

    Args:
        jobs: The jobs in the database.
        ray_jobs: Ray's job API.
        clock: The time.
        clock_s: A clock that only rises.
    """

    def __init__(
        self,
        jobs: JobStore,
        ray_jobs: RayJobs,
        clock: Callable[[], datetime],
        clock_s: Callable[[], float],
    ) -> None:
        self._jobs = jobs
        self._ray_jobs = ray_jobs
        self._clock = clock
        self._lasting = Stopwatches(clock_s)
        self._gone: set[str] = set()

    def awaited(self) -> list[JobRecord]:
        """Jobs that have ended a short while ago, and of which the program isn't known to be gone."""
        ended = self._jobs.ended_since(self._clock() - _WATCHED, _MAX_WATCHED)
        self._gone.intersection_update(str(job.submission_id) for job in ended)
        self._lasting.keep_only({job.id for job in ended})
        return [job for job in ended if job.submission_id not in self._gone]

    def look_at(self, job: JobRecord) -> None:
        """Look whether the program is gone; stop it once it has had the time to exit."""
        submission_id = str(job.submission_id)
        report = self._ray_jobs.look(submission_id)
        if report.state is not RayJobState.ACTIVE:
            self._gone.add(submission_id)
            if report.log_tail:
                self._jobs.note_log_tail(job.id, job.attempt, report.log_tail)
        elif self._lasting.elapsed_s(job.id, job.attempt) >= EXIT_TIMEOUT_S:
            logger.warning("job %s is '%s', but Ray job %s goes on: it is stopped", job.id, job.status, submission_id)
            self._ray_jobs.stop(submission_id)
