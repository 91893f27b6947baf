"""Runs checks that may hang: each has a deadline, none is started twice, and none blocks a thread of others."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sienn_ray.errors import SiennError

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """The end of a check, or that there was none within its deadline.

    Args:
        value: What it found; None when it failed.
        error: Why it failed.
        took_s: Seconds that it took, or has been waiting.
    """

    value: T | None
    error: str | None
    took_s: float


@dataclass(frozen=True)
class _Flight:
    task: asyncio.Task[Outcome[Any]]
    started: float


class CheckRunner:
    """Runs checks by name.

    Args:
        timeout_s: Deadline of each run. A check that is over it is left to itself and not started again until it has
            ended, so that whatever hangs, hangs once.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._flights: dict[str, _Flight] = {}
        self._failing: set[str] = set()

    async def run(self, name: str, check: Callable[[], Awaitable[T]]) -> Outcome[T]:
        """Run a check, or wait for the run of it that is under way, up to that run's deadline."""
        flight = self._flights.get(name)
        if flight is None or flight.task.done():
            flight = _Flight(asyncio.ensure_future(self._outcome(name, check)), time.monotonic())
            self._flights[name] = flight
        left_s = flight.started + self._timeout_s - time.monotonic()
        if left_s > 0:
            await asyncio.wait({flight.task}, timeout=left_s)
        if flight.task.done():
            return flight.task.result()
        waiting_s = time.monotonic() - flight.started
        limit = f"{self._timeout_s:g} s is the limit, SIENN_HEALTH_CHECK_TIMEOUT_S"
        return Outcome(None, f"no answer for {waiting_s:.1f} s ({limit})", waiting_s)

    async def _outcome(self, name: str, check: Callable[[], Awaitable[T]]) -> Outcome[T]:
        started = time.monotonic()
        try:
            value = await check()
        except Exception as error:
            if name not in self._failing:  # else the log has it already
                logger.warning("the health check of %s failed", name, exc_info=True)
            self._failing.add(name)
            return Outcome(None, words_of(error), time.monotonic() - started)
        self._failing.discard(name)
        return Outcome(value, None, time.monotonic() - started)


def words_of(error: BaseException) -> str:
    """Return the part of an error that may be shown: a foreign one's message could hold addresses and credentials."""
    if isinstance(error, SiennError):
        return error.message
    reason = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
    return f"{type(error).__name__}{reason}; the server's log has the details"


def in_own_thread(function: Callable[[], T]) -> asyncio.Future[T]:
    """Run a blocking function in a thread of its own, which may hang and hold up nothing, not even the exit."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            value = function()
        except Exception as error:
            settle(future.set_exception, error)
        else:
            settle(future.set_result, value)

    def settle(method: Callable[[Any], None], argument: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(lambda: None if future.done() else method(argument))

    threading.Thread(target=run, name="check", daemon=True).start()
    return future
