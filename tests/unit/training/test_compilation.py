from __future__ import annotations

import logging

import pytest
import torch
from peft import PeftModel
from torch._dynamo.testing import CompileCounterWithBackend
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from sienn_ray.training.adapter.adapters import add_adapter, copy_each_step, trainable
from sienn_ray.training.compilation import compile_layers
from sienn_ray.training.loss import varlen_attention
from sienn_ray.training.loss.packing import pack
from sienn_ray.training.loss.scoring import body
from sienn_ray.training.recomputation import Recomputation, recompute
from tests.support.architectures import random_model
from tests.support.varlen import plain_varlen
from tests.unit.training.adapter.test_fused_lora import config_of, with_noise

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


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.* should not be instantiated")  # PyTorch's tracer does
def test_an_adapted_layer_is_one_graph_in_both_passes() -> None:
    """With the copies of an adapter that a GPU computes with, and the gradients of before."""
    torch._dynamo.reset()
    adapter = with_noise(add_adapter(random_model("llama", torch.bfloat16), config_of())).train()
    base = adapter.get_base_model()
    copy_each_step(adapter, torch.optim.AdamW(trainable(adapter)))
    varlen_attention.register(plain_varlen)
    base.set_attn_implementation(varlen_attention.NAME)
    packs = [(num_rows, begin) for begin in ([], list(range(40, 60))) for num_rows in (2, 4, 7)]
    expected = [gradients(adapter, *each) for each in packs]
    counter = CompileCounterWithBackend("eager")
    torch._dynamo.utils.counters.clear()
    assert compile_layers(base, backend=counter, compilers=["sh"])
    found = [gradients(adapter, *each) for each in packs]
    assert counter.frame_count == 2  # rows that share a beginning are the other one
    assert not torch._dynamo.utils.counters["graph_break"]
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours - theirs).norm()) < 0.02 * float(theirs.norm())


def gradients(adapter: PeftModel, num_rows: int, begin: list[int]) -> torch.Tensor:
    adapter.zero_grad()
    found = states(adapter.get_base_model(), num_rows, 5, begin).float()
    (found * torch.linspace(-1, 1, found.numel()).view_as(found)).sum().backward()  # type: ignore[no-untyped-call]
    return torch.cat([parameter.grad.flatten() for parameter in trainable(adapter) if parameter.grad is not None])


def test_layers_that_are_shared_out_are_compiled() -> None:
    """FSDP2 makes a subclass of a layer's class, under another name."""
    model = random_model("llama")
    for layer in model.get_decoder().layers:
        layer.__class__ = type(f"FSDP{type(layer).__name__}", (FSDPModule, type(layer)), {})
    assert compile_layers(model, backend="eager", compilers=["sh"])
    assert all(layer._compiled_call_impl is not None for layer in model.get_decoder().layers)


def test_a_model_without_known_layers_is_not_compiled(caplog: pytest.LogCaptureFixture) -> None:
    model = random_model("llama")
    model._no_split_modules = None
    with caplog.at_level(logging.WARNING):
        assert not compile_layers(model, backend="eager", compilers=["sh"])
    assert "doesn't name its layers" in caplog.text


def test_inputs_are_asked_for_a_gradient_once() -> None:
    model = random_model("llama")
    recompute(model, Recomputation.FULL)
    assert compile_layers(model, backend="eager", compilers=["sh"])
    assert len(model.get_input_embeddings()._forward_hooks) == 1


def test_without_a_c_compiler_layers_stay_as_they_are(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)
    model = random_model("llama")
    with caplog.at_level(logging.WARNING):
        assert not compile_layers(model, compilers=["no-such-compiler"])
    assert "install gcc or" in caplog.text
    assert all(module._compiled_call_impl is None for module in model.modules())
