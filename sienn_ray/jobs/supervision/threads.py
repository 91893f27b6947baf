"""The threads in which supervisors take their steps: every few seconds, and at once when they are woken."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from sienn_ray.jobs.schema import Heartbeat
from sienn_ray.jobs.supervision.isolation import is_worth_a_line
from sienn_ray.jobs.supervision.ray_job_client import CALL_TIMEOUT_S

logger = logging.getLogger(__name__)

# While a run ends: it takes up to 3 s, and who cancelled it, or waits for its place, waits for the next look as well.
_CLOSE_LOOK_S = 0.25
# A step ends with the first call to Ray that is over its deadline: that one, those of connecting, and the database's.
_LONGEST_STEP_S = 6 * CALL_TIMEOUT_S


class Steps(Protocol):
    """A supervisor, whose steps a thread takes."""

    def step(self) -> None:
        """Look once."""
        ...

    def needs_close_look(self) -> bool:
        """Return whether something ends at any moment, and somebody waits for it."""
        ...


class Supervised(Protocol):
    """Steps that are being taken."""

    def wake(self) -> None:
        """Have the next step taken now, since something has changed."""
        ...

    def heartbeat(self) -> Heartbeat:
        """Return when the last step ended."""
        ...

    def close(self) -> None:
        """End it after the step that it is in."""
        ...


class Supervise(Protocol):
    """Begins to have a supervisor take its steps; `Supervision` does it in a thread, see there."""

    def __call__(
        self,
        supervisor: Steps,
        poll_s: float,
        after_step: Callable[[], None] = ...,
        what: str = ...,
        longest_step_s: float = ...,
    ) -> Supervised:
        """Begin."""
        ...


class Supervision:
    """Has a supervisor take its steps until it is closed.

    Args:
        supervisor: The supervisor.
        poll_s: Seconds between two steps; fewer while something is about to end.
        after_step: Called after each step.
        what: What it looks after, for the log.
        longest_step_s: Seconds that a step may take before it counts as stuck.
        clock_s: A clock that only rises.
    """

    def __init__(
        self,
        supervisor: Steps,
        poll_s: float,
        after_step: Callable[[], None] = lambda: None,
        what: str = "jobs",
        longest_step_s: float = _LONGEST_STEP_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._supervisor = supervisor
        self._poll_s = poll_s
        self._after_step = after_step
        self._what = what
        self._longest_step_s = longest_step_s
        self._clock_s = clock_s
        # Of the last step, or of the start.
        self._ended_at_s = clock_s()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"supervisor of {what}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Have it take a step now, since something has changed."""
        self._wake.set()

    def heartbeat(self) -> Heartbeat:
        """Return when the last step ended, and from when on supervision counts as stuck."""
        limit_s = self._poll_s + self._longest_step_s
        return Heartbeat(self._what, age_s=self._clock_s() - self._ended_at_s, limit_s=limit_s)

    def close(self) -> None:
        """End it after the step that it is in."""
        self._closed.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        num_errors = 0
        while not self._closed.is_set():
            pause_s = self._poll_s
            try:
                self._supervisor.step()
                self._after_step()
                num_errors = 0
                if self._supervisor.needs_close_look():
                    pause_s = min(_CLOSE_LOOK_S, self._poll_s)
            except Exception:  # nothing may end this thread: without it no job starts or is missed
                num_errors += 1
                if is_worth_a_line(num_errors):
                    logger.exception("looking after the %s failed %d time(s) in a row", self._what, num_errors)
            self._ended_at_s = self._clock_s()
            self._wake.wait(pause_s)
            self._wake.clear()
