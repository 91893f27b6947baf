"""Models whose quality can be lost: small ones trained for minutes, and SmolLM2 as if it had never been quantized.

A random model can't get worse by quantizing, so the small ones learn Python from the standard library's source, with
their tokens; their adapters learn from other modules than they do. Their rows are whole blocks of a K-quant.

The weights of SmolLM2's package come from a file in Q4_1. They lie on that file's grid, 15 steps a block, and what
rounds them to another grid errs in one direction everywhere: Q5_1 has 31 steps, two for each of theirs and one over,
with which weights come to lie 2.1% further apart. Those of a model as it was trained don't. So each is moved by a part
of a step at random, as far as that file's own rounding may have moved it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from sienn_ray.datasets.prompt import FILE_NAME, PromptFormat

ARCHITECTURES: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}
VOCABULARY = 2048
ROW_TOKENS, BATCH = 256, 8
STEPS, ADAPTER_STEPS = 800, 60
LEARNING_RATE = 2e-3
_END = "<|end|>"
_BLOCK = 32  # values of Q4_1
_TRAINED_ON, _ADAPTED_ON = "abcdefghijklm", "nopqr"  # first letters of modules
_NEVER_SEEN = "tuvwxyz"


def save_trained(architecture: str, base: Path, adapter: Path) -> None:
    """Train a small model of an architecture, and an adapter of it."""
    tokenizer = _trained_tokenizer()
    make_config, make_model = ARCHITECTURES[architecture]
    torch.manual_seed(0)
    config = make_config(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    model = make_model(config)
    _train(model, _rows(tokenizer, _TRAINED_ON), STEPS)
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear"))
    _train(adapted, _rows(tokenizer, _ADAPTED_ON), ADAPTER_STEPS)
    adapted.save_pretrained(adapter)
    tokenizer.save_pretrained(adapter)
    (adapter / "special_tokens_map.json").write_text(json.dumps({"eos_token": tokenizer.eos_token}))
    (adapter / FILE_NAME).write_text(PromptFormat.for_text().to_json())


def save_off_grid(base: Path, target: Path) -> None:
    """Copy a model, with weights that no quantization has rounded."""
    shutil.copytree(base, target, ignore=shutil.ignore_patterns("*.safetensors"))
    numbers = torch.Generator().manual_seed(0)
    weights = load_file(base / "model.safetensors")
    for name, weight in weights.items():
        if weight.dim() == 2:
            blocks = weight.view(-1, _BLOCK)
            step = (blocks.amax(1, keepdim=True) - blocks.amin(1, keepdim=True)) / 15
            weights[name] = (blocks + step * (torch.rand(blocks.shape, generator=numbers) - 0.5)).view_as(weight)
    save_file(weights, target / "model.safetensors", {"format": "pt"})


def python_never_seen() -> str:
    """Source that neither the small models nor their adapters were trained on."""
    return "".join(_modules(_NEVER_SEEN))


def python_prompts(count: int) -> list[str]:
    """Beginnings of modules that were never seen."""
    return [source[:160] for source, _ in zip(_modules(_NEVER_SEEN), range(count), strict=False)]


def _trained_tokenizer() -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, special_tokens=[_END])
    tokenizer.train_from_iterator(_modules(_TRAINED_ON), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=_END, pad_token=_END)


def _modules(letters: str) -> Iterator[str]:
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        if path.name[0] in letters:
            yield path.read_text(encoding="utf-8")


def _rows(tokenizer: Any, letters: str) -> torch.Tensor:
    tokens = tokenizer("".join(_modules(letters)), add_special_tokens=False)["input_ids"]
    return torch.tensor(tokens[: len(tokens) // ROW_TOKENS * ROW_TOKENS]).view(-1, ROW_TOKENS)


def _train(model: Any, rows: torch.Tensor, steps: int) -> None:
    trained: Sequence[torch.nn.Parameter] = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    order = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (BATCH,), generator=order)]
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()
    print(f"loss of the last step of {steps}: {loss.item():.2f}", flush=True)
