"""Steps on a GPU: launches, copies and waits that are counted, and devices that are told, without one.

The shapes are those of an 8-billion Llama, with one or two layers and a small vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig

from sienn_ray.inference.model.decode_graphs import Capture
from sienn_ray.inference.model.lora_weights import LayerLora, LoraWeights, read_lora
from sienn_ray.inference.model.runner import ModelRunner, StepRow
from tests.support.architectures import random_model as small_model
from tests.support.captures import no_capture
from tests.support.fake_cuda import CUDA, Counts, fake_cuda, random_model
from tests.support.largest_tensor import Largest

BLOCK_TOKENS, CONTEXT_TOKENS = 32, 256
#: Launches of a decoding layer, without adapters and with any.
LAYER_LAUNCHES, LAYER_LAUNCHES_WITH_LORA = 46, 60


def runner_of(num_layers: int, capture: Capture | None = None, **options: Any) -> ModelRunner:
    config = LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=num_layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=1024,
    )
    return ModelRunner(random_model(config, CUDA), 1 << 30, BLOCK_TOKENS, capture=capture, **options)


def adapters_of(runner: ModelRunner, num: int, *, has_gains: bool = False) -> dict[str, LoraWeights]:
    def layer(shape: tuple[int, int]) -> LayerLora:
        gain = torch.ones(shape[0], dtype=torch.bfloat16) if has_gains else None
        a, b = torch.zeros((16, shape[1])), torch.zeros((shape[0], 16))
        return LayerLora(a.bfloat16(), b.bfloat16(), gain)

    layers = {name: layer(each.shape) for name, each in runner.lora.layers.items()}
    return {str(number): runner.lora.readied(LoraWeights(layers, 16)) for number in range(num)}


def rows_of(num_new: Sequence[int], num_adapters: int) -> list[StepRow]:
    num_blocks = CONTEXT_TOKENS // BLOCK_TOKENS
    return [
        StepRow(
            [5] * CONTEXT_TOKENS,
            CONTEXT_TOKENS - new,
            list(range(num_blocks * number, num_blocks * (number + 1))),
            str(number % num_adapters) if num_adapters else None,
            wants_logits=True,
        )
        for number, new in enumerate(num_new)
    ]


def counted(num_layers: int, num_new: Sequence[int], num_adapters: int) -> Counts:
    """Counts of a step whose adapters are in their places."""
    with fake_cuda() as counts:
        runner = runner_of(num_layers)
        assert runner.has_cache
        adapters, rows = adapters_of(runner, num_adapters), rows_of(num_new, num_adapters)
        runner.step(rows, adapters)
        counts.clear()
        runner.step(rows, adapters)
    return counts


def layer_launches(num_new: Sequence[int], num_adapters: int) -> int:
    return counted(2, num_new, num_adapters).num_launches - counted(1, num_new, num_adapters).num_launches


@pytest.mark.parametrize(("num_requests", "num_adapters"), [(1, 0), (32, 0), (1, 1), (32, 32)])
def test_launches_of_a_decoding_layer_grow_with_neither_requests_nor_adapters(
    num_requests: int, num_adapters: int
) -> None:
    most = LAYER_LAUNCHES_WITH_LORA if num_adapters else LAYER_LAUNCHES
    assert layer_launches([1] * num_requests, num_adapters) <= most


def test_a_layer_beside_prompts_launches_little_more() -> None:
    assert layer_launches([1] * 24 + [17] * 8, 0) <= LAYER_LAUNCHES + 10


@pytest.mark.parametrize("num_new", [1, 2])
def test_requests_that_share_a_long_beginning_gather_no_more_than_they_may(num_new: int) -> None:
    gathered_bytes, num_tokens = 1 << 26, 8192
    shared = list(range(num_tokens // BLOCK_TOKENS))
    rows = [StepRow([5] * num_tokens, num_tokens - num_new, shared, None, wants_logits=True)] * 64
    with fake_cuda():
        runner = runner_of(1, gathered_bytes=gathered_bytes)
        with Largest() as largest:  # type: ignore[no-untyped-call]
            runner.step(rows, {})
    # Without a bound, keys alone are 1 GiB.
    assert largest.num_bytes <= gathered_bytes


@pytest.mark.parametrize("num_new", [[1] * 32, [1] * 24 + [17] * 8])
def test_what_a_step_needs_comes_in_one_copy_and_nobody_waits(num_new: list[int]) -> None:
    counts = counted(2, num_new, 8)
    assert dict(counts.uploads) == {"pinned": 1}
    assert counts.num_waits == 0


def test_a_step_that_is_replayed_copies_its_numbers_alone() -> None:
    with fake_cuda() as counts:
        runner = runner_of(2, no_capture)
        adapters, rows = adapters_of(runner, 5, has_gains=True), rows_of([1] * 5, 5)
        runner.step(rows, adapters)
        counts.clear()
        runner.step(rows, adapters)
    assert dict(counts.uploads) == {"pinned": 1}
    assert counts.num_waits == 0


@pytest.mark.parametrize(("has_gains", "num_copies"), [(False, 1), (True, 2)])
def test_an_adapter_comes_in_one_copy_for_all_layers(has_gains: bool, num_copies: int) -> None:
    with fake_cuda() as counts:
        runner = runner_of(2)
        adapters, rows = adapters_of(runner, 2, has_gains=has_gains), rows_of([1, 1], 2)
        runner.step(rows, adapters)
        runner.lora.forget("1")
        counts.clear()
        runner.step(rows, adapters)
    assert dict(counts.uploads) == {"pinned": 1 + num_copies}
    assert counts.num_waits == 0


@pytest.mark.parametrize("options", [{"use_dora": True}, {"rank_pattern": {"q_proj": 3}}])
def test_adapters_of_every_kind_are_read_and_applied_beside_each_other(options: dict[str, Any], tmp_path: Path) -> None:
    config = LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM", r=8, lora_alpha=16, **options)
    model = get_peft_model(small_model("llama"), config)
    model.peft_config["default"].base_model_name_or_path = "sienn-tests/base"
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    # Norms aren't zero then; nor are differences of logits, so the cache isn't used here.
    with fake_cuda(number=1.0):
        runner = ModelRunner(small_model("llama").to(CUDA, torch.bfloat16), 1 << 20, 4, for_gpu=True)
        read = read_lora(tmp_path, "sienn-tests/base", runner.lora.layers, runner.dtype)
        assert not any(layer.b.is_cuda or layer.b.requires_grad for layer in read.layers.values())
        rows = [StepRow([5, 6, 7], 0, [0], "own", True), StepRow([5, 6, 7], 0, [1], None, True)]
        assert runner.step(rows, {"own": runner.lora.readied(read)}).device == CUDA
