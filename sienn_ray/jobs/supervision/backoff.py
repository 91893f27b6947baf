"""Exponential back-off, for each job on its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

_FIRST_S = 1.0
_LONGEST_S = 60.0
# What wasn't tried again for so long isn't there any more.
_FORGOTTEN_AFTER_S = 600.0


@dataclass(frozen=True)
class _Trouble:
    num_failures: int
    retry_at_s: float


class Backoff:
    """Counts failures in a row by key, and says when the next try is due: after 1 s, then 2 s, 4 s, up to a minute.

    Args:
        clock_s: A clock that only rises.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._troubles: dict[str, _Trouble] = {}

    def is_due(self, key: str) -> bool:
        """Return whether a try makes sense now."""
        trouble = self._troubles.get(key)
        return trouble is None or self._clock_s() >= trouble.retry_at_s

    def failed(self, key: str) -> int:
        """Note a failure; returns how many there were in a row."""
        now_s = self._clock_s()
        number = self.num_failures(key) + 1
        delay_s = min(_FIRST_S * 2.0 ** min(number - 1, 30), _LONGEST_S)
        lasting = {k: t for k, t in self._troubles.items() if now_s - t.retry_at_s < _FORGOTTEN_AFTER_S}
        self._troubles = {**lasting, key: _Trouble(number, now_s + delay_s)}
        return number

    def succeeded(self, key: str) -> None:
        """Forget the failures."""
        self._troubles.pop(key, None)

    def waiting(self) -> list[str]:
        """Return the keys that wait for their next try."""
        return [key for key in self._troubles if not self.is_due(key)]

    def num_failures(self, key: str) -> int:
        """Return how many failures in a row a key has."""
        trouble = self._troubles.get(key)
        return 0 if trouble is None else trouble.num_failures
