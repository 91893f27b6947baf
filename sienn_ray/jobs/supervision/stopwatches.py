"""Seconds since something last changed, for each job, by this process's own clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable


class Stopwatches:
    """Runs a stopwatch for each key, which starts anew when what it is told changes.

    A new process begins at zero, so that a restart grants everybody the whole time again.

    Args:
        clock_s: A clock that only rises.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._seen: dict[str, tuple[Hashable, float]] = {}

    def elapsed_s(self, key: str, sign: Hashable) -> float:
        """Return the seconds since this sign was first seen for a key."""
        known = self._seen.get(key)
        if known is None or known[0] != sign:
            self._seen[key] = (sign, self._clock_s())
            return 0.0
        return self._clock_s() - known[1]

    def keep_only(self, keys: Collection[str]) -> None:
        """Forget all other keys."""
        self._seen = {key: seen for key, seen in self._seen.items() if key in keys}
