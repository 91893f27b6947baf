"""Interrupt what takes too much CPU time in a thread, by an exception at its next bytecode."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_LOOK_S = 0.25


class TimeLimitError(Exception):
    """A block took longer than it may."""


@dataclass
class _Block:
    """A block that runs.

    Args:
        thread_id: Its thread.
        limit_s: The clock's value that it may not pass.
        clock_s: CPU time of its thread, or the time of day where that can't be asked for.
        is_interrupted: Whether it was told to end.
    """

    thread_id: int
    limit_s: float
    clock_s: Callable[[], float]
    is_interrupted: bool = False


class _Watchdog:
    """Looks at all blocks of a process from a thread of its own."""

    def __init__(self) -> None:
        self.process_id = os.getpid()
        self._blocks: dict[int, _Block] = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="time-limit", daemon=True).start()

    def begin(self, limit_s: float) -> int:
        thread_id = threading.get_ident()
        clock_s = _clock_of(thread_id)
        block = _Block(thread_id, clock_s() + limit_s, clock_s)
        with self._changed:
            was_idle = not self._blocks
            self._blocks[id(block)] = block
            if was_idle:
                self._changed.notify()
        return id(block)

    def end(self, key: int) -> None:
        """Look after a block no more, also where an interruption comes at this very moment."""
        while True:
            try:
                with self._changed:
                    block = self._blocks.pop(key, None)
                    if block is not None and block.is_interrupted:
                        _interrupt(block.thread_id, None)
            except TimeLimitError:
                continue
            return

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._blocks:
                    self._changed.wait()
                for block in self._blocks.values():
                    # Again and again, since what runs may swallow one.
                    if block.clock_s() > block.limit_s:
                        block.is_interrupted = True
                        _interrupt(block.thread_id, TimeLimitError)
            time.sleep(_LOOK_S)


def _clock_of(thread_id: int) -> Callable[[], float]:
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.monotonic
    clock = time.pthread_getcpuclockid(thread_id)
    return lambda: time.clock_gettime(clock)


def _interrupt(thread_id: int, error: type[Exception] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), error and ctypes.py_object(error))


_lock = threading.Lock()
_watchdog: _Watchdog | None = None


def _running_watchdog() -> _Watchdog:
    global _watchdog
    with _lock:
        if _watchdog is None or _watchdog.process_id != os.getpid():  # threads don't survive a fork
            _watchdog = _Watchdog()
        return _watchdog


@contextmanager
def cpu_limit(limit_s: float) -> Iterator[None]:
    """Bound the CPU time of a block of Python in this thread; one operation of C code is never interrupted.

    Raises:
        TimeLimitError: The block took longer.
    """
    watchdog = _running_watchdog()
    key = watchdog.begin(limit_s)
    try:
        yield
    finally:
        watchdog.end(key)
