"""The order of the rows of several datasets, each with a weight: mixed evenly, reproducible, known without reading.

A weight says how often each row of a dataset is met in an epoch. Of 2.5, two are whole passes; for the half, every
epoch takes half of the rows, chosen by the seed without replacement over epochs: two of them take each row once.

Every window has the same share of each dataset, so that a small one is spread over the whole epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from sienn_ray.datasets.row_order import (
    NO_ROWS,
    WINDOW_BYTES,
    WINDOW_ROWS,
    Part,
    RowGroup,
    RowNumbers,
    parts_of,
    window_order,
)
from sienn_ray.datasets.weights import passes_and_choice

# Ends of the seeds of what is drawn, so that no two draws are the same.
_CHOICE, _ORDER = 1, 2


@dataclass(frozen=True)
class Portion:
    """A dataset within a mixture.

    Args:
        groups: Its row groups; rows are numbered over all datasets of the mixture.
        weight: How often each of its rows is met in an epoch.
    """

    groups: tuple[RowGroup, ...]
    weight: float


class _Slice(NamedTuple):
    """Some of the entries that an epoch has of a row group."""

    group: int
    start: int
    stop: int


@dataclass(frozen=True)
class _Member:
    """The entries that every epoch has of a dataset: whole passes over its rows, and a choice of them.

    Args:
        groups: Numbers of its row groups.
        num_kept: Rows of each that aren't left out.
        num_passes: Times that an epoch has each row.
        num_chosen: Rows that an epoch has once more.
    """

    groups: range
    num_kept: tuple[int, ...]
    num_passes: int
    num_chosen: int

    @classmethod
    def of(cls, groups: range, num_kept: tuple[int, ...], weight: float) -> _Member:
        """Divide a weight into passes and a choice; the least choice is a row."""
        return cls(groups, num_kept, *passes_and_choice(weight, sum(num_kept)))

    @property
    def num_rows(self) -> int:
        return sum(self.num_kept)

    @property
    def num_entries(self) -> int:
        return self.num_passes * self.num_rows + self.num_chosen

    def is_chosen(self, places: RowNumbers, epoch: int) -> Any:
        """(rows,) bool: of rows by their places in the dataset, those that an epoch takes once more.

        The place times `num_chosen`, modulo the rows, says when its turn is. An epoch takes the next `num_chosen`
        turns, so that its rows lie evenly over the dataset, and no row comes again before all others had their turn.
        """
        return (places * self.num_chosen - self._turn(epoch)) % self.num_rows < self.num_chosen

    def num_entries_by_group(self, epoch: int) -> Iterator[int]:
        """Entries that an epoch has of each row group."""
        place = 0
        for num_kept in self.num_kept:
            more = self._num_chosen_before(place + num_kept, epoch) - self._num_chosen_before(place, epoch)
            yield self.num_passes * num_kept + more
            place += num_kept

    def _turn(self, epoch: int) -> int:
        return (epoch - 1) * self.num_chosen % self.num_rows

    def _num_chosen_before(self, place: int, epoch: int) -> int:
        if not self.num_chosen:
            return 0
        # One is chosen wherever a multiple of the rows is passed; see `is_chosen`.
        turn, step = self._turn(epoch), self.num_chosen
        return ((place - 1) * step - turn) // self.num_rows - (-step - turn) // self.num_rows


@dataclass(frozen=True)
class MixtureOrder:
    """The order of rows in a mixture.

    Args:
        portions: The datasets, in the order in which their rows are numbered.
        seed: Of all that is drawn.
        excluded: Numbers of rows that are left out, ascending.
    """

    portions: tuple[Portion, ...]
    seed: int
    excluded: RowNumbers = field(default_factory=lambda: NO_ROWS)

    @property
    def num_rows(self) -> int:
        """Rows of an epoch."""
        return sum(self.portion_rows)

    @property
    def portion_rows(self) -> tuple[int, ...]:
        """Rows that an epoch has of each dataset; they are the same in every epoch."""
        return tuple(member.num_entries for member in self._members)

    def groups_of(self, part: Part) -> tuple[int, ...]:
        """Row groups that a part's rows are in, by their numbers."""
        return tuple(piece.group for piece in self._slices(part.window, part.epoch))

    def rows(self, part: Part) -> RowNumbers:
        """Numbers of a part's rows, in order; one may be there more than once."""
        pieces = self._slices(part.window, part.epoch)
        entries = [self._entries(piece.group, part.epoch)[piece.start : piece.stop] for piece in pieces]
        mixed = np.random.default_rng([self.seed, part.epoch, part.window]).permutation(np.concatenate(entries))
        return mixed[part.start : part.stop]

    def parts(self, epoch: int, first_position: int = 0) -> Iterator[Part]:
        """The parts of an epoch from a position on."""
        order = window_order(self._num_windows, self.seed, epoch)
        return parts_of(epoch, ((window, self._num_window_rows(window)) for window in order), first_position)

    def seen_rows(self, num_epochs: int, num_more: int = 0) -> tuple[int, ...]:
        """Count the rows of each dataset in some epochs, and in the first positions of the one behind them."""
        seen = np.array(self.portion_rows, dtype=np.int64) * num_epochs
        firsts = [portion.groups[0].first_row for portion in self.portions]
        for part in self.parts(num_epochs + 1):
            if part.first_position >= num_more:
                break
            rows = self.rows(part)[: num_more - part.first_position]
            seen += np.bincount(np.searchsorted(firsts, rows, side="right") - 1, minlength=len(firsts))
        return tuple(int(count) for count in seen)

    @cached_property
    def _groups(self) -> tuple[RowGroup, ...]:
        return tuple(group for portion in self.portions for group in portion.groups)

    @cached_property
    def _members(self) -> tuple[_Member, ...]:
        members, first = [], 0
        for portion in self.portions:
            kept = tuple(group.num_rows - len(self._excluded_of(group)) for group in portion.groups)
            members.append(_Member.of(range(first, first + len(kept)), kept, portion.weight))
            first += len(kept)
        return tuple(members)

    @cached_property
    def _num_windows(self) -> int:
        num_bytes = sum(
            # All of it is read, and its rows may be there more than once.
            sum(group.num_bytes for group in portion.groups) * max(1, math.ceil(portion.weight))
            for portion in self.portions
        )
        return min(max(-(-self.num_rows // WINDOW_ROWS), -(-num_bytes // WINDOW_BYTES)), self.num_rows)

    def _num_window_rows(self, window: int) -> int:
        return sum(stop - start for start, stop in (self._share(member, window) for member in self._members))

    def _share(self, member: _Member, window: int) -> tuple[int, int]:
        """The window's share of a dataset's entries: where it begins, and where it ends."""
        total, number = member.num_entries, self._num_windows
        return window * total // number, (window + 1) * total // number

    def _slices(self, window: int, epoch: int) -> tuple[_Slice, ...]:
        return tuple(piece for member in self._members for piece in self._slices_of(member, window, epoch))

    def _slices_of(self, member: _Member, window: int, epoch: int) -> Iterator[_Slice]:
        start, stop = self._share(member, window)
        first = 0
        for group, num_entries in zip(member.groups, member.num_entries_by_group(epoch), strict=True):
            end = first + num_entries
            if start < end and first < stop:
                yield _Slice(group, max(start - first, 0), min(stop, end) - first)
            first = end

    def _entries(self, group: int, epoch: int) -> RowNumbers:
        """Numbers of the rows that an epoch has of a row group, in an order of its own."""
        found = self._groups[group]
        rows = np.arange(found.first_row, found.first_row + found.num_rows)
        kept = np.setdiff1d(rows, self._excluded_of(found), assume_unique=True)
        member = next(each for each in self._members if group in each.groups)
        entries = [NO_ROWS, *[kept] * member.num_passes]
        if member.num_chosen:
            first_place = sum(member.num_kept[: group - member.groups.start])
            shuffled = np.random.default_rng([self.seed, group, _CHOICE]).permutation(kept)
            entries.append(shuffled[member.is_chosen(first_place + np.arange(len(kept)), epoch)])
        return np.random.default_rng([self.seed, epoch, group, _ORDER]).permutation(np.concatenate(entries))

    def _excluded_of(self, group: RowGroup) -> RowNumbers:
        first, last = np.searchsorted(self.excluded, [group.first_row, group.first_row + group.num_rows])
        return self.excluded[first:last]
