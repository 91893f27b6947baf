"""Decoding steps of the engine's model runner, and its sampler, on the fake device, and what each asks of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from sienn_ray.inference.engine import SamplingParams
from sienn_ray.inference.model.lora_weights import LayerLora, LoraWeights
from sienn_ray.inference.model.runner import ModelRunner, StepRow
from sienn_ray.inference.sampling.sampler import RowSampler, sample
from tests.support.fake_cuda import CUDA, Counts, fake_cuda, random_model
from tests.unit.gpu.shapes import Shape

_BLOCK_TOKENS = 16
_CACHE_BYTES = 4 << 30


@dataclass(frozen=True)
class Batch:
    """Requests that decode together.

    Args:
        num_requests: How many.
        num_adapters: Adapters that they share, besides none at all, which every ninth has.
        prompt_tokens: Tokens of a prompt that is prefilled beside them; 0 is none.
        num_tokens: Tokens of each so far.
        is_scattered: Whether the blocks of a request lie apart.
        with_dora: Whether every other adapter has DoRA's gains.
    """

    num_requests: int
    num_adapters: int = 0
    prompt_tokens: int = 0
    num_tokens: int = 200
    is_scattered: bool = False
    with_dora: bool = False

    def rows(self) -> list[StepRow]:
        num_blocks = -(-self.num_tokens // _BLOCK_TOKENS)
        step = self.num_requests if self.is_scattered else 1
        found: list[StepRow] = []
        for number in range(self.num_requests):
            first = number if self.is_scattered else number * num_blocks
            blocks = [first + step * index for index in range(num_blocks)]
            is_plain = self.num_adapters == 0 or number % 9 == 8
            adapter = None if is_plain else f"adapter-{number % self.num_adapters}"
            tokens = [number + 1] * self.num_tokens
            found.append(StepRow(tokens, self.num_tokens - 1, blocks, adapter, True))
        if self.prompt_tokens:
            first = self.num_requests * num_blocks
            blocks = list(range(first, first + -(-self.prompt_tokens // _BLOCK_TOKENS)))
            found.append(StepRow([5] * self.prompt_tokens, 0, blocks, None, True))
        return found

    def adapters(self, runner: ModelRunner) -> dict[str, LoraWeights]:
        """Adapters of ranks 8 and 16 on all linear layers."""
        return {f"adapter-{number}": self._adapter(runner, number) for number in range(self.num_adapters)}

    def _adapter(self, runner: ModelRunner, number: int) -> LoraWeights:
        r = 8 if number % 2 else 16
        has_gain = self.with_dora and number % 2 == 0

        def layer(out_size: int, in_size: int) -> LayerLora:
            gain = torch.ones(out_size, dtype=runner.dtype) if has_gain else None
            return LayerLora(
                torch.zeros((r, in_size), dtype=runner.dtype), torch.zeros((out_size, r), dtype=runner.dtype), gain
            )

        return LoraWeights({name: layer(*each.shape) for name, each in runner.lora.layers.items()}, r)


def decoding_steps(shape: Shape, num_layers: int, batches: Mapping[str, Batch]) -> dict[str, Counts]:
    """Counts of a step of each batch, behind one with the same adapters."""
    with fake_cuda() as counts:
        runner = ModelRunner(random_model(shape(num_layers), CUDA), _CACHE_BYTES, _BLOCK_TOKENS)
        assert runner.has_cache
        return {name: _counted(runner, batch, counts) for name, batch in batches.items()}


def _counted(runner: ModelRunner, batch: Batch, counts: Counts) -> Counts:
    adapters = batch.adapters(runner)
    for _ in range(2):
        counts.clear()
        runner.step(batch.rows(), adapters)
    return copy.deepcopy(counts)


def sampling_step(num_rows: int, vocab_size: int, params: SamplingParams) -> Counts:
    """Counts of the choice of the next tokens. No number is read, as no logits are: then no row has to be sorted."""
    with fake_cuda(number=math.nan) as counts:
        logits = torch.empty(num_rows, vocab_size, device=CUDA)
        samplers = [RowSampler([1, 2, 3], params, vocab_size) for _ in range(num_rows)]
        counts.clear()
        sample(logits, samplers)
    return counts
