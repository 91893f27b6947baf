"""Answers that are remembered for a while, no more than so many."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """Values by key, each until a moment of its own; the oldest go where there are too many.

    Args:
        max_count: How many are kept.
    """

    def __init__(self, max_count: int) -> None:
        self._max_count = max_count
        self._values: OrderedDict[str, tuple[float, T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str, now: float) -> tuple[T] | None:
        """Return a value, alone in a tuple, or None where none is remembered any more."""
        known = self._values.get(key)
        if known is None:
            return None
        if known[0] <= now:
            del self._values[key]
            return None
        return (known[1],)

    def put(self, key: str, value: T, until: float) -> None:
        """Remember a value until a moment."""
        self._values[key] = (until, value)
        self._values.move_to_end(key)
        if len(self._values) > self._max_count:
            self._values.popitem(last=False)

    def forget(self, key: str) -> None:
        """Forget a value."""
        self._values.pop(key, None)
