"""The threads in which supervisors take their steps: every few seconds, and at once when they are woken."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger(__name__)

# While a run ends: it takes up to 3 s, and who cancelled it, or waits for its place, waits for the next look as well.
_CLOSE_LOOK_S = 0.25


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

    def close(self) -> None:
        """End it after the step that it is in."""
        ...


class Supervise(Protocol):
    """Begins to have a supervisor take its steps; `Supervision` does it in a thread, see there."""

    def __call__(
        self, supervisor: Steps, poll_s: float, after_step: Callable[[], None] = ..., what: str = ...
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
    """

    def __init__(
        self, supervisor: Steps, poll_s: float, after_step: Callable[[], None] = lambda: None, what: str = "jobs"
    ) -> None:
        self._supervisor = supervisor
        self._poll_s = poll_s
        self._after_step = after_step
        self._what = what
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"supervisor of {what}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Have it take a step now, since something has changed."""
        self._wake.set()

    def close(self) -> None:
        """End it after the step that it is in."""
        self._closed.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        last_error = ""
        while not self._closed.is_set():
            pause_s = self._poll_s
            try:
                self._supervisor.step()
                self._after_step()
                last_error = ""
                if self._supervisor.needs_close_look():
                    pause_s = min(_CLOSE_LOOK_S, self._poll_s)
            except Exception as error:  # nothing may end this thread: without it no job starts or is missed
                if str(error) != last_error:
                    logger.exception("looking after the %s failed; trying again every %s s", self._what, self._poll_s)
                last_error = str(error)
            self._wake.wait(pause_s)
            self._wake.clear()
