"""Tokens of a micro batch, by what is free on a GPU, and by rows on a CPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sienn_ray.training.micro_batch_limits import MicroBatchLimits
from sienn_ray.training.recomputation import Recomputation, activation_bytes
from sienn_ray.training.token_budget import TokenBudget, budget_of_memory, budget_of_rows
from tests.unit.training.training import config_of

GIB = 1024**3
LLAMA_8B = SimpleNamespace(hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32, vocab_size=128_256)
SMALL = SimpleNamespace(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, vocab_size=49_152)


def budget(free_gib: float, shape: object = LLAMA_8B, *, row_tokens: int = 512, **options: Any) -> TokenBudget:
    return budget_of_memory(
        config_of(**options),
        shape,
        free_bytes=int(free_gib * GIB),
        num_learned=42_000_000,
        row_tokens=row_tokens,
        dtype=torch.bfloat16,
    )


def test_a_large_gpu_takes_thousands_of_tokens_and_a_chunk_of_the_head_that_is_worth_reading_it() -> None:
    found = budget(64)
    assert found.limits.max_examples is None
    assert 4096 < (found.limits.max_tokens or 0) < 16_384
    assert found.recomputation is Recomputation.NONE
    assert 2048 <= (found.head_chunk_tokens or 0) <= 4096


@pytest.mark.parametrize("free_gib", [8, 16, 64, 130])
def test_activations_leave_room_for_the_rest(free_gib: float) -> None:
    found = budget(free_gib)
    assert activation_bytes(LLAMA_8B, found.limits.max_tokens or 0, torch.bfloat16) < 0.75 * free_gib * GIB


def test_more_tokens_than_products_gain_from_are_not_taken() -> None:
    assert budget(130, SMALL).limits.max_tokens == 32_768


def test_as_little_is_computed_again_as_the_longest_row_has_room_for() -> None:
    assert budget(8, row_tokens=512).recomputation is Recomputation.NONE
    assert budget(8, row_tokens=1024).recomputation is Recomputation.SELECTIVE
    assert budget(8, row_tokens=8192).recomputation is Recomputation.FULL
    assert budget(8, row_tokens=1024, torch_compile=True).recomputation is Recomputation.FULL
    for row_tokens in (512, 1024, 8192):
        assert (budget(8, row_tokens=row_tokens).limits.max_tokens or 0) >= row_tokens


@pytest.mark.parametrize("name", ["attention_dropout", "attn_pdrop"])
def test_attention_that_drops_is_not_kept_beside_what_is_computed_again(name: str) -> None:
    """A kept result draws no numbers again, so that all dropout behind it would draw others than before."""

    def level(rate: float | None) -> Recomputation:
        return budget(8, SimpleNamespace(**vars(LLAMA_8B), **{name: rate}), row_tokens=1024).recomputation

    assert [level(rate) for rate in (None, 0.0, 0.1)] == [
        Recomputation.SELECTIVE,
        Recomputation.SELECTIVE,
        Recomputation.FULL,
    ]


@pytest.mark.parametrize(("wanted", "level"), [(True, Recomputation.FULL), (False, Recomputation.NONE)])
def test_what_the_configuration_says_of_it_goes_before(wanted: bool, level: Recomputation) -> None:
    assert budget(8, row_tokens=8192, gradient_checkpointing=wanted).recomputation is level
    assert budget(64, gradient_checkpointing=wanted).recomputation is level


def test_tokens_that_are_asked_for_are_taken() -> None:
    assert budget(64, micro_batch_tokens=1024).limits == MicroBatchLimits(max_tokens=1024)
    # More than there is room for, unless activations are computed again.
    assert budget(8, micro_batch_tokens=8192) == TokenBudget(
        MicroBatchLimits(max_tokens=8192), Recomputation.FULL, budget(8).head_chunk_tokens
    )


def test_a_full_gpu_takes_a_row_at_a_time() -> None:
    found = budget(0)
    assert found == TokenBudget(MicroBatchLimits(max_tokens=1), Recomputation.FULL, head_chunk_tokens=128)


def test_a_cpu_takes_rows_unless_it_is_told_tokens() -> None:
    options: dict[str, Any] = {"max_rows": 4, "row_tokens": 512, "dtype": torch.float32}
    assert budget_of_rows(config_of(), SMALL, **options).limits == MicroBatchLimits(max_examples=4)
    assert budget_of_rows(config_of(), SMALL, **options).head_chunk_tokens is None
    told = budget_of_rows(config_of(micro_batch_tokens=300), SMALL, **options)
    assert told.limits == MicroBatchLimits(max_tokens=300)
