"""Statistics of datasets: computed once, kept in storage, and shared by all who ask meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext

from sienn_ray.api.deps import Statistics
from sienn_ray.datasets.statistics_schema import DatasetStatistics, StatisticsRequest
from sienn_ray.errors import CapacityError, TooManyRequestsError
from sienn_ray.storage import Storage

logger = logging.getLogger(__name__)

# Each computation is several processes with a tokenizer in them.
_MAX_RUNNING = 2
# Those that run, and those that wait for their turn.
MAX_BEGUN = 32
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

    async def of(
        self,
        request: StatisticsRequest,
        admission: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    ) -> DatasetStatistics:
        """Wait for a computation, which begins now or is under way already.

        Args:
            request: What to compute.
            admission: Entered by the computation that begins now, and left when it has ended. Who waits for one that
                is under way already needs none.

        Raises:
            SiennError: Why it couldn't be done; `CapacityError` when it takes longer than `timeout_s`, or too many have
                begun.
        """
        task = self._running.get(request.key)
        if task is None:
            task = self._start(request, admission)
        # Neither a timeout nor a client that leaves cancels the task.
        done, _ = await asyncio.wait({task}, timeout=self._timeout_s)
        if not done:
            raise CapacityError(
                f"the statistics are still being computed after {self._timeout_s:.0f} s "
                "(SIENN_STATISTICS_TIMEOUT_S); they will be kept, ask again later",
                retry_after_s=_UNFINISHED_RETRY_AFTER_S,
            )
        return task.result()

    def _start(
        self, request: StatisticsRequest, admission: Callable[[], AbstractAsyncContextManager[None]]
    ) -> asyncio.Task[DatasetStatistics]:
        if len(self._running) >= MAX_BEGUN:
            raise CapacityError(
                f"this server has {MAX_BEGUN} computations of statistics begun, as many as it takes; ask again when "
                "some of them are done",
                retry_after_s=_UNFINISHED_RETRY_AFTER_S,
            )
        task = asyncio.create_task(self._compute(request, admission))
        self._running[request.key] = task
        task.add_done_callback(lambda ended: self._end(request, ended))
        return task

    async def _compute(
        self, request: StatisticsRequest, admission: Callable[[], AbstractAsyncContextManager[None]]
    ) -> DatasetStatistics:
        async with admission(), self._places:
            return await self._statistics.compute(request)

    def _end(self, request: StatisticsRequest, task: asyncio.Task[DatasetStatistics]) -> None:
        del self._running[request.key]
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, TooManyRequestsError):  # its owner's own doing
            logger.warning("no statistics of dataset %s: %s", request.dataset_id, error)
