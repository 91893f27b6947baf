"""Random two-layer models of many architectures, without a download."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

_SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}
_NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
# Shorter than the rows of most tests.
_WINDOW = {"sliding_window": 6}

ARCHITECTURES = {
    "llama": lambda **options: LlamaConfig(**_SHAPE, **options),
    "qwen2": lambda **options: Qwen2Config(**_SHAPE, **options),
    "qwen3": lambda **options: Qwen3Config(**_SHAPE, **options),
    "mistral": lambda **options: MistralConfig(**_SHAPE, **_WINDOW, **options),
    "gemma": lambda **options: GemmaConfig(**_SHAPE, **options),
    "gemma2": lambda **options: Gemma2Config(**_SHAPE, **_WINDOW, **options),
    "gemma3": lambda **options: Gemma3TextConfig(**_SHAPE, **_WINDOW, **options),
    "phi": lambda **options: PhiConfig(**_SHAPE, **options),
    "phi3": lambda **options: Phi3Config(**_SHAPE, **options),
    "gpt2": lambda **options: GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=256, **_NO_DROPOUT, **options),
    "cohere": lambda **options: CohereConfig(**_SHAPE, **options),
    "granite": lambda **options: GraniteConfig(**_SHAPE, logits_scaling=3.0, **options),
    # Its attention can't be exchanged.
    "bloom": lambda **options: BloomConfig(hidden_size=32, n_layer=2, n_head=4, **options),
}
PACKED = sorted(ARCHITECTURES.keys() - {"bloom"})


def random_model(
    name: str, dtype: torch.dtype = torch.float32, vocab_size: int = 300, **tokens: int
) -> PreTrainedModel:
    """A model whose layers matter: as they are initialized, their outputs hardly differ from the embeddings."""
    torch.manual_seed(0)
    config = ARCHITECTURES[name](vocab_size=vocab_size, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0)
    return model.eval()
