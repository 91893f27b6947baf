"""Attention of a CPU: keys and values are read in place.

Where a request's blocks lie apart, each part is attended to by itself, and the parts are merged by their log-sum-exp
(Dao et al. 2022, arXiv:2205.14135).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from sienn_ray.inference.model.kv_cache import KvCache, finite
from sienn_ray.inference.model.paged_attention import PagedStep

# A call for one request more costs as much as reading about so many masked keys and values.
_MAX_MASKED_SLOTS = 256


@dataclass(frozen=True)
class RowSpan:
    """The tokens of one request in a step.

    Args:
        start: First of the tokens in the step.
        num_tokens: Number of tokens.
        context: Slots of the request's tokens before these: (first slot, slots) for each run.
        own: Slots of these tokens, likewise.
    """

    start: int
    num_tokens: int
    context: tuple[tuple[int, int], ...]
    own: tuple[tuple[int, int], ...]

    @property
    def num_before(self) -> int:
        """Number of tokens before these."""
        return sum(length for _, length in self.context)


@dataclass(frozen=True)
class SingleRows:
    """One or two requests that decode, the keys of each in one piece.

    Any two places are evenly spaced, so that one strided view of the cache has both, and one call attends for both.

    Args:
        tokens: The requests' tokens in the step.
        start: First slot of the first request.
        stride: Slots from there to the first slot of the second request.
        length: Slots of the longest request.
        mask: (requests, 1, 1, slots), which masks the slots behind the shorter request; None masks none.
    """

    tokens: Sequence[int]
    start: int
    stride: int
    length: int
    mask: torch.Tensor | None

    def of(self, cached: torch.Tensor) -> torch.Tensor:
        """View the requests' part of a layer's keys or values: (requests, key heads, slots, head size)."""
        _, num_heads, num_slots, size = cached.shape
        shape = (len(self.tokens), num_heads, self.length, size)
        return cached.as_strided(shape, (self.stride * size, num_slots * size, size, 1), self.start * size)


@dataclass(frozen=True)
class DividedRows:
    """The requests of a step by their way of attention.

    Args:
        single: Requests that decode and whose keys lie in one piece, as most do.
        tokens: (single requests,) tokens of those, in the order of `single`.
        places: (single requests,) positions in that order, by token.
        plain: Other requests with full causal attention.
        windowed: Requests that reach beyond the sliding window.
    """

    single: Sequence[SingleRows]
    tokens: torch.Tensor
    places: torch.Tensor
    plain: Sequence[RowSpan]
    windowed: Sequence[RowSpan]

    @property
    def are_all_single(self) -> bool:
        """True where there are only `single` requests."""
        return not self.plain and not self.windowed


class InPlaceStep(PagedStep):
    """A step whose requests' keys and values are read in place; see `PagedStep`.

    Args:
        cache: Keys and values.
        slots: (tokens,) each token's slot in the cache.
        rows: The requests.
    """

    def __init__(self, cache: KvCache, slots: torch.Tensor, rows: Sequence[RowSpan]) -> None:
        super().__init__()
        self.cache = cache
        self.slots = slots
        self.rows = rows
        self._divided: dict[int | None, DividedRows] = {}

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
        keys, values = self.cache.write(layer, self.slots, key.transpose(0, 1)[None], value.transpose(0, 1)[None])
        grouped = finite(grouped)  # PyTorch's kernel takes NaN scores for masked ones
        rows = self.divided(window if softcap is None else 0)  # no row is plain with bounded scores
        single = _single(grouped, keys, values, rows, scale) if rows.single else None
        if single is not None and rows.are_all_single:
            return single.index_select(0, rows.places)
        output = value.new_empty((*grouped.shape[:3], value.shape[2]))
        if single is not None:
            output.index_copy_(0, rows.tokens, single)
        for row in rows.plain:
            here = slice(row.start, row.start + row.num_tokens)
            result = _plain(grouped[here].permute(1, 2, 0, 3), keys, values, row, scale)
            output[here] = result.permute(2, 0, 1, 3)
        for row in rows.windowed:
            here = slice(row.start, row.start + row.num_tokens)
            of_row = grouped[here].permute(1, 2, 0, 3)
            result = _general(of_row, keys[0], values[0], row, scale, window, softcap)
            output[here] = result.permute(2, 0, 1, 3)
        return output

    def divided(self, window: int | None) -> DividedRows:
        """Divide the requests for layers with a sliding window of this size; computed once for all such layers."""
        if window not in self._divided:
            self._divided[window] = self._divide(window)
        return self._divided[window]

    def _divide(self, window: int | None) -> DividedRows:
        single: list[tuple[int, int, int]] = []
        plain: list[RowSpan] = []
        windowed: list[RowSpan] = []
        for row in self.rows:
            parts = _neighbours(row.context + row.own) if row.num_tokens == 1 else []
            if window is not None and row.num_before + row.num_tokens > window:
                windowed.append(row)
            elif len(parts) == 1:
                single.append((row.start, *parts[0]))
            else:
                plain.append(row)
        groups = _paired(single, self.cache.num_slots, self.cache.mask_like)
        tokens = torch.tensor([token for group in groups for token in group.tokens], dtype=torch.long)
        places = torch.argsort(tokens)
        device = self.slots.device
        return DividedRows(groups, tokens.to(device), places.to(device), plain, windowed)


def _paired(rows: Sequence[tuple[int, int, int]], num_slots: int, mask_like: torch.Tensor) -> list[SingleRows]:
    """Pair requests, (token, first slot, slots) each, of about the same length where that saves time."""
    found: list[SingleRows] = []
    left = sorted(rows, key=lambda row: row[2])
    while left:
        row = left.pop()
        length = row[2]
        fits = left and length - left[-1][2] <= _MAX_MASKED_SLOTS and left[-1][1] + length <= num_slots
        if not fits:
            found.append(SingleRows((row[0],), row[1], 0, length, None))
            continue
        first, second = sorted((row, left.pop()), key=lambda each: each[1])
        mask = None
        if first[2] != second[2]:
            mask = mask_like.new_zeros((2, 1, 1, length))
            for number, (_, _, own) in enumerate((first, second)):
                mask[number, :, :, own:] = float("-inf")
        found.append(SingleRows((first[0], second[0]), first[1], second[1] - first[1], length, mask))
    return found


def _single(
    grouped: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, rows: DividedRows, scale: float
) -> torch.Tensor:
    """Attend for requests that decode, over all of their own keys, in the order of `rows`."""
    queries = torch.split(grouped.index_select(0, rows.tokens), [len(group.tokens) for group in rows.single])
    found = [
        _kernel(query, group.of(keys), group.of(values), scale, is_causal=False, mask=group.mask)[0]
        for query, group in zip(queries, rows.single, strict=True)
    ]
    return torch.cat(found)


def _plain(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, row: RowSpan, scale: float) -> torch.Tensor:
    """Attend for one request, causally: (key heads, group, tokens, head size), the cache read in place."""
    if row.num_tokens == 1:
        # All of the context and the token itself, none of it masked.
        queries = query.squeeze(2).unsqueeze(0)  # (1, key heads, group, size)
        parts = _neighbours(row.context + row.own)
        return _joined([_attend(queries, keys, values, part, scale) for part in parts])[0].unsqueeze(2)
    found = []
    # All tokens attend to each earlier part: (1, key heads, group * tokens, size)
    flat = query.reshape(1, query.shape[0], -1, query.shape[3])
    for part in row.context:
        out, weight = _attend(flat, keys, values, part, scale)
        found.append((out.view(*query.shape[:3], -1), weight.view(query.shape[:3])))
    key, value = (_gathered(tensor[0], row.own).expand(-1, query.shape[1], -1, -1) for tensor in (keys, values))
    found.append(_kernel(query, key, value, scale, is_causal=True))
    return _joined(found)


def _neighbours(parts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merge parts that lie side by side."""
    found: list[tuple[int, int]] = []
    for start, length in parts:
        if found and sum(found[-1]) == start:
            found[-1] = (found[-1][0], found[-1][1] + length)
        else:
            found.append((start, length))
    return found


def _gathered(tensor: torch.Tensor, parts: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Gather parts of the cache to (key heads, 1, tokens, size), copied only where they lie apart."""
    pieces = [tensor[:, start : start + length] for start, length in parts]
    return (pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)).unsqueeze(1)


def _attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, part: tuple[int, int], scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend to all of one part of the cache; `query` is (1, key heads, queries, size)."""
    return _kernel(query, keys.narrow(2, *part), values.narrow(2, *part), scale, is_causal=False)


def _kernel(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    *,
    is_causal: bool,
    mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention, and the log-sum-exp of its scores, (..., queries) float32."""
    out, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, is_causal, attn_mask=mask, scale=scale
    )
    return out, weight


def _joined(parts: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Merge the attention of all parts by their log-sum-exp, as if all were attended to at once."""
    if len(parts) == 1:
        return parts[0][0]
    weights = torch.stack([weight for _, weight in parts]).softmax(dim=0)
    mixed = torch.stack([out.float() for out, _ in parts]).mul_(weights.unsqueeze(-1)).sum(dim=0)
    return mixed.to(parts[0][0].dtype)


def _general(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    row: RowSpan,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """Attend for one request with a sliding window or soft-capped scores, on a copy of its keys and values."""
    parts = _neighbours(row.context + row.own)
    key, value = _gathered(keys, parts), _gathered(values, parts)
    positions = torch.arange(key.shape[2], device=key.device)
    distance = positions[row.num_before :, None] - positions[None, :]
    is_seen = (distance >= 0) & (distance < (window if window is not None else key.shape[2]))
    if softcap is None:
        shape = (-1, query.shape[1], -1, -1)
        return F.scaled_dot_product_attention(
            query, key.expand(shape), value.expand(shape), attn_mask=is_seen, scale=scale
        )
    scores = torch.tanh((query @ key.transpose(2, 3)) * scale / softcap) * softcap
    weights = scores.masked_fill(~is_seen, float("-inf")).softmax(dim=-1, dtype=torch.float32)
    return weights.to(query.dtype) @ value
