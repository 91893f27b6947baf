from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from sienn_ray.training.loss.examples import Example
from sienn_ray.training.loss.packing import BatchSize, PackedSize, PaddedSize
from sienn_ray.training.micro_batch_limits import MicroBatchLimits
from sienn_ray.training.micro_batches import divided

SIZES: list[Callable[[], BatchSize]] = [PackedSize, PaddedSize]


def example(number: int, *lengths: int, shared: int = 0) -> Example:
    """Rows of such lengths, whose first tokens are the same in all examples."""
    begin = list(range(shared))
    rows = [[*begin, *(1000 * (number + 1) + 100 * side + place for place in range(length - shared))] for side, length
            in enumerate(lengths)]  # fmt: skip
    return Example(tuple((row, row) for row in rows))


def lengths_of(parts: list[list[Example]]) -> list[list[int]]:
    return [[len(ids) for each in part for ids, _ in each.rows] for part in parts]


def lengths(examples: list[Example], limits: MicroBatchLimits, size: Callable[[], BatchSize]) -> list[list[int]]:
    return lengths_of([list(part) for part in divided(examples, limits, size)])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("max_examples", [1, 2, 3, 5, 8, None])
def test_rows_alone_are_counted_as_ever(size: Callable[[], BatchSize], max_examples: int | None) -> None:
    examples = [example(number, 10 + number) for number in range(5)]
    parts = divided(examples, MicroBatchLimits(max_examples=max_examples), size)
    step = max_examples or 5
    assert parts == [examples[start : start + step] for start in range(0, 5, step)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(20))
def test_no_micro_batch_is_larger_than_its_limits(size: Callable[[], BatchSize], seed: int) -> None:
    """But for one example alone; none is lost, and their order stays."""
    chance = random.Random(seed)
    examples = [
        example(number, *[chance.randint(2, 40) for _ in range(chance.choice([1, 2]))])
        for number in range(chance.randint(0, 30))
    ]
    limits = MicroBatchLimits(chance.choice([None, 4]), chance.randint(10, 120))
    parts = divided(examples, limits, size)
    assert [each for part in parts for each in part] == examples
    for part in parts:
        count = size()
        tokens = [count.add(each.rows) for each in part][-1]
        assert len(part) == 1 or tokens <= (limits.max_tokens or 0)
        assert len(part) <= (limits.max_examples or len(part))


def test_a_long_row_is_alone() -> None:
    examples = [example(number, length) for number, length in enumerate([10, 500, 10, 10])]
    assert lengths(examples, MicroBatchLimits(max_tokens=100), PackedSize) == [[10], [500], [10, 10]]


def test_micro_batches_are_even() -> None:
    examples = [example(number, 10) for number in range(11)]
    assert lengths(examples, MicroBatchLimits(max_tokens=100), PackedSize) == [[10] * 6, [10] * 5]


def test_what_rows_share_counts_once() -> None:
    examples = [example(number, 60, shared=50) for number in range(5)]
    assert len(divided(examples, MicroBatchLimits(max_tokens=100), PackedSize)) == 1
    assert len(divided(examples, MicroBatchLimits(max_tokens=100), PaddedSize)) == 5


def test_padding_counts() -> None:
    examples = [example(number, length) for number, length in enumerate([50, 10, 10, 10])]
    assert lengths(examples, MicroBatchLimits(max_tokens=100), PaddedSize) == [[50, 10], [10, 10]]
    assert lengths(examples, MicroBatchLimits(max_tokens=200), PaddedSize) == [[50, 10, 10, 10]]
