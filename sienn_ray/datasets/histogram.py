"""Exact totals and percentiles of whole numbers, from how often each one came."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict


class Distribution(BaseModel):
    """The distribution of a number over rows. Percentiles are by nearest rank: 95% of the rows don't exceed p95."""

    model_config = ConfigDict(frozen=True)

    total: int
    mean: float
    min: int
    p50: int
    p95: int
    max: int


class Histogram:
    """Counts how often each whole number came; memory goes with the largest number, not with how many came."""

    def __init__(self) -> None:
        self._counts = np.zeros(1, np.int64)

    def add(self, values: npt.NDArray[Any]) -> None:
        """Count some numbers, none of them negative."""
        counts = np.bincount(values)
        if len(counts) > len(self._counts):
            counts, self._counts = self._counts, counts.astype(np.int64)
        self._counts[: len(counts)] += counts

    def distribution(self) -> Distribution:
        """Return the distribution of the numbers that were counted, at least one."""
        cumulative = np.cumsum(self._counts)
        num_values = int(cumulative[-1])
        total = int(np.dot(self._counts, np.arange(len(self._counts))))

        def percentile(percent: int) -> int:
            return int(np.searchsorted(cumulative, max(1, -(-percent * num_values // 100))))

        return Distribution(
            total=total,
            mean=round(total / num_values, 2),
            min=percentile(0),
            p50=percentile(50),
            p95=percentile(95),
            max=percentile(100),
        )
