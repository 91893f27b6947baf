"""Makes a base model and an adapter for it: `export_material.py small|large FOLDER`."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from sienn_ray.base_model import local_folder
from sienn_ray.datasets.prompt import FILE_NAME, PromptFormat
from sienn_ray.settings import Settings

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
SHARD = "400MB"


def main(size: str, folder: Path) -> None:
    small = local_folder(BASE_MODEL, Settings())
    base, adapter = folder / "base", folder / "adapter"
    if size == "small":
        shutil.copytree(small, base)
    else:
        save_large(small, base)
    save_adapter(base, adapter)
    shards = [path.stat().st_size for path in base.glob("*.safetensors")]
    weights = (adapter / "adapter_model.safetensors").stat().st_size
    sizes = {"model_mb": sum(shards), "largest_shard_mb": max(shards), "adapter_mb": weights}
    (folder / "sizes.json").write_text(json.dumps({name: round(value / 1e6) for name, value in sizes.items()}))


def save_large(small: Path, base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(small)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(base, max_shard_size=SHARD)
    tokenizer.save_pretrained(base)


def save_adapter(base: Path, adapter: Path) -> None:
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base)
    lora = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(model, lora).save_pretrained(adapter)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.save_pretrained(adapter, save_jinja_files=False)
    (adapter / "special_tokens_map.json").write_text(json.dumps({"eos_token": tokenizer.eos_token}))
    (adapter / FILE_NAME).write_text(PromptFormat.for_chat(tokenizer).to_json())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
