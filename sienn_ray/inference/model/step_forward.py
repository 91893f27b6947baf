"""The forward pass of a step: tokens of many requests in, logits of those that want them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from sienn_ray.inference.model.gathered_attention import GatheredStep, RowBlocks, groups_of
from sienn_ray.inference.model.in_place_attention import InPlaceStep, RowSpan
from sienn_ray.inference.model.kv_blocks import runs
from sienn_ray.inference.model.kv_cache import BlockKvCache, KvCache
from sienn_ray.inference.model.lora_stack import LoraStack
from sienn_ray.inference.model.lora_weights import LoraWeights
from sienn_ray.inference.model.paged_attention import PagedStep
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
    """

    def __init__(self, num_blocks: int, block_tokens: int) -> None:
        self.num_blocks = num_blocks
        self._block_tokens = block_tokens
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
        return lambda: GatheredStep(self._cache, numbers[slots_at], numbers[positions_at], groups, numbers)


def own_runs(row: StepRow, block_tokens: int) -> tuple[tuple[int, int], ...]:
    """Return the slots of a row's new tokens: (first slot, slots) for each run of neighbouring blocks."""
    skipped = row.num_before // block_tokens
    inside = row.num_before - skipped * block_tokens
    found = runs(row.blocks[skipped:], block_tokens, inside + row.num_new)
    start, length = found[0]
    return ((start + inside, length - inside), *found[1:])


class StepForward:
    """Computes steps of a model with batched adapters and paged attention.

    Args:
        model: The base model, whose attention is `paged_attention.NAME`.
        lora: Its adapters.
        block_tokens: Tokens in a KV block.
        ways: How keys and values are kept, and attended to.
    """

    def __init__(self, model: Any, lora: LoraStack, block_tokens: int, ways: PagedWays) -> None:
        self._model = model
        self._lora = lora
        self._block_tokens = block_tokens
        self._ways = ways

    def __call__(self, rows: Sequence[StepRow], adapters: Mapping[str, LoraWeights]) -> torch.Tensor:
        """Compute the tokens of all rows in one forward pass; see `ModelRunner.step`."""
        numbers = StepNumbers(self._model.device)
        order = self._lora.use([(row.adapter, row.num_new) for row in rows], adapters, numbers)
        ordered = [rows[number] for number in order]
        ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        last: dict[int, int] = {}
        for number, row in zip(order, ordered, strict=True):
            ids += row.tokens[row.num_before :]
            positions += range(row.num_before, len(row.tokens))
            for start, length in own_runs(row, self._block_tokens):
                slots += range(start, start + length)
            last[number] = len(ids) - 1
        kept = [last[number] for number, row in enumerate(rows) if row.wants_logits]
        at = numbers.add(slots), numbers.add(ids), numbers.add(positions), numbers.add(kept)
        step = self._ways.plan(ordered, at[0], at[2], numbers)
        numbers.send()
        self._lora.begin()
        logits: torch.Tensor = self._model(
            input_ids=numbers[at[1]].unsqueeze(0),
            position_ids=numbers[at[2]].unsqueeze(0),
            use_cache=False,
            paged=step(),
            logits_to_keep=numbers[at[3]],
        ).logits[0]
        return logits.float()
