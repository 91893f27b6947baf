"""Small models of the architectures that GGUF is written for, and adapters for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen2Config, Qwen3Config

from sienn_ray.datasets.prompt import PLAIN_TEMPLATE, PromptFormat, PromptKind
from tests.unit.inference.small_tokenizers import byte_level

ARCHITECTURES: dict[str, Any] = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
BASE_MODEL = "owner/model"
# Rows of whole K-quant blocks.
_SHAPE: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "max_position_embeddings": 512,
}


def save_base(folder: Path, architecture: str, **options: Any) -> Path:
    """A random model whose layers matter, with a tokenizer."""
    torch.manual_seed(0)
    tokenizer = byte_level()
    tokenizer.pad_token = tokenizer.eos_token
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    config = ARCHITECTURES[architecture](vocab_size=len(tokenizer) + 3, **special, **{**_SHAPE, **options})
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.mul_(3.0)
            elif name.endswith(".bias"):
                parameter.normal_()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_adapter(folder: Path, base_folder: Path, **config: Any) -> Path:
    """A random adapter for a base model, with the files that a fine-tune publishes."""
    torch.manual_seed(1)
    chosen = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **config}
    base = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **chosen))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    saved = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**saved, "base_model_name_or_path": BASE_MODEL}))
    tokenizer = byte_level()
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.chat_template = PLAIN_TEMPLATE
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": tokenizer.eos_token}))
    (folder / "prompt_format.json").write_text(PromptFormat(PromptKind.CHAT, PLAIN_TEMPLATE).to_json())
    return folder


def merged_by_peft(base_folder: Path, adapter_folder: Path) -> PreTrainedModel:
    """What PEFT makes of both."""
    base = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    merged: PreTrainedModel = PeftModel.from_pretrained(base, adapter_folder).merge_and_unload()
    return merged.eval()


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of the small model of an architecture, made once."""
    return cache(lambda architecture: save_base(tmp_path_factory.mktemp(architecture) / "base", architecture))


@pytest.fixture(scope="session")
def adapter_folder(base_folder: Callable[[str], Path]) -> Callable[[str], Path]:
    """Folder of a plain adapter for it."""

    def make(architecture: str) -> Path:
        base = base_folder(architecture)
        return save_adapter(base.parent / "adapter", base)

    return cache(make)
