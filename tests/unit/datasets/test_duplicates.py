from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from sienn_ray.datasets.duplicates import DTYPE, DuplicateFinder


def rows_of(hashes: Sequence[tuple[int, int]], first_row: int = 0) -> np.ndarray:
    return np.array([(high, low, row, row + 2) for row, (high, low) in enumerate(hashes, first_row)], DTYPE)


def repeated(rows: np.ndarray, batch_size: int = 1_000, max_lines: int = 10) -> tuple[int, list[int]]:
    with DuplicateFinder() as finder:
        for start in range(0, len(rows), batch_size):
            finder.add(rows[start : start + batch_size])
        return finder.repeated(max_lines)


def test_rows_that_differ_are_no_duplicates() -> None:
    top = 2**64 - 1
    assert repeated(rows_of([(0, 0), (0, 1), (1, 0), (top, 0), (top, top), (0, top)])) == (0, [])


@pytest.mark.parametrize("batch_size", [1, 3, 1_000])
def test_count_is_that_of_plain_python_in_any_order(batch_size: int) -> None:
    random.seed(0)
    hashes = [(random.randrange(2**64), random.randrange(3)) for _ in range(300)]
    hashes = [random.choice(hashes) for _ in range(1_000)]
    seen: set[tuple[int, int]] = set()
    expected = []
    for row, key in enumerate(hashes):
        if key in seen:
            expected.append(row + 2)
        seen.add(key)
    rows = rows_of(hashes)
    np.random.default_rng(0).shuffle(rows)
    assert repeated(rows, batch_size) == (len(expected), expected[:10])
    assert repeated(rows, batch_size, max_lines=2) == (len(expected), expected[:2])


def test_first_of_equal_rows_is_the_one_with_the_lowest_number() -> None:
    assert repeated(rows_of([(1, 1)] * 5)[::-1].copy()) == (4, [3, 4, 5, 6])


def test_no_rows() -> None:
    assert repeated(rows_of([])) == (0, [])
