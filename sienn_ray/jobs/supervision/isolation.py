"""Bulkheads between jobs, or exports: what fails for one is tried again later, and the others don't wait for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from sienn_ray.jobs.supervision.backoff import Backoff
from sienn_ray.jobs.supervision.ray_job_client import JobApiTimeoutError

logger = logging.getLogger(__name__)


class Identified(Protocol):
    """A record with an id."""

    @property
    def id(self) -> str:
        """The id."""
        ...


R = TypeVar("R", bound=Identified)


class Isolation:
    """Attempts actions on jobs, each with exponential back-off for its job alone.

    Args:
        clock_s: A clock that only rises.
        kind: What they are, for the log.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic, kind: str = "job") -> None:
        self._clock_s = clock_s
        self._kind = kind
        self._backoffs: dict[str, Backoff] = {}

    def attempt(self, what: str, act: Callable[[R], object], job: R) -> bool:
        """Act on a job unless it is in back-off; returns whether that was done, and succeeded.

        Args:
            what: A verb for the action; each has a back-off of its own.
            act: The action.
            job: The job.

        Raises:
            JobApiTimeoutError: Raised by the action, and noted.
        """
        backoff = self._backoff(what)
        if not backoff.is_due(job.id):
            return False
        try:
            act(job)
        except Exception as error:  # of any kind: it must not reach the other jobs
            number = backoff.failed(job.id)
            if is_worth_a_line(number):
                words = f"{self._kind} {job.id}: couldn't {what} it ({number} time(s) in a row)"
                logger.warning(words, exc_info=True)
            if isinstance(error, JobApiTimeoutError):
                raise
            return False
        backoff.succeeded(job.id)
        return True

    def waiting(self, what: str) -> list[str]:
        """Return the ids of the jobs that wait for the next attempt of an action."""
        return self._backoff(what).waiting()

    def num_failures(self, what: str, job: Identified) -> int:
        """Return how many attempts in a row have failed."""
        return self._backoff(what).num_failures(job.id)

    def _backoff(self, what: str) -> Backoff:
        return self._backoffs.setdefault(what, Backoff(self._clock_s))


def is_worth_a_line(number: int) -> bool:
    """Return whether an error that occurs for the `number`th time in a row is logged: the 1st, 10th and each 100th."""
    return number in {1, 10} or number % 100 == 0
