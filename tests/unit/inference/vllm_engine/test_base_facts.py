from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sienn_ray.base_model import load_causal_lm, load_tokenizer
from sienn_ray.inference.vllm_engine.base_facts import BaseFacts
from tests.unit.inference.asking import copy_of


def test_layers_are_those_that_an_adapter_may_have(tiny_model_folder: Path) -> None:
    facts = BaseFacts.of(tiny_model_folder, load_tokenizer(tiny_model_folder))
    model: Any = load_causal_lm(tiny_model_folder, torch.device("cpu"))
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    del linear["lm_head"]
    assert {name: layer.shape for name, layer in facts.layers.items()} == {
        name: tuple(module.weight.shape) for name, module in linear.items()
    }
    assert facts.num_parameters == sum(each.numel() for each in model.parameters())
    assert facts.rank_bytes == sum(2 * sum(module.weight.shape) for module in linear.values())


def test_limits_and_ends_are_the_configurations(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(tiny_model_folder, tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7]}))
    facts = BaseFacts.of(folder, load_tokenizer(folder))
    assert (facts.context_tokens, sorted(facts.eos)) == (2048, [2, 7])
    (folder / "generation_config.json").unlink()
    assert BaseFacts.of(folder, load_tokenizer(folder)).eos == {2}


def test_weights_are_never_asked_for(tiny_model_folder: Path) -> None:
    layer = next(iter(BaseFacts.of(tiny_model_folder, load_tokenizer(tiny_model_folder)).layers.values()))
    with pytest.raises(NotImplementedError):
        layer.matrix()
