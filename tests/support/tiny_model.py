"""A random two-layer Llama with SmolLM2's tokenizer, put where the hub's cache keeps models.

It says nothing sensible, but it is a real causal LM to everything that loads, trains, serves or exports it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

TINY_ID = "sienn-tests/tiny-llama"
# The contract's examples name this model; tests put the tiny one under its id.
CONTRACT_ID = "Qwen/Qwen2.5-0.5B-Instruct"
# The tiny model with a chat template that takes no system message.
STRICT_ID = "sienn-tests/strict-llama"
_STRICT_TEMPLATE = (
    "{% for message in messages %}{% if 'brief' in message['content'] %}"
    "{{ raise_exception('Brief answers are not supported') }}{% endif %}"
    "{{ message['role'] + ': ' + message['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
# Its commit, as the cache names it.
TINY_COMMIT = "0" * 40


def save_tiny_model(folder: Path) -> None:
    """Write model and tokenizer to a folder."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from sienn_ray.catalog import PACKAGED

    packaged = PACKAGED["HuggingFaceTB/SmolLM2-135M-Instruct"]
    package_folder = packaged.folder()
    assert package_folder is not None, f"run `{packaged.install_command}`"
    tokenizer = AutoTokenizer.from_pretrained(package_folder, gguf_file=packaged.gguf_file)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        # Heads of 32, the smallest that vLLM computes with on a CPU.
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_strict_model(tiny_model_folder: Path, folder: Path) -> None:
    """Copy the tiny model and give it the strict chat template."""
    shutil.copytree(tiny_model_folder, folder)
    (folder / "chat_template.jinja").write_text(_STRICT_TEMPLATE)


def add_to_hub_cache(model_folder: Path, hub_home: Path, model_id: str, commit: str = TINY_COMMIT) -> None:
    """Link a model's files into a hub cache under `hub_home` (what HF_HOME names)."""
    repository = hub_home / "hub" / f"models--{model_id.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True, exist_ok=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    for path in model_folder.iterdir():
        link = snapshot / path.name
        if not link.exists():
            link.symlink_to(path)
