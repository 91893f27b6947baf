"""Layers in few calls give what the model's own give, where they are used at all."""

from __future__ import annotations

import logging

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from sienn_ray.inference.model.decoder_layers import PagedDecoderLayer, replace_layers, rms_norm
from sienn_ray.inference.model.linear_choice import LinearChoices
from sienn_ray.inference.model.runner import ModelRunner, StepRow
from tests.support.architectures import ARCHITECTURES, random_model

KNOWN = {"llama", "mistral", "qwen2", "qwen3"}


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_layers_are_replaced_where_they_are_known(name: str) -> None:
    model = random_model(name)
    restore = replace_layers(model)
    assert (restore is not None) == (name in KNOWN)
    assert any(isinstance(module, PagedDecoderLayer) for module in model.modules()) == (name in KNOWN)


def test_replacing_layers_can_be_taken_back() -> None:
    model = random_model("llama").eval()
    before = list(model.model.layers)
    restore = replace_layers(model)
    assert restore is not None
    restore()
    assert list(model.model.layers) == before


def test_without_a_cache_the_models_own_layers_compute() -> None:
    model = random_model("llama").eval()
    ids = torch.arange(9)[None]
    with torch.inference_mode():
        expected = model(input_ids=ids, use_cache=False).logits
        replace_layers(model)
        torch.testing.assert_close(model(input_ids=ids, use_cache=False).logits, expected, atol=0.0, rtol=0.0)


def test_layers_that_only_look_known_keep_their_own_attention(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = random_model("llama").eval()
    tokens = list(range(3, 12))
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
    monkeypatch.setattr("sienn_ray.inference.model.decoder_layers.rms_norm", lambda _: lambda x: x * 0.5)
    with caplog.at_level(logging.WARNING):
        runner = ModelRunner(model, 1 << 20, 4, LinearChoices())
    assert "its layers in few calls" in caplog.text
    assert runner.has_cache
    found = runner.step([StepRow(tokens, 0, [0, 1, 2], None, True)], {})[0]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e12])
def test_norm_of_small_and_large_values(scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    module = LlamaRMSNorm(48, eps=1e-5)
    module.weight.data = torch.rand(48, generator=generator) + 0.5
    x = torch.randn((7, 48), generator=generator) * scale
    torch.testing.assert_close(rms_norm(module)(x), module(x).detach(), atol=1e-6, rtol=1e-5)


def test_norm_in_half_precision_is_the_models_own() -> None:
    module = LlamaRMSNorm(48).to(torch.bfloat16)
    x = torch.randn((3, 48), dtype=torch.bfloat16)
    assert torch.equal(rms_norm(module)(x), module(x))
