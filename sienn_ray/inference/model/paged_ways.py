"""The cache of keys and values with the attention that suits it: in place on a CPU, gathered on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from sienn_ray.inference.model.device_memory import GRAPH_SHARE, MOST_GATHERED_BYTES
from sienn_ray.inference.model.filled_rows import FilledRows, fill_up
from sienn_ray.inference.model.gathered_attention import GatheredStep
from sienn_ray.inference.model.in_place_attention import InPlaceStep, RowSpan
from sienn_ray.inference.model.kv_blocks import runs
from sienn_ray.inference.model.kv_cache import BlockKvCache, KvCache
from sienn_ray.inference.model.paged_attention import PagedStep
from sienn_ray.inference.model.row_groups import RowBlocks, RowGroup, groups_of
from sienn_ray.inference.model.step_rows import StepRow
from sienn_ray.inference.transfers import StepNumbers


class PagedWays(Protocol):
    """A cache of keys and values, and the attention that suits it."""

    #: Blocks beside those of requests.
    num_spare_blocks: int

    @property
    def token_bytes(self) -> int:
        """Bytes of the keys and values of a token, once a step has been computed."""
        ...

    #: Blocks for requests.
    num_blocks: int

    @property
    def size_bytes(self) -> int:
        """Bytes of keys and values so far."""
        ...

    def plan(
        self, rows: Sequence[StepRow], slots_at: int, positions_at: int, numbers: StepNumbers
    ) -> Callable[[], PagedStep]:
        """Plan attention for a step; the function that is returned is called once its numbers are on the device."""
        ...


class InPlaceWays:
    """The cache and the attention of a CPU; see `in_place_attention`.

    Args:
        num_blocks: Blocks for requests.
        block_tokens: Tokens in a block.
    """

    def __init__(self, num_blocks: int, block_tokens: int) -> None:
        self.num_blocks = num_blocks
        self._block_tokens = block_tokens
        self._cache = KvCache(num_blocks * block_tokens)
        self.num_spare_blocks = 0

    @property
    def size_bytes(self) -> int:
        """See `PagedWays.size_bytes`."""
        return self._cache.size_bytes

    @property
    def token_bytes(self) -> int:
        """See `PagedWays.token_bytes`."""
        return self._cache.size_bytes // self._cache.num_slots

    def plan(
        self,
        rows: Sequence[StepRow],
        slots_at: int,
        positions_at: int,  # noqa: ARG002
        numbers: StepNumbers,
    ) -> Callable[[], PagedStep]:
        """See `PagedWays.plan`."""
        spans: list[RowSpan] = []
        start = 0
        for row in rows:
            context = tuple(runs(row.blocks, self._block_tokens, row.num_before))
            spans.append(RowSpan(start, row.num_new, context, own_runs(row, self._block_tokens)))
            start += row.num_new
        return lambda: InPlaceStep(self._cache, numbers[slots_at], spans)


class GatheredWays:
    """The cache and the attention of a GPU; see `gathered_attention`.

    Args:
        num_blocks: Blocks for requests.
        block_tokens: Tokens in a block.
        gathered_bytes: Bytes of keys and values that one attention call gathers.
    """

    def __init__(self, num_blocks: int, block_tokens: int, gathered_bytes: int = MOST_GATHERED_BYTES) -> None:
        self.num_blocks = num_blocks
        self._block_tokens = block_tokens
        self._gathered_bytes = gathered_bytes
        self._cache = BlockKvCache(num_blocks, block_tokens)
        self.num_spare_blocks = 1

    @property
    def size_bytes(self) -> int:
        """See `PagedWays.size_bytes`."""
        return self._cache.size_bytes

    @property
    def token_bytes(self) -> int:
        """See `PagedWays.token_bytes`."""
        return self._cache.size_bytes // self._cache.num_slots

    def plan(
        self, rows: Sequence[StepRow], slots_at: int, positions_at: int, numbers: StepNumbers
    ) -> Callable[[], PagedStep]:
        """See `PagedWays.plan`."""
        found: list[RowBlocks] = []
        start = 0
        for row in rows:
            num_blocks = -(-len(row.tokens) // self._block_tokens)
            found.append(RowBlocks(start, row.num_new, row.blocks[:num_blocks]))
            start += row.num_new
        groups = groups_of(found, self._cache.spare, numbers)
        return self._step(slots_at, positions_at, groups, numbers, self._gathered_bytes)

    def allocate_as(self, probed: GatheredWays) -> None:
        """See `BlockKvCache.allocate_as`."""
        self._cache.allocate_as(probed._cache)

    def filled_up(self, rows: Sequence[StepRow]) -> FilledRows | None:
        """See `fill_up`."""
        return fill_up(rows, self._cache.spare, self._block_tokens)

    def plan_filled_up(
        self, filled: FilledRows, slots_at: int, positions_at: int, numbers: StepNumbers
    ) -> Callable[[], PagedStep]:
        """Plan attention for a step that is filled up; see `plan`."""
        groups = [
            RowGroup(
                len(each.tokens),
                1,
                each.num_blocks,
                numbers.add(each.tokens),
                numbers.add(each.table),
                are_all=len(filled.classes) == 1,
            )
            for each in filled.classes
        ]
        # Sizes that a pool has no piece for add up in it, and calls cost a graph little.
        return self._step(slots_at, positions_at, groups, numbers, self._gathered_bytes // GRAPH_SHARE)

    def _step(
        self, slots_at: int, positions_at: int, groups: Sequence[RowGroup], numbers: StepNumbers, max_bytes: int
    ) -> Callable[[], PagedStep]:
        return lambda: GatheredStep(self._cache, numbers[slots_at], numbers[positions_at], groups, numbers, max_bytes)


def own_runs(row: StepRow, block_tokens: int) -> tuple[tuple[int, int], ...]:
    """Return the slots of a row's new tokens: (first slot, slots) for each run of neighbouring blocks."""
    skipped = row.num_before // block_tokens
    inside = row.num_before - skipped * block_tokens
    found = runs(row.blocks[skipped:], block_tokens, inside + row.num_new)
    start, length = found[0]
    return ((start + inside, length - inside), *found[1:])
