from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest

from sienn_ray.datasets.histogram import Distribution, Histogram


def expected(values: list[int]) -> Distribution:
    """The same by plain Python."""
    ordered = sorted(values)

    def percentile(percent: int) -> int:
        return ordered[max(1, math.ceil(percent * len(ordered) / 100)) - 1]

    return Distribution(
        total=sum(values),
        mean=round(statistics.fmean(values), 2),
        min=ordered[0],
        p50=percentile(50),
        p95=percentile(95),
        max=ordered[-1],
    )


@pytest.mark.parametrize("batch_size", [1, 7, 10_000])
@pytest.mark.parametrize("num_values", [1, 2, 3, 19, 20, 21, 100, 5_000])
def test_numbers_are_those_of_plain_python(num_values: int, batch_size: int) -> None:
    random.seed(num_values)
    values = [int(random.paretovariate(1.0)) % 100_000 for _ in range(num_values)]
    histogram = Histogram()
    for start in range(0, num_values, batch_size):
        histogram.add(np.array(values[start : start + batch_size]))
    assert histogram.distribution() == expected(values)


@pytest.mark.parametrize("values", [[0], [0, 0, 0], [5], [0, 4_000_000]])
def test_extremes(values: list[int]) -> None:
    histogram = Histogram()
    histogram.add(np.array(values))
    assert histogram.distribution() == expected(values)


def test_empty_batches_change_nothing() -> None:
    histogram = Histogram()
    for batch in ([], [3], []):
        histogram.add(np.array(batch, np.int64))
    assert histogram.distribution() == expected([3])
