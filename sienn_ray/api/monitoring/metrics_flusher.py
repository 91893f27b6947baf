"""Sends what this process has counted to the tracker, every few seconds and before each scrape."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from sienn_ray.metrics import MetricBatch, Recorder

logger = logging.getLogger(__name__)

_TIMEOUT_S = 5.0


class MetricsFlusher:
    """Sends the batches of one recorder, one at a time.

    Args:
        recorder: What has been counted.
        send: Sends one batch to the tracker.
        interval_s: Seconds between two batches.
    """

    def __init__(
        self, recorder: Recorder, send: Callable[[MetricBatch], Awaitable[None]], *, interval_s: float
    ) -> None:
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
                logger.warning("metrics couldn't be sent (%s: %s); they wait", type(error).__name__, error)
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
