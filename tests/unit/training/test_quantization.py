"""A base model in 4 bits, on the CPU back end of bitsandbytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from sienn_ray.base_model import load_causal_lm
from sienn_ray.training.adapter.adapters import add_adapter
from tests.support.fakes_training import FakeRows
from tests.unit.training.training import CPU, TRAIN_ROWS, Trainee, config_of

# Told by transformers of bitsandbytes' custom operators, and by bitsandbytes of an optional package.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

IDS = torch.arange(3, 27).reshape(2, 12)


def quantized(folder: Path) -> PreTrainedModel:
    return load_causal_lm(folder, CPU, torch.float32, "nf4")


def gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(input_ids=IDS, use_cache=False).logits.pow(2).mean().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}


def test_weights_take_four_bits(tiny_model_folder: Path) -> None:
    import bitsandbytes as bnb

    kind: Any = bnb.nn.modules.Linear4bit
    layers = [module for module in quantized(tiny_model_folder).modules() if isinstance(module, kind)]
    assert len(layers) == 14
    assert {layer.weight.quant_type for layer in layers} == {"nf4"}
    assert all(layer.weight.numel() * 2 == layer.in_features * layer.out_features for layer in layers)


def test_gradients_are_the_same_after_an_evaluation(tiny_model_folder: Path) -> None:
    """bitsandbytes would repack its weights there, and lose their gradients."""
    model = add_adapter(quantized(tiny_model_folder), config_of(quantization="nf4"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    model.train()
    before = gradients(model)
    model.eval()
    with torch.no_grad():
        model(input_ids=IDS, use_cache=False)
    model.train()
    after = gradients(model)
    assert before.keys() == after.keys()
    assert len(before) == 28
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_a_run_learns(tiny_model_folder: Path, tmp_path: Path) -> None:
    config = config_of(quantization="nf4", num_epochs=4)
    run = Trainee(tiny_model_folder, tmp_path / "run", config, eval_rows=FakeRows(TRAIN_ROWS))
    result = run.train(quantized(tiny_model_folder))
    losses = [entry.eval_loss or 0.0 for entry in run.state.history]
    assert losses[-1] < losses[0] - 0.02
    assert (result.facts.quantization, result.facts.packed) == ("nf4", True)
