from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from sienn_ray.errors import FailureReason, TrainingError
from sienn_ray.training.adapter.adapters import add_adapter
from sienn_ray.training.adapter.target_modules import check_target_modules, linear_modules
from sienn_ray.training.config import LoraSettings, TargetModules, TrainingConfig
from tests.support.tiny_model import TINY_ID

PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def adapted(model: Any, target_modules: TargetModules) -> Any:
    lora = LoraSettings(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=target_modules)
    return add_adapter(model, TrainingConfig(base_model=TINY_ID, lora=lora))


def places(adapter: Any) -> set[tuple[str, str]]:
    """Layer and module of everything that trains."""
    return {
        (name.split(".layers.")[1].split(".")[0], name.split(".lora_")[0].rsplit(".", 1)[-1])
        for name, parameter in adapter.named_parameters()
        if parameter.requires_grad
    }


def test_all_linear_is_every_projection_of_every_layer(model: Any) -> None:
    assert places(adapted(model, "all-linear")) == {(layer, name) for layer in "01" for name in PROJECTIONS}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("q_proj", "v_proj"), {("0", "q_proj"), ("0", "v_proj"), ("1", "q_proj"), ("1", "v_proj")}),
        (("self_attn.o_proj",), {("0", "o_proj"), ("1", "o_proj")}),
        (("layers.1.mlp.up_proj",), {("1", "up_proj")}),
        (("model.layers.0.mlp.up_proj", "k_proj"), {("0", "up_proj"), ("0", "k_proj"), ("1", "k_proj")}),
    ],
)
def test_adapter_sits_where_it_should(model: Any, names: tuple[str, ...], expected: set[tuple[str, str]]) -> None:
    assert places(adapted(model, names)) == expected


def test_saved_adapter_says_its_shape(model: Any, tmp_path: Path) -> None:
    adapted(model, ("q_proj", "v_proj")).save_pretrained(tmp_path, save_embedding_layers=False)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (saved["r"], saved["lora_alpha"], saved["lora_dropout"]) == (4, 8, 0.0)
    assert sorted(saved["target_modules"]) == ["q_proj", "v_proj"]
    assert (saved["base_model_name_or_path"], saved["task_type"]) == (TINY_ID, "CAUSAL_LM")


def test_new_adapter_changes_nothing(model: Any) -> None:
    input_ids = torch.tensor([[11, 12, 13]])
    with torch.no_grad():
        before = model(input_ids).logits
        torch.testing.assert_close(adapted(model, ("q_proj",)).eval()(input_ids).logits, before)


@pytest.mark.parametrize(
    "name",
    [
        "query_key_value",
        "proj",  # a name is the end of a path, cut at a dot
        "Q_PROJ",
        "q_proj.",
        ".q_proj",
        "layers.2.self_attn.q_proj",
        "self_attn",  # a module, but no linear one
        "0",
        "embed_tokens",
        "norm",
        "lm_head",  # shares its weights with the embeddings
        "all-linear",
    ],
)
def test_a_name_without_linear_modules_is_refused(model: Any, name: str) -> None:
    with pytest.raises(TrainingError) as error:
        check_target_modules(model, ("q_proj", name), TINY_ID)
    assert error.value.reason is FailureReason.INVALID_HYPERPARAMETERS
    assert error.value.message == (
        f"target_modules has {name}, which {TINY_ID} has no linear modules of; it has "
        f"{', '.join(sorted(PROJECTIONS))}; use some of these, or 'all-linear'"
    )


def test_many_bad_names_are_counted(model: Any) -> None:
    with pytest.raises(TrainingError, match="has x0, x1, x2, x3, x4 and 59 more, which"):
        check_target_modules(model, tuple(f"x{number}" for number in range(64)), TINY_ID)


def test_an_output_head_of_its_own_may_be_adapted() -> None:
    sizes = {"vocab_size": 32, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    config = LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=False)
    assert "lm_head" in linear_modules(LlamaForCausalLM(config))


def test_linear_modules_of_another_kind_count_too() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=8, n_layer=1, n_head=2))
    check_target_modules(model, ("c_attn", "attn.c_proj"), "gpt2")
    with pytest.raises(TrainingError, match="it has c_attn, c_fc, c_proj; use"):
        check_target_modules(model, ("wte",), "gpt2")
