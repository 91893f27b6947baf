"""The product for GPUs, in plain numbers: what it computes doesn't hang on the device."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import PeftModel

from sienn_ray.training.adapter.adapters import add_adapter, copy_each_step, is_fused, trainable
from sienn_ray.training.adapter.fused_lora import FusedLoraLinear
from sienn_ray.training.adapter.half_lora import half_lora_product
from sienn_ray.training.loss.reference import Reference, start_values
from tests.support.architectures import random_model
from tests.unit.training.adapter.test_fused_lora import IDS, config_of, with_noise


def model_in_bfloat16(name: str = "llama") -> PeftModel:
    return with_noise(add_adapter(random_model(name, torch.bfloat16), config_of(lora_alpha=6)))


def with_copies(model: PeftModel) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(trainable(model), lr=0.1)
    copy_each_step(model, optimizer)
    return optimizer


def gradients(model: PeftModel) -> list[torch.Tensor]:
    model.zero_grad()
    model(input_ids=IDS).logits.float().pow(2).mean().backward()
    return [parameter.grad for parameter in trainable(model) if parameter.grad is not None]


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradients_are_those_of_finite_differences(has_bias: bool, dropout: float) -> None:
    shapes = ((2, 3, 5), (4, 5), (4,), (2, 5), (4, 2))
    x, weight, bias, a, b = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    for tensor in (x, a, b):
        tensor.requires_grad_()

    def product(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)  # it drops the same each time
        copies = (a.detach(), b.detach())
        return half_lora_product(x, weight, bias if has_bias else None, (a, b), copies, 1.7, dropout)

    assert torch.autograd.gradcheck(product, (x, a, b))
    if not dropout:
        expected = torch.nn.functional.linear(x, weight, bias if has_bias else None) + 1.7 * x @ a.t() @ b.t()
        torch.testing.assert_close(product(x, a, b), expected)


def test_dropout_drops_inputs_of_the_adapter_only() -> None:
    x, weight = torch.ones(1000, 8), torch.zeros(3, 8)
    a, b = torch.eye(8), torch.ones(3, 8)
    found = half_lora_product(x, weight, None, (a, b), (a, b), 1.0, 0.25)[:, 0] * 0.75
    assert torch.equal(found.round(), found.round(decimals=3))  # whole inputs, made up for those that were dropped
    assert 5.8 < float(found.mean()) < 6.2
    shown = half_lora_product(x, weight + 1, None, (a, b), (a, b * 0), 1.0, 0.25)
    assert torch.equal(shown, torch.full((1000, 3), 8.0))


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2"])
def test_with_copies_a_model_computes_what_it_does_without(name: str) -> None:
    """Within bfloat16's rounding; as close to float32's gradients as the layer without copies comes."""
    plain, exact = model_in_bfloat16(name), model_in_bfloat16(name).float()
    copied = copy.deepcopy(plain)
    with_copies(copied)
    wanted, *found = (torch.cat([each.flatten() for each in gradients(model)]) for model in (exact, plain, copied))
    errors = [float((one - wanted).norm() / wanted.norm()) for one in found]
    assert errors[1] < 1.25 * errors[0] < 0.1
    assert {gradient.dtype for gradient in gradients(copied)} == {torch.float32}


def test_copies_follow_each_step() -> None:
    model = model_in_bfloat16()
    optimizer = with_copies(model)
    layers = [module for module in model.modules() if isinstance(module, FusedLoraLinear)]
    before = [factor.detach().clone() for layer in layers for factor in layer.factors]
    gradients(model)
    optimizer.step()
    for layer in layers:
        assert layer.copies is not None
        for kept, factor in zip(layer.copies, layer.factors, strict=True):
            torch.testing.assert_close(kept, factor.detach().to(torch.bfloat16), rtol=0, atol=0)
    assert not torch.equal(before[0], layers[0].factors[0])
    storages = {kept.untyped_storage().data_ptr() for layer in layers for kept in layer.copies or ()}
    assert len(storages) == 1


def test_copies_are_no_part_of_the_adapters_files() -> None:
    model = model_in_bfloat16()
    names = set(model.state_dict())
    with_copies(model)
    assert set(model.state_dict()) == names


def test_a_reference_computes_with_its_own_weights() -> None:
    model = model_in_bfloat16()
    start = {name: torch.zeros_like(value) for name, value in start_values(model).items()}
    with_copies(model)
    with torch.no_grad(), model.disable_adapter():
        expected = model(input_ids=IDS).logits
    with torch.no_grad(), Reference(model, start).active():
        assert torch.equal(model(input_ids=IDS).logits, expected)


def test_in_float32_there_are_no_copies() -> None:
    model = with_noise(add_adapter(random_model("llama"), config_of()))
    with_copies(model)
    assert all(module.copies is None for module in model.modules() if isinstance(module, FusedLoraLinear))


def test_dropout_is_fused_on_a_gpu_only() -> None:
    config = config_of(lora_dropout=0.1)
    assert not is_fused(config, torch.device("cpu"))
    assert is_fused(config, torch.device("cuda"))
    assert not is_fused(config_of(use_dora=True), torch.device("cuda"))
