"""Seconds between a submission and the first optimizer step, by what they went to."""

from __future__ import annotations

import time
from collections.abc import Callable


class Timeline:
    """Names moments, and tells the seconds from each to the one before. It pickles, so workers go on with it.

    Wall-clock time, since its moments are in several processes.

    Args:
        started_at: Seconds since the epoch when the job was submitted.
        clock: The same of now.
    """

    def __init__(self, started_at: float, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._last = started_at
        self._started_at = started_at
        self._seconds: dict[str, float] = {}
        self.is_complete = False

    def mark(self, name: str, at: float | None = None) -> None:
        """End the part of this name now, or at a moment that is past; a second mark of the same name counts nothing."""
        now = self._clock() if at is None else at
        if name not in self._seconds:
            self._seconds[name] = round(max(now - self._last, 0.0), 2)
        self._last = now

    def complete(self) -> None:
        """The first step is done; nothing comes behind it."""
        self.is_complete = True

    def seconds(self) -> dict[str, float]:
        """Seconds by name in order, and `total` from the submission to the last mark."""
        return {**self._seconds, "total": round(max(self._last - self._started_at, 0.0), 2)}
