"""Statistics without Ray: made up at once, or when a test says so."""

from __future__ import annotations

import asyncio

from sienn_ray.datasets.histogram import Distribution
from sienn_ray.datasets.statistics_schema import DatasetStatistics, StatisticsRequest
from sienn_ray.storage import Storage


def statistics_of(request: StatisticsRequest) -> DatasetStatistics:
    """Some numbers, all different."""

    def distribution(first: int) -> Distribution:
        return Distribution(total=first, mean=first + 0.25, min=1, p50=first + 1, p95=first + 2, max=first + 3)

    return DatasetStatistics(
        base_model=request.base_model,
        max_length=request.max_length,
        num_rows=1319,
        characters=distribution(100),
        tokens=distribution(200),
        prompt_tokens=distribution(300),
        completion_tokens=distribution(400),
        num_rows_over_max_length=7,
        num_tokens_over_max_length=93,
        num_dropped_rows=5,
        num_duplicate_rows=3,
        duplicate_lines=[11, 12, 13],
        num_empty=list(range(request.num_columns)),
    )


class FakeStatistics:
    """Computes at once; after `hold()` only when `release` is set. Keeps what it computed if it has a storage.

    Attributes:
        asked: Requests in order.
        error: Raised instead, if one is set.
    """

    def __init__(self, storage: Storage | None = None) -> None:
        self.asked: list[StatisticsRequest] = []
        self.error: Exception | None = None
        self.release: asyncio.Event | None = None
        self.num_running = 0
        self.max_running = 0
        self._storage = storage

    def hold(self) -> None:
        """Compute no further; call it where the event loop is that asks."""
        self.release = asyncio.Event()

    async def compute(self, request: StatisticsRequest) -> DatasetStatistics:
        self.asked.append(request)
        self.num_running += 1
        self.max_running = max(self.max_running, self.num_running)
        if self.release:
            await self.release.wait()
        self.num_running -= 1
        if self.error:
            raise self.error
        statistics = statistics_of(request)
        if self._storage:
            self._storage.write_bytes(request.key, statistics.model_dump_json().encode())
        return statistics
