"""Shapes of base models that people fine-tune, with as many layers as a test needs."""

from __future__ import annotations

from collections.abc import Callable

from transformers import Gemma2Config, LlamaConfig, MistralConfig, PretrainedConfig, Qwen2Config

Shape = Callable[[int], PretrainedConfig]


def llama_8b(num_layers: int = 32) -> PretrainedConfig:
    """Llama 3 8B."""
    return LlamaConfig(
        hidden_size=4096, intermediate_size=14_336, num_hidden_layers=num_layers, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=128_256, max_position_embeddings=8192, rope_theta=500_000.0,
    )  # fmt: skip


def qwen_05b(num_layers: int = 24) -> PretrainedConfig:
    """Qwen2.5 0.5B: biases on queries, keys and values, and one weight for embeddings and head."""
    return Qwen2Config(
        hidden_size=896, intermediate_size=4864, num_hidden_layers=num_layers, num_attention_heads=14,
        num_key_value_heads=2, vocab_size=151_936, max_position_embeddings=32_768, tie_word_embeddings=True,
    )  # fmt: skip


def smollm2_135m(num_layers: int = 30) -> PretrainedConfig:
    """SmolLM2 135M."""
    return LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=num_layers, num_attention_heads=9,
        num_key_value_heads=3, vocab_size=49_152, max_position_embeddings=8192, tie_word_embeddings=True,
    )  # fmt: skip


def mistral_7b(num_layers: int = 32) -> PretrainedConfig:
    """Mistral 7B, with a window shorter than the tests' rows."""
    return MistralConfig(
        hidden_size=4096, intermediate_size=14_336, num_hidden_layers=num_layers, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=32_000, sliding_window=64,
    )  # fmt: skip


def gemma2_2b(num_layers: int = 26) -> PretrainedConfig:
    """Gemma 2 2B: bounded scores, and a window, shorter than the tests' rows, in every other layer."""
    return Gemma2Config(
        hidden_size=2304, intermediate_size=9216, num_hidden_layers=num_layers, num_attention_heads=8,
        num_key_value_heads=4, head_dim=256, vocab_size=256_000, sliding_window=64,
    )  # fmt: skip
