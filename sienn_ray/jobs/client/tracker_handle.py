"""The tracker's actor handle: found by name, and cached for seconds, since each look costs as much as a call."""

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
        lifetime_s: Seconds after which it is found anew.
    """

    def __init__(
        self,
        find: Callable[[], Any] = find_tracker,
        clock: Callable[[], float] = time.monotonic,
        lifetime_s: float = _LIFETIME_S,
    ) -> None:
        self._find = find
        self._clock = clock
        self._lifetime_s = lifetime_s
        self._known: tuple[Any, float] | None = None

    def get(self) -> Any:
        """Return the handle.

        Raises:
            CapacityError: There is no tracker.
        """
        known = self.known()
        if known is None:
            known = self._find()
            self._known = (known, self._clock())
        return known

    def known(self) -> Any | None:
        """Return the handle where it needn't be looked for, which never blocks; else None."""
        known = self._known
        return None if known is None or self._clock() > known[1] + self._lifetime_s else known[0]

    def forget(self) -> None:
        """Find it anew next time, since this one is dead."""
        self._known = None


# One for each process.
TRACKER = TrackerHandle()
