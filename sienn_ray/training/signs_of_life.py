"""Heartbeats of a run while it is in one long call, as long as the process gets on with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

_INTERVAL_S = 60.0
_MIB = 1024**2
# Per look; a process that waits in vain uses far less.
_LEAST_ACTIVITY = 6.0


def process_activity() -> float:
    """Return CPU seconds plus MiB read and written by this process so far."""
    process = psutil.Process()
    times = process.cpu_times()
    counters = process.io_counters() if hasattr(process, "io_counters") else None
    num_bytes = 0 if counters is None else counters.read_chars + counters.write_chars
    return float(times.user + times.system + num_bytes / _MIB)


class ActivityWatch:
    """Tells of a process that is active.

    Args:
        tell: Called at each look that finds the process active.
        activity: A number that rises while it is.
    """

    def __init__(self, tell: Callable[[], None], activity: Callable[[], float] = process_activity) -> None:
        self._tell = tell
        self._activity = activity
        self._before = activity()

    def look(self) -> None:
        """Tell if the process has been active since the last look."""
        now = self._activity()
        if now - self._before >= _LEAST_ACTIVITY:
            self._tell()
        self._before = now


@contextmanager
def signs_of_life(tell: Callable[[], None], interval_s: float = _INTERVAL_S) -> Iterator[None]:
    """Look at this process from time to time within the block, from a thread; see `ActivityWatch`."""
    watch, is_over = ActivityWatch(tell), threading.Event()

    def look_on() -> None:
        while not is_over.wait(interval_s):
            watch.look()

    thread = threading.Thread(target=look_on, name="signs of life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
