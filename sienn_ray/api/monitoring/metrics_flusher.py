"""Sends what this process has counted to the tracker, every few seconds and before each look at it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, Protocol, TypeVar

logger = logging.getLogger(__name__)

_TIMEOUT_S = 5.0

B = TypeVar("B")


class Batches(Protocol[B]):
    """Counts in batches, each of which is taken until it is confirmed."""

    def take(self) -> B | None:
        """Return the batch to be sent next, or None if there is nothing."""
        ...

    def confirm(self, batch: B) -> None:
        """Note that the tracker has a batch."""
        ...


class Flusher(Generic[B]):
    """Sends the batches of one recorder, one at a time.

    Args:
        recorder: What has been counted.
        send: Sends one batch to the tracker.
        interval_s: Seconds between two batches.
        what: What they are, for the log.
    """

    def __init__(
        self, recorder: Batches[B], send: Callable[[B], Awaitable[None]], *, interval_s: float, what: str = "metrics"
    ) -> None:
        self._what = what
        self._recorder = recorder
        self._send = send
        self._interval_s = interval_s
        self._lock = asyncio.Lock()
        self._is_failing = False

    async def flush(self) -> None:
        """Send what there is. Never raises: what couldn't be sent is sent with the next flush."""
        try:
            async with asyncio.timeout(_TIMEOUT_S), self._lock:
                batch = self._recorder.take()
                if batch is not None:
                    await self._send(batch)
                    self._recorder.confirm(batch)
        except Exception as error:
            if not self._is_failing:
                logger.warning("%s couldn't be sent (%s: %s); they wait", self._what, type(error).__name__, error)
            self._is_failing = True
        else:
            self._is_failing = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Flush every few seconds while the block runs, and when it ends."""
        task = asyncio.create_task(self._flush_regularly())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await self.flush()

    async def _flush_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await self.flush()
