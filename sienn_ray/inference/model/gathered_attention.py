"""Attention of a GPU: the keys and values of many requests are gathered, and one call attends for all of them.

A launch costs a GPU's host as much as reading megabytes costs the GPU, so requests are attended to together, each
padded to the blocks of the longest. Where that would more than double what is read, they are divided by length, each
class up to twice the one before: the calls of a layer grow with the logarithm of the longest request, and not with the
number of requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from sienn_ray.inference.model.kv_cache import BlockKvCache, finite
from sienn_ray.inference.model.paged_attention import PagedStep
from sienn_ray.inference.transfers import StepNumbers

# Padded tables of blocks that cost less to gather than another call does.
CHEAP_BLOCKS = 512
# Values of a mask, or of scores where no kernel computes them piece by piece: 64 MiB in bfloat16.
_MAX_SCORES = 1 << 25


@dataclass(frozen=True)
class RowBlocks:
    """The tokens of one request in a step.

    Args:
        start: First of the tokens in the step.
        num_tokens: Number of tokens.
        blocks: The blocks of the request up to these tokens.
    """

    start: int
    num_tokens: int
    blocks: Sequence[int]


@dataclass(frozen=True)
class RowGroup:
    """Requests that one call attends for, as places of tensors in `StepNumbers`.

    Args:
        num_rows: Number of requests.
        num_queries: Tokens of each, padded.
        num_blocks: Blocks of each, padded.
        tokens: (rows * queries,) the requests' tokens in the step; a shorter request has its last one several times.
        table: (rows * blocks,) the requests' blocks; a shorter request has the spare one behind.
        are_all: Whether these are all of the step's tokens in their order.
    """

    num_rows: int
    num_queries: int
    num_blocks: int
    tokens: int
    table: int
    are_all: bool


def groups_of(rows: Sequence[RowBlocks], spare: int, numbers: StepNumbers) -> list[RowGroup]:
    """Divide the requests of a step into those that one call attends for.

    Args:
        rows: The requests.
        spare: A block to pad with.
        numbers: Gets tokens and tables.
    """
    num_tokens = sum(row.num_tokens for row in rows)
    decoding = [row for row in rows if row.num_tokens == 1]
    prefilled = [row for row in rows if row.num_tokens > 1]
    groups = [*_divided(decoding), *_divided(prefilled)]
    return [_group(group, spare, numbers, num_tokens) for group in groups]


def _divided(rows: Sequence[RowBlocks]) -> list[Sequence[RowBlocks]]:
    """Divide requests of one kind by their lengths, where padding would cost more than further calls."""
    if not rows:
        return []
    if fit_together(rows):
        return [rows]
    classes: dict[tuple[int, int], list[RowBlocks]] = {}
    for row in rows:
        name = (len(row.blocks) - 1).bit_length(), (row.num_tokens - 1).bit_length()
        classes.setdefault(name, []).append(row)
    return list(classes.values())


def fit_together(rows: Sequence[RowBlocks]) -> bool:
    """Return whether padding the requests to the longest costs less than further calls."""
    num_blocks, num_tokens = max(len(row.blocks) for row in rows), max(row.num_tokens for row in rows)
    read = sum(len(row.blocks) * row.num_tokens for row in rows)
    return len(rows) * num_blocks * num_tokens <= max(CHEAP_BLOCKS, 2 * read)


def _group(rows: Sequence[RowBlocks], spare: int, numbers: StepNumbers, num_tokens: int) -> RowGroup:
    ordered = sorted(rows, key=lambda row: row.start)
    num_queries = max(row.num_tokens for row in ordered)
    num_blocks = max(len(row.blocks) for row in ordered)
    tokens = [row.start + min(number, row.num_tokens - 1) for row in ordered for number in range(num_queries)]
    table: list[int] = []
    for row in ordered:
        table += row.blocks
        table += [spare] * (num_blocks - len(row.blocks))
    return RowGroup(
        len(ordered), num_queries, num_blocks, numbers.add(tokens), numbers.add(table), tokens == [*range(num_tokens)]
    )


class GatheredStep(PagedStep):
    """A step whose requests are attended for together; see `PagedStep`.

    Args:
        cache: Keys and values.
        slots: (tokens,) each token's slot in the cache.
        positions: (tokens,) each token's position in its request.
        groups: All requests.
        numbers: Tensors of the groups.
    """

    def __init__(
        self,
        cache: BlockKvCache,
        slots: torch.Tensor,
        positions: torch.Tensor,
        groups: Sequence[RowGroup],
        numbers: StepNumbers,
    ) -> None:
        super().__init__()
        self._cache = cache
        self._slots = slots
        self._positions = positions
        self._groups = groups
        self._numbers = numbers
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
        """Attend for a group; (rows * queries, key heads, heads of each, size) in and out."""
        group = self._groups[number]
        key, value = (self._gathered(each, group) for each in (keys, values))
        if group.num_queries == 1:
            # Heads that share a key head are the queries of one product, so keys needn't be copied for each.
            mask = self._mask(number, window, queries.dtype)
            # Kernels give heads behind queries.
            return _product(queries, key, value, mask, scale, softcap).contiguous()
        # (rows, heads, queries, size), and keys and values for each head
        heads = queries.reshape(group.num_rows, group.num_queries, -1, queries.shape[3]).transpose(1, 2)
        key, value = (each.unsqueeze(2).expand(-1, -1, queries.shape[2], -1, -1).flatten(1, 2) for each in (key, value))
        pieces = [
            _product(heads[:, :, start:end], key, value, mask, scale, softcap)
            for start, end, mask in self._pieces(number, window, queries, softcap)
        ]
        found = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)
        return found.transpose(1, 2).reshape(*queries.shape[:3], -1)

    def _gathered(self, cached: torch.Tensor, group: RowGroup) -> torch.Tensor:
        """Gather a group's keys or values: (rows, key heads, slots, size)."""
        blocks = cached.index_select(0, self._numbers[group.table])
        return blocks.view(group.num_rows, -1, *cached.shape[2:]).transpose(1, 2)

    def _pieces(
        self, number: int, window: int | None, queries: torch.Tensor, softcap: float | None
    ) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Yield first query, end and mask of pieces whose masks, or scores, aren't too large."""
        group = self._groups[number]
        per_query = group.num_rows * group.num_blocks * self._cache.block_tokens
        if softcap is not None:
            per_query *= queries.shape[1] * queries.shape[2]
        size = max(1, _MAX_SCORES // per_query)
        if size >= group.num_queries:
            yield 0, group.num_queries, self._mask(number, window, queries.dtype)
            return
        for start in range(0, group.num_queries, size):
            end = min(start + size, group.num_queries)
            yield start, end, self._new_mask(group, window, queries.dtype, slice(start, end))

    def _mask(self, number: int, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        """Return a group's mask, made once for all layers of this window."""
        if (number, window) not in self._masks:
            self._masks[number, window] = self._new_mask(self._groups[number], window, dtype, slice(None))
        return self._masks[number, window]

    def _new_mask(self, group: RowGroup, window: int | None, dtype: torch.dtype, queries: slice) -> torch.Tensor:
        """Make (rows, 1, queries, slots): zero where a token attends to, minus infinity elsewhere."""
        positions = self._positions.index_select(0, self._numbers[group.tokens]).view(group.num_rows, -1, 1)
        own = positions[:, queries]
        slots = torch.arange(group.num_blocks * self._cache.block_tokens, device=own.device)
        hidden = slots > own
        if window is not None:
            hidden |= slots <= own - window
        mask = torch.zeros(hidden.shape, dtype=dtype, device=own.device).masked_fill_(hidden, float("-inf"))
        return mask.unsqueeze(1)


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
