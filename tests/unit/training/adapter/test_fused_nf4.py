"""The fused layer over weights in 4 bits computes what PEFT's does, on the CPU back end of bitsandbytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training

from sienn_ray.base_model import load_causal_lm
from sienn_ray.training.adapter.adapters import add_adapter, copy_each_step, make_optimizer, trainable
from sienn_ray.training.adapter.fused_lora import FusedLora
from sienn_ray.training.adapter.fused_nf4 import FusedNf4Linear
from tests.unit.training.adapter.test_fused_lora import with_noise
from tests.unit.training.training import CPU, config_of

# Told by transformers of bitsandbytes' custom operators, and by bitsandbytes of an optional package.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

IDS = torch.arange(3, 27).reshape(2, 12)


def fused(folder: Path, dtype: torch.dtype) -> PeftModel:
    return with_noise(add_adapter(load_causal_lm(folder, CPU, dtype, "nf4"), config_of(quantization="nf4"))).train()


def pefts(folder: Path, dtype: torch.dtype) -> PeftModel:
    """Make the same with PEFT's layers, as its guide to quantization has it."""
    base = load_causal_lm(folder, CPU, dtype, "nf4")
    base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    lora = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    return with_noise(get_peft_model(base, lora)).train()


def logits_and_gradients(model: PeftModel) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    logits: torch.Tensor = model(input_ids=IDS, use_cache=False).logits.float()
    torch.autograd.backward(logits.pow(2).mean())
    gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return logits.detach(), gradients


def test_all_layers_are_fused(tiny_model_folder: Path) -> None:
    model = fused(tiny_model_folder, torch.float32)
    assert sum(isinstance(module, FusedNf4Linear) for module in model.modules()) == 14


def test_it_is_pefts_layer_in_float32(tiny_model_folder: Path) -> None:
    found, found_gradients = logits_and_gradients(fused(tiny_model_folder, torch.float32))
    expected, expected_gradients = logits_and_gradients(pefts(tiny_model_folder, torch.float32))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert len(expected_gradients) == 28
    torch.testing.assert_close(found_gradients, expected_gradients, atol=1e-6, rtol=1e-3)


def test_it_is_near_pefts_layer_in_bfloat16(tiny_model_folder: Path) -> None:
    """As a GPU computes it: with copies of the adapter in the type of the products."""
    model = fused(tiny_model_folder, torch.bfloat16)
    copy_each_step(model, make_optimizer(model, config_of()))
    assert all(module.copies is not None for module in model.modules() if isinstance(module, FusedLora))
    found, found_gradients = logits_and_gradients(model)
    with torch.autocast("cpu", torch.bfloat16):
        expected, expected_gradients = logits_and_gradients(pefts(tiny_model_folder, torch.bfloat16))
    assert float((found - expected).abs().max()) < 0.05 * float(expected.abs().max())
    for name, gradient in expected_gradients.items():
        assert found_gradients[name].dtype is torch.float32
        similarity = torch.cosine_similarity(found_gradients[name].flatten(), gradient.flatten(), dim=0)
        assert float(similarity) > 0.99, name


def test_what_is_not_quantized_stays_as_it_was_loaded(tiny_model_folder: Path) -> None:
    model = fused(tiny_model_folder, torch.bfloat16)
    frozen = {each.dtype for each in model.parameters() if not each.requires_grad and each.is_floating_point()}
    assert frozen == {torch.bfloat16}
    assert {each.dtype for each in trainable(model)} == {torch.float32}


def test_weights_are_kept_in_four_bits_for_the_backward_pass(tiny_model_folder: Path) -> None:
    layer = next(
        module for module in fused(tiny_model_folder, torch.float32).modules() if isinstance(module, FusedNf4Linear)
    )
    shape = (layer.out_features, layer.in_features)
    kept: list[torch.Size] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        layer(torch.ones(2, layer.in_features, requires_grad=True))
    assert kept
    assert shape not in kept
