"""Steps of the engine's model runner, and its sampler, on the fake device, and what each asks of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sienn_ray.inference.engine import SamplingParams
from sienn_ray.inference.model.lora_weights import LayerLora, LoraWeights
from sienn_ray.inference.model.runner import ModelRunner, StepRow
from sienn_ray.inference.sampling.sampler import RowSampler, sample
from tests.support.captures import no_capture
from tests.support.fake_cuda import CUDA, Counts, fake_cuda, random_model
from tests.unit.gpu.shapes import Shape

_BLOCK_TOKENS = 16
_CACHE_BYTES = 4 << 30
# All tokens are candidates, so what is read, which is all alike, sends nobody back to the device.
_CANDIDATES = 64


@dataclass(frozen=True)
class Batch:
    """Requests that decode together.

    Args:
        num_requests: How many.
        num_adapters: Adapters that they share, besides none at all, which every ninth has.
        prompt_tokens: Tokens of a prompt that is prefilled beside them, with the first adapter; 0 is none.
        num_tokens: Tokens of each so far.
        num_long: Requests of these that have eight times as many tokens.
        with_dora: Whether every other adapter has DoRA's gains.
    """

    num_requests: int
    num_adapters: int = 0
    prompt_tokens: int = 0
    num_tokens: int = 200
    num_long: int = 0
    with_dora: bool = False

    def rows(self) -> list[StepRow]:
        found: list[StepRow] = []
        end = 0
        for number in range(self.num_requests):
            num_tokens = self.num_tokens * (8 if number < self.num_long else 1)
            blocks = range(end, end + -(-num_tokens // _BLOCK_TOKENS))
            is_plain = self.num_adapters == 0 or number % 9 == 8
            adapter = None if is_plain else f"adapter-{number % self.num_adapters}"
            found.append(StepRow([number + 1] * num_tokens, num_tokens - 1, blocks, adapter, True))
            end = blocks.stop
        if self.prompt_tokens:
            blocks = range(end, end + -(-self.prompt_tokens // _BLOCK_TOKENS))
            adapter = "adapter-0" if self.num_adapters else None
            found.append(StepRow([5] * self.prompt_tokens, 0, blocks, adapter, True))
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

        layers = {name: layer(*each.shape) for name, each in runner.lora.layers.items()}
        return runner.lora.readied(LoraWeights(layers, r))


def decoding_step(shape: Shape, num_layers: int, batch: Batch, *, is_graphed: bool) -> Counts:
    """Counts of a step of a batch, behind one with the same adapters.

    Args:
        shape: Of the base model.
        num_layers: Its layers.
        batch: The requests.
        is_graphed: Whether the step is the one that a graph replays, filled up as that is.
    """
    with fake_cuda() as counts:
        capture = no_capture if is_graphed else None
        runner = ModelRunner(random_model(shape(num_layers), CUDA), _CACHE_BYTES, _BLOCK_TOKENS, capture=capture)
        assert runner.has_cache
        adapters = batch.adapters(runner)
        for _ in range(2):
            counts.clear()
            runner.step(batch.rows(), adapters)
        if is_graphed:
            assert runner.graphs is not None
            assert runner.graphs.num_replays == 1
        return copy.deepcopy(counts)


def sampling_step(params: Sequence[SamplingParams]) -> Counts:
    """Counts of the choice of the next tokens."""
    with fake_cuda(number=1.0) as counts:
        logits = torch.empty(len(params), _CANDIDATES, device=CUDA)
        samplers = [RowSampler([1, 2, 3], each, _CANDIDATES) for each in params]
        counts.clear()
        sample(logits, samplers)
        return copy.deepcopy(counts)
