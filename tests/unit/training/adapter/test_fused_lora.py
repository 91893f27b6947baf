"""The fused layer against PEFT's own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from sienn_ray.training.adapter.adapters import add_adapter
from sienn_ray.training.adapter.fused_lora import FusedLoraLinear
from sienn_ray.training.config import LoraSettings, TrainingConfig
from tests.support.architectures import random_model

IDS = torch.arange(3, 27).reshape(2, 12)


def config_of(**lora: object) -> TrainingConfig:
    return TrainingConfig(base_model="m", lora=LoraSettings(**{"r": 4, "lora_dropout": 0.0, **lora}))


def with_noise(model: PeftModel) -> PeftModel:
    """B begins at zero, so that nothing would show."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def fused_layers(model: torch.nn.Module) -> int:
    return sum(isinstance(module, FusedLoraLinear) for module in model.modules())


@pytest.mark.parametrize("name", ["llama", "qwen2", "phi", "gpt2"])  # without and with biases, and transposed weights
@pytest.mark.parametrize("use_rslora", [False, True])
def test_outputs_and_gradients_are_pefts(name: str, use_rslora: bool) -> None:
    base = random_model(name)
    lora = LoraConfig(
        r=4, lora_alpha=32, target_modules="all-linear", use_rslora=use_rslora, fan_in_fan_out=name == "gpt2"
    )
    plain = with_noise(get_peft_model(copy.deepcopy(base), lora))
    fused = with_noise(add_adapter(base, config_of(use_rslora=use_rslora)))
    assert fused_layers(plain) == 0
    assert fused_layers(fused) == sum("lora_A" in key and key.endswith("weight") for key in fused.state_dict())
    outputs = []
    for model in (plain, fused):
        output = model(input_ids=IDS).logits
        output.pow(2).mean().backward()
        outputs.append(output)
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-4)
    expected = {key: value.grad for key, value in plain.named_parameters() if value.requires_grad}
    found = {key: value.grad for key, value in fused.named_parameters() if value.requires_grad}
    assert found.keys() == expected.keys()
    for key, gradient in found.items():
        scale = float(expected[key].abs().max())
        torch.testing.assert_close(gradient, expected[key], rtol=0, atol=1e-4 * scale)


def test_gradients_are_those_of_finite_differences() -> None:
    from sienn_ray.training.adapter.fused_lora import _LoraProduct

    shapes = ((2, 3, 5), (4, 5), (4,), (2, 5), (4, 2))
    x, weight, bias, a, b = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    for tensor in (x, a, b):
        tensor.requires_grad_()

    def product(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> Any:
        return _LoraProduct.apply(x, weight, bias, a, b, 2.0)  # type: ignore[no-untyped-call]

    assert torch.autograd.gradcheck(product, (x, a, b))


@pytest.mark.parametrize("lora", [{"lora_dropout": 0.1}, {"use_dora": True}])
def test_what_is_not_plain_stays_pefts(lora: dict[str, object]) -> None:
    assert fused_layers(add_adapter(random_model("llama"), config_of(**lora))) == 0


def test_the_adapter_can_be_switched_off() -> None:
    base = random_model("llama")
    with torch.no_grad():
        expected = base(input_ids=IDS).logits
    model = with_noise(add_adapter(base, config_of()))
    with model.disable_adapter():
        torch.testing.assert_close(model(input_ids=IDS).logits, expected, rtol=0, atol=0)
    assert not torch.allclose(model(input_ids=IDS).logits, expected)


def test_bfloat16_base_with_float32_adapter() -> None:
    model = with_noise(add_adapter(random_model("llama", torch.bfloat16), config_of()))
    model(input_ids=IDS).logits.float().pow(2).mean().backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {parameter.dtype for parameter in trained} == {torch.float32}
    assert all(parameter.grad is not None and parameter.grad.dtype is torch.float32 for parameter in trained)
