"""The forward pass of a step: tokens of many requests in, logits of those that want them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from sienn_ray.inference.model.decode_graphs import DecodeGraphs, GraphKey
from sienn_ray.inference.model.lora_stack import LoraStack
from sienn_ray.inference.model.lora_weights import LoraWeights
from sienn_ray.inference.model.paged_attention import PagedStep
from sienn_ray.inference.model.paged_ways import GatheredWays, PagedWays, own_runs
from sienn_ray.inference.model.step_rows import StepRow
from sienn_ray.inference.transfers import StepNumbers


class StepForward:
    """Computes steps of a model with batched adapters and paged attention.

    Args:
        model: The base model, whose attention is `paged_attention.NAME`.
        lora: Its adapters.
        block_tokens: Tokens in a KV block.
        ways: How keys and values are kept, and attended to.
        graphs: Captured decoding steps; None captures none.
    """

    def __init__(
        self, model: Any, lora: LoraStack, block_tokens: int, ways: PagedWays, graphs: DecodeGraphs | None = None
    ) -> None:
        self._graphs = graphs
        self._model = model
        self._lora = lora
        self._block_tokens = block_tokens
        self._ways = ways

    def __call__(self, rows: Sequence[StepRow], adapters: Mapping[str, LoraWeights]) -> torch.Tensor:
        """Compute the tokens of all rows in one forward pass; see `ModelRunner.step`."""
        graphed = self._graphed(rows, adapters)
        return self._eager(rows, adapters) if graphed is None else graphed

    def _graphed(self, rows: Sequence[StepRow], adapters: Mapping[str, LoraWeights]) -> torch.Tensor | None:
        """Compute a decoding step by a captured graph; None where that isn't possible."""
        if self._graphs is None or self._graphs.is_off or not isinstance(self._ways, GatheredWays):
            return None
        if not all(row.num_new == 1 and row.wants_logits for row in rows):
            return None
        filled = self._ways.filled_up(rows)
        if filled is None:
            return None
        numbers = StepNumbers(self._model.device)
        names = [row.adapter for row in rows] + [None] * (len(filled.ids) - len(rows))
        sizes = self._lora.use_padded(names, adapters, numbers)
        at = numbers.add(filled.slots), numbers.add(filled.ids), numbers.add(filled.positions)
        step = self._ways.plan_filled_up(filled, at[0], at[2], numbers)
        key = GraphKey(len(filled.ids), filled.shape, sizes, 0 if sizes is None else self._lora.version)
        # All tokens are kept: 0 is transformers' way to say so.
        logits = self._graphs.compute(key, numbers, lambda: self._logits(numbers, at[1], at[2], step, 0))
        return logits[: len(rows)]

    def _eager(self, rows: Sequence[StepRow], adapters: Mapping[str, LoraWeights]) -> torch.Tensor:
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
        return self._logits(numbers, at[1], at[2], step, numbers[at[3]])

    def _logits(
        self,
        numbers: StepNumbers,
        ids_at: int,
        positions_at: int,
        step: Callable[[], PagedStep],
        kept: torch.Tensor | int,
    ) -> torch.Tensor:
        """Compute the logits of the kept tokens, from numbers that are on the device."""
        self._lora.begin()
        logits: torch.Tensor = self._model(
            input_ids=numbers[ids_at].unsqueeze(0),
            position_ids=numbers[positions_at].unsqueeze(0),
            use_cache=False,
            paged=step(),
            logits_to_keep=kept,
        ).logits[0]
        return logits.float()
