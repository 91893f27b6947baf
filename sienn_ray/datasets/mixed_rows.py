"""Rows of several datasets in storage, numbered one dataset behind the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from sienn_ray.datasets.mixture_order import Portion
from sienn_ray.datasets.row_order import NO_ROWS, RowGroup, RowNumbers, held_out_rows
from sienn_ray.datasets.token_stream import StoredRows


@dataclass(frozen=True)
class MixedRows:
    """Rows of several datasets.

    Args:
        members: The datasets.
    """

    members: tuple[StoredRows, ...]

    @cached_property
    def groups(self) -> tuple[RowGroup, ...]:
        """Return the row groups of all datasets."""
        return tuple(
            replace(group, first_row=group.first_row + first_row)
            for member, first_row in zip(self.members, self._first_rows, strict=True)
            for group in member.groups
        )

    @property
    def num_rows(self) -> int:
        """Rows of all datasets."""
        return sum(member.num_rows for member in self.members)

    def portions(self, weights: Sequence[float]) -> tuple[Portion, ...]:
        """Return the datasets with their weights, as an order takes them."""
        return tuple(
            Portion(self.groups[groups.start : groups.stop], weight)
            for groups, weight in zip(self._group_numbers, weights, strict=True)
        )

    def held_out(self, validation_split: float, seed: int) -> RowNumbers:
        """Row numbers for evaluation, ascending: the same share of each dataset."""
        numbers = [
            held_out_rows(member.num_rows, validation_split, seed) + first_row
            for member, first_row in zip(self.members, self._first_rows, strict=True)
        ]
        return np.concatenate([NO_ROWS, *numbers])

    def take(self, groups: tuple[int, ...], rows: RowNumbers) -> pa.Table:
        """Some rows, by their numbers in the mixture, of some row groups.

        One dataset's groups are in memory at a time, beside the rows that were asked for.
        """
        tables, places = [], [np.empty(0, dtype=np.int64)]
        for member, numbers, first_row in zip(self.members, self._group_numbers, self._first_rows, strict=True):
            own_groups = tuple(group - numbers.start for group in groups if group in numbers)
            own = np.flatnonzero((rows >= first_row) & (rows < first_row + member.num_rows))
            if own_groups and len(own):
                tables.append(member.take(own_groups, rows[own] - first_row))
                places.append(own)
        if not tables:
            return self.members[0].take((0,), NO_ROWS)
        # Datasets of earlier versions lack columns.
        together = pa.concat_tables(tables, promote_options="permissive")
        return together.take(np.argsort(np.concatenate(places)))

    @cached_property
    def _first_rows(self) -> tuple[int, ...]:
        return tuple(int(end) for end in np.cumsum([0, *(member.num_rows for member in self.members[:-1])]))

    @cached_property
    def _group_numbers(self) -> tuple[range, ...]:
        return tuple(_ranges(len(member.groups) for member in self.members))


def _ranges(sizes: Iterator[int]) -> Iterator[range]:
    start = 0
    for size in sizes:
        yield range(start, start + size)
        start += size
