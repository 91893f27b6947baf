from __future__ import annotations

import logging

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import PreTrainedModel

from sienn_ray.training.compilation import compile_layers
from sienn_ray.training.loss import varlen_attention
from sienn_ray.training.loss.packing import pack
from sienn_ray.training.loss.scoring import body
from tests.support.architectures import random_model
from tests.support.varlen import plain_varlen

CPU = torch.device("cpu")


def states(model: PreTrainedModel, num_rows: int, num_tokens: int, begin: list[int]) -> torch.Tensor:
    rows = [[*begin, 5 + number, *range(9, 9 + num_tokens + number)] for number in range(num_rows)]
    batch = pack([(ids, ids) for ids in rows], attention_inputs=varlen_attention.inputs_of)
    found: torch.Tensor = body(model)(**batch.inputs, use_cache=False).last_hidden_state
    return found


def test_packs_of_any_number_of_rows_are_one_graph() -> None:
    """And of any lengths; rows that share a beginning are another one."""
    torch._dynamo.reset()
    model = random_model("llama").train()
    model.requires_grad_(False)
    varlen_attention.register(plain_varlen)
    model.set_attn_implementation(varlen_attention.NAME)
    expected = states(model, 3, 7, [])
    counter = CompileCounterWithBackend("eager")
    assert compile_layers(model, backend=counter, compilers=["sh"])
    for num_rows, num_tokens in ((2, 5), (4, 11), (7, 2)):
        states(model, num_rows, num_tokens, [])
    torch.testing.assert_close(states(model, 3, 7, []), expected)
    assert counter.frame_count == 1
    for num_rows, num_tokens in ((2, 5), (4, 11)):
        states(model, num_rows, num_tokens, list(range(40, 60)))
    assert counter.frame_count == 2


def test_without_a_c_compiler_layers_stay_as_they_are(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)
    model = random_model("llama")
    with caplog.at_level(logging.WARNING):
        assert not compile_layers(model, compilers=["no-such-compiler"])
    assert "install gcc or" in caplog.text
    assert all(module._compiled_call_impl is None for module in model.modules())
