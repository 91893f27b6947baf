"""Attention of a GPU: the keys and values of many requests are gathered, and one call attends for all of them.

A launch costs a GPU's host as much as reading megabytes costs the GPU, so requests are attended to together, each
padded to the blocks of the longest. Where that would more than double what is read, they are divided by length, each
class up to twice the one before: the calls of a layer grow with the logarithm of the longest request, and not with the
number of requests. What one call gathers is bounded in bytes, since many requests may read the same blocks: beyond
that, a group is attended to in several calls, of fewer requests or of fewer key heads of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812

from sienn_ray.inference.model.kv_cache import BlockKvCache, finite
from sienn_ray.inference.model.paged_attention import PagedStep
from sienn_ray.inference.model.row_groups import RowGroup
from sienn_ray.inference.transfers import StepNumbers

# Values of a mask, or of scores where no kernel computes them piece by piece: 64 MiB in bfloat16.
_MAX_SCORES = 1 << 25
_ALL = slice(None)


class GatheredStep(PagedStep):
    """A step whose requests are attended for together; see `PagedStep`.

    Args:
        cache: Keys and values.
        slots: (tokens,) each token's slot in the cache.
        positions: (tokens,) each token's position in its request.
        groups: All requests.
        numbers: Tensors of the groups.
        max_bytes: Bytes of keys and values, copies for each head included, that one call gathers.
    """

    def __init__(
        self,
        cache: BlockKvCache,
        slots: torch.Tensor,
        positions: torch.Tensor,
        groups: Sequence[RowGroup],
        numbers: StepNumbers,
        max_bytes: int,
    ) -> None:
        super().__init__()
        self._cache = cache
        self._slots = slots
        self._positions = positions
        self._groups = groups
        self._numbers = numbers
        self._max_bytes = max_bytes
        self._masks: dict[tuple[int, int | None], torch.Tensor] = {}

    def attend(
        self,
        layer: int,
        grouped: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        window: int | None = None,
        softcap: float | None = None,
    ) -> torch.Tensor:
        """See `PagedStep.attend`."""
        keys, values = self._cache.write(layer, self._slots, key, value)
        grouped = finite(grouped)
        if len(self._groups) == 1 and self._groups[0].are_all:
            return self._attended(0, grouped, keys, values, scale, window, softcap)
        output = value.new_empty((*grouped.shape[:3], value.shape[2]))
        for number, group in enumerate(self._groups):
            tokens = self._numbers[group.tokens]
            # A token that is there several times is computed several times, each time alike.
            of_group = grouped.index_select(0, tokens)
            output.index_copy_(0, tokens, self._attended(number, of_group, keys, values, scale, window, softcap))
        return output

    def _attended(
        self,
        number: int,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        scale: float,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        """Attend for a group, in as many calls as it takes; (rows * queries, key heads, heads of each, size)."""
        group = self._groups[number]
        calls = self._calls(group, keys, values, queries.shape[2], softcap)
        if len(calls) == 1:
            return self._called(number, _ALL, queries, keys, values, scale, window, softcap)
        found = queries.new_empty((*queries.shape[:3], values.shape[3]))
        for rows, heads in calls:
            own = slice(rows.start * group.num_queries, rows.stop * group.num_queries)
            found[own, heads] = self._called(
                number, rows, queries[own, heads], keys[:, :, heads], values[:, :, heads], scale, window, softcap
            )
        return found

    def _calls(
        self, group: RowGroup, keys: torch.Tensor, values: torch.Tensor, heads_of_each: int, softcap: float | None
    ) -> list[tuple[slice, slice]]:
        """Divide a group into requests and key heads of calls that gather no more than they may."""
        num_heads = keys.shape[2]
        # Products without a kernel of attention copy what they read once more.
        copies = 1 + heads_of_each if group.num_queries > 1 else 1 if softcap is None else 2
        head_bytes = copies * group.num_blocks * (keys[0, :, 0].nbytes + values[0, :, 0].nbytes)
        if head_bytes * num_heads <= self._max_bytes:
            return [(rows, _ALL) for rows in _even(group.num_rows, self._max_bytes // (head_bytes * num_heads))]
        heads = _even(num_heads, max(1, self._max_bytes // head_bytes))
        return [(row, each) for row in _even(group.num_rows, 1) for each in heads]

    def _called(
        self,
        number: int,
        rows: slice,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        scale: float,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        """Attend for requests of a group in one call; see `_attended`."""
        group = self._groups[number]
        key, value = (self._gathered(each, group, rows) for each in (keys, values))
        if group.num_queries == 1:
            # Heads that share a key head are the queries of one product, so keys needn't be copied for each.
            mask = self._mask(number, rows, window, queries.dtype, _ALL)
            # Kernels give heads behind queries.
            return _product(queries, key, value, mask, scale, softcap).contiguous()
        # (rows, heads, queries, size), and keys and values for each head
        heads = queries.reshape(len(key), group.num_queries, -1, queries.shape[3]).transpose(1, 2)
        key, value = (each.unsqueeze(2).expand(-1, -1, queries.shape[2], -1, -1).flatten(1, 2) for each in (key, value))
        pieces = [
            _product(
                heads[:, :, piece], key, value, self._mask(number, rows, window, queries.dtype, piece), scale, softcap
            )
            for piece in self._pieces(group, len(key), heads.shape[1] if softcap is not None else 1)
        ]
        found = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)
        return found.transpose(1, 2).reshape(*queries.shape[:3], -1)

    def _gathered(self, cached: torch.Tensor, group: RowGroup, rows: slice) -> torch.Tensor:
        """Gather the keys or values of a group's requests: (rows, key heads, slots, size)."""
        table = self._numbers[group.table]
        if rows is not _ALL:
            table = table[rows.start * group.num_blocks : rows.stop * group.num_blocks]
        blocks = cached.index_select(0, table)
        return blocks.view(len(table) // group.num_blocks, -1, *cached.shape[2:]).transpose(1, 2)

    def _pieces(self, group: RowGroup, num_rows: int, num_heads: int) -> Iterator[slice]:
        """Yield the queries of pieces whose masks, or scores of each head, aren't too large."""
        size = max(1, _MAX_SCORES // (num_rows * num_heads * self._num_slots(group)))
        if size >= group.num_queries:
            yield _ALL
            return
        for start in range(0, group.num_queries, size):
            yield slice(start, min(start + size, group.num_queries))

    def _mask(self, number: int, rows: slice, window: int | None, dtype: torch.dtype, queries: slice) -> torch.Tensor:
        """Return the mask of some of a group's queries; a whole group's is made once for all layers."""
        group = self._groups[number]
        if group.num_rows * group.num_queries * self._num_slots(group) > _MAX_SCORES:
            return self._new_mask(group, rows, window, dtype, queries)
        if (number, window) not in self._masks:
            self._masks[number, window] = self._new_mask(group, _ALL, window, dtype, _ALL)
        whole = self._masks[number, window]
        return whole if rows is _ALL and queries is _ALL else whole[rows, :, queries]

    def _new_mask(
        self, group: RowGroup, rows: slice, window: int | None, dtype: torch.dtype, queries: slice
    ) -> torch.Tensor:
        """Make (rows, 1, queries, slots): zero where a token attends to, minus infinity elsewhere."""
        positions = self._positions.index_select(0, self._numbers[group.tokens]).view(group.num_rows, -1, 1)
        own = positions[rows, queries]
        slots = torch.arange(self._num_slots(group), device=own.device)
        hidden = slots > own
        if window is not None:
            hidden |= slots <= own - window
        mask = torch.zeros(hidden.shape, dtype=dtype, device=own.device).masked_fill_(hidden, float("-inf"))
        return mask.unsqueeze(1)

    def _num_slots(self, group: RowGroup) -> int:
        return group.num_blocks * self._cache.block_tokens


def _even(number: int, size: int) -> list[slice]:
    """Divide a number of things into slices of nearly the same length, no longer than `size`."""
    num_slices = -(-number // size)
    ends = [number * place // num_slices for place in range(num_slices + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]


def _product(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scale: float,
    softcap: float | None,
) -> torch.Tensor:
    """Attend with a mask: (rows, heads, queries, size) of queries."""
    if softcap is None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    scores = torch.tanh((query @ key.transpose(2, 3)).mul_(scale / softcap)).mul_(softcap).add_(mask)
    return scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype) @ value
