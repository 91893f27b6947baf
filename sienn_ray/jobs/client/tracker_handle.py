"""The tracker's actor handle: found by name, and cached for seconds by programs that report all the time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray

from sienn_ray.errors import CapacityError

NAMESPACE = "sienn"
TRACKER_NAME = "job_tracker"
_LIFETIME_S = 5.0


def find_tracker() -> Any:
    """Return the handle of the cluster's tracker, which only the start of the service makes.

    Raises:
        CapacityError: There is none.
    """
    try:
        return ray.get_actor(TRACKER_NAME, namespace=NAMESPACE)
    except ValueError:
        raise CapacityError("the job tracker isn't running at the moment; try again in a moment") from None


class TrackerHandle:
    """Finds the tracker, anew every few seconds: a redeploy replaces it, and each look blocks for Ray's GCS.

    Args:
        find: Gives the handle.
        clock: Seconds.
    """

    def __init__(self, find: Callable[[], Any] = find_tracker, clock: Callable[[], float] = time.monotonic) -> None:
        self._find = find
        self._clock = clock
        self._known: tuple[Any, float] | None = None

    def get(self) -> Any:
        """Return the handle.

        Raises:
            CapacityError: There is no tracker.
        """
        known = self._known
        if known is None or self._clock() > known[1] + _LIFETIME_S:
            known = self._known = (self._find(), self._clock())
        return known[0]

    def forget(self) -> None:
        """Find it anew next time, since this one is dead."""
        self._known = None


# One for each process.
TRACKER = TrackerHandle()
