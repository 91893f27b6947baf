"""The order in which rows are trained on: shuffled, reproducible, and known without reading any row.

Rows are shuffled within windows of some row groups, and the windows among each other, anew in each epoch. A position in
that order can be found again without what comes before it, which is how a run resumes, and a step has the same rows on
however many workers they are shared out.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

# A window has as many row groups as it takes to reach either; a task holds the rows of one in memory.
WINDOW_ROWS = 10_000
WINDOW_BYTES = 32 * 1024**2
# Rows of a part, which one task tokenizes. The first ones are small, so that training doesn't wait for a large one.
_PART_ROWS = (64, 256, 1024, 2048)

RowNumbers = npt.NDArray[np.int64]
NO_ROWS: RowNumbers = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class RowGroup:
    """A row group of the stored rows.

    Args:
        first_row: Number of its first row in the dataset.
        num_rows: Rows.
        num_bytes: Their size before compression.
    """

    first_row: int
    num_rows: int
    num_bytes: int


@dataclass(frozen=True)
class Part:
    """Successive rows of an epoch's order, from one window.

    Args:
        epoch: 1-based.
        window: Number of the window.
        start: First row, counted within the window's own order.
        stop: Behind the last one.
        first_position: Position of the first row in the epoch.
    """

    epoch: int
    window: int
    start: int
    stop: int
    first_position: int


class EpochOrder(Protocol):
    """An order of rows that is made anew in each epoch; `RowOrder` is one, `MixtureOrder` another."""

    @property
    def num_rows(self) -> int:
        """Rows of an epoch."""
        ...

    def groups_of(self, part: Part) -> tuple[int, ...]:
        """Row groups that a part's rows are in, by their numbers."""
        ...

    def rows(self, part: Part) -> RowNumbers:
        """Numbers of a part's rows, in order."""
        ...

    def parts(self, epoch: int, first_position: int = 0) -> Iterator[Part]:
        """The parts of an epoch from a position on."""
        ...


@dataclass(frozen=True)
class RowOrder:
    """The order of a dataset's rows, or of some of them.

    Args:
        windows: Row groups that are shuffled together, by their numbers.
        groups: All row groups.
        seed: Of the shuffling; None keeps the rows in the dataset's order.
        excluded: Numbers of rows that are left out, ascending.
        is_inverted: Whether those are the only ones that are kept, instead.
    """

    windows: tuple[tuple[int, ...], ...]
    groups: tuple[RowGroup, ...]
    seed: int | None
    excluded: RowNumbers
    is_inverted: bool = False

    @classmethod
    def of(
        cls, groups: Sequence[RowGroup], seed: int | None, excluded: RowNumbers, *, is_inverted: bool = False
    ) -> RowOrder:
        """Divide row groups into windows."""
        return cls(tuple(_windows(groups)), tuple(groups), seed, excluded, is_inverted)

    @property
    def num_rows(self) -> int:
        """Rows of an epoch."""
        total = sum(group.num_rows for group in self.groups)
        return len(self.excluded) if self.is_inverted else total - len(self.excluded)

    def num_window_rows(self, window: int) -> int:
        """Rows of a window."""
        return sum(self._num_kept(self.groups[group]) for group in self.windows[window])

    def groups_of(self, part: Part) -> tuple[int, ...]:
        """Row groups that a part's rows are in, by their numbers."""
        return self.windows[part.window]

    def rows(self, part: Part) -> RowNumbers:
        """Numbers of a part's rows, in order."""
        kept = np.concatenate([self._kept(self.groups[group]) for group in self.windows[part.window]])
        if self.seed is not None:
            kept = np.random.default_rng([self.seed, part.epoch, part.window]).permutation(kept)
        return kept[part.start : part.stop]

    def parts(self, epoch: int, first_position: int = 0) -> Iterator[Part]:
        """The parts of an epoch from a position on."""
        windows = ((window, self.num_window_rows(window)) for window in self._window_order(epoch))
        return parts_of(epoch, windows, first_position)

    def _window_order(self, epoch: int) -> list[int]:
        return window_order(len(self.windows), self.seed, epoch)

    def _num_kept(self, group: RowGroup) -> int:
        listed = self._num_listed(group)
        return listed if self.is_inverted else group.num_rows - listed

    def _num_listed(self, group: RowGroup) -> int:
        first, last = np.searchsorted(self.excluded, [group.first_row, group.first_row + group.num_rows])
        return int(last - first)

    def _kept(self, group: RowGroup) -> RowNumbers:
        first, last = np.searchsorted(self.excluded, [group.first_row, group.first_row + group.num_rows])
        listed = self.excluded[first:last]
        if self.is_inverted:
            return listed
        return np.setdiff1d(np.arange(group.first_row, group.first_row + group.num_rows), listed, assume_unique=True)


def parts_of(epoch: int, windows: Iterable[tuple[int, int]], first_position: int) -> Iterator[Part]:
    """Divide an epoch into parts, from a position on.

    Args:
        epoch: 1-based.
        windows: Number of each window and its rows, in the epoch's order.
        first_position: Rows of the epoch to pass over.
    """
    position = 0
    sizes = iter(_PART_ROWS)
    size = next(sizes)
    for window, num_rows in windows:
        start = min(max(first_position - position, 0), num_rows)
        while start < num_rows:
            stop = min(start + size, num_rows)
            yield Part(epoch, window, start, stop, position + start)
            start, size = stop, next(sizes, size)
        position += num_rows


def window_order(num_windows: int, seed: int | None, epoch: int) -> list[int]:
    """Shuffle the windows of an epoch; without a seed they keep their order."""
    numbers = list(range(num_windows))
    if seed is not None:
        random.Random(f"{seed}/{epoch}").shuffle(numbers)  # nosec B311 # an order of rows, no secret
    return numbers


def _windows(groups: Sequence[RowGroup]) -> Iterator[tuple[int, ...]]:
    window: list[int] = []
    for number, group in enumerate(groups):
        window.append(number)
        members = [groups[member] for member in window]
        is_full = sum(member.num_rows for member in members) >= WINDOW_ROWS
        if is_full or sum(member.num_bytes for member in members) >= WINDOW_BYTES or group is groups[-1]:
            yield tuple(window)
            window = []


def held_out_rows(num_rows: int, validation_split: float, seed: int) -> RowNumbers:
    """Row numbers for evaluation, ascending: the share asked for, at least one of two rows, the same for one seed.

    Example:
        >>> held_out_rows(1000, validation_split=0.003, seed=1).tolist() == held_out_rows(1000, 0.003, 1).tolist()
        True
        >>> len(held_out_rows(1000, 0.003, seed=1)), len(held_out_rows(2, 0.003, seed=1))
        (3, 1)
    """
    if validation_split == 0.0 or num_rows < 2:
        return NO_ROWS
    count = min(max(1, round(num_rows * validation_split)), num_rows - 1)
    return np.sort(np.random.default_rng(seed).choice(num_rows, count, replace=False)).astype(np.int64)
