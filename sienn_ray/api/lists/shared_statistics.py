"""Statistics of datasets: computed once, kept in storage, and shared by all who ask meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from sienn_ray.api.deps import Statistics
from sienn_ray.datasets.statistics_schema import DatasetStatistics, StatisticsRequest
from sienn_ray.errors import CapacityError
from sienn_ray.storage import Storage

logger = logging.getLogger(__name__)

# Each computation is several processes with a tokenizer in them.
_MAX_RUNNING = 2
# What has taken longer than a request waits is not done a moment later.
_UNFINISHED_RETRY_AFTER_S = 30


class SharedStatistics:
    """Lets clients wait for computations, which continue when clients disconnect. One of these in each process.

    Args:
        statistics: Computes, and keeps what it computed under `StatisticsRequest.key`.
        storage: Where that is.
        timeout_s: Longest wait of one client.
    """

    def __init__(self, statistics: Statistics, storage: Storage, timeout_s: float) -> None:
        self._statistics = statistics
        self._storage = storage
        self._timeout_s = timeout_s
        self._running: dict[str, asyncio.Task[DatasetStatistics]] = {}
        self._places = asyncio.Semaphore(_MAX_RUNNING)

    async def kept(self, request: StatisticsRequest) -> DatasetStatistics | None:
        """Return statistics that were computed before, if there are any."""
        return await asyncio.to_thread(DatasetStatistics.kept, self._storage, request)

    def is_running(self, request: StatisticsRequest) -> bool:
        """Return whether somebody has begun this computation."""
        return request.key in self._running

    async def of(self, request: StatisticsRequest, on_end: Callable[[], None] = lambda: None) -> DatasetStatistics:
        """Wait for a computation, which begins now or is under way already.

        Args:
            request: What to compute.
            on_end: Called when the computation has ended that begins now; at once, where it is under way.

        Raises:
            SiennError: Why it couldn't be done; `CapacityError` when it takes longer than `timeout_s`.
        """
        task = self._running.get(request.key)
        if task is None:
            task = self._start(request)
            task.add_done_callback(lambda _: on_end())
        else:
            on_end()
        # Neither a timeout nor a client that leaves cancels the task.
        done, _ = await asyncio.wait({task}, timeout=self._timeout_s)
        if not done:
            raise CapacityError(
                f"the statistics are still being computed after {self._timeout_s:.0f} s "
                "(SIENN_STATISTICS_TIMEOUT_S); they will be kept, ask again later",
                retry_after_s=_UNFINISHED_RETRY_AFTER_S,
            )
        return task.result()

    def _start(self, request: StatisticsRequest) -> asyncio.Task[DatasetStatistics]:
        task = asyncio.create_task(self._compute(request))
        self._running[request.key] = task
        task.add_done_callback(lambda ended: self._end(request, ended))
        return task

    async def _compute(self, request: StatisticsRequest) -> DatasetStatistics:
        async with self._places:
            return await self._statistics.compute(request)

    def _end(self, request: StatisticsRequest, task: asyncio.Task[DatasetStatistics]) -> None:
        del self._running[request.key]
        if not task.cancelled() and (error := task.exception()):
            logger.warning("no statistics of dataset %s: %s", request.dataset_id, error)
