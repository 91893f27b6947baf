"""Tokens of a micro batch, and which of its activations are computed again, by the memory of a worker.

A GPU is busy from some thousand tokens on, so it takes as many as it has room for. A CPU is busy with a few rows: there
a micro batch is the rows that the configuration names, and numbers don't depend on what other processes leave free.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.micro_batch_limits import MicroBatchLimits
from sienn_ray.training.recomputation import Recomputation, activation_bytes, choose_recomputation, drops_attention

# Of a GPU's memory that is free once the model is there: for activations, and for the logits of a chunk of tokens. The
# rest is for gradients of activations, attention's workspaces, and what the allocator can't use.
_ACTIVATIONS_SHARE = 0.7
_LOGITS_SHARE = 1 / 16
# An adapter's gradient and AdamW's two moments come with the first step, in float32.
_BYTES_PER_LEARNED = 3 * 4
# More tokens make products no faster.
_MAX_TOKENS = 32_768
_MAX_CHUNK_TOKENS, _MIN_CHUNK_TOKENS = 4096, 128
# Logits of a token as they are multiplied, and their gradient, in the model's data type; both again in float32, and
# their log-softmax.
_FLOAT32_LOGITS_BYTES = 3 * 4


@dataclass(frozen=True)
class TokenBudget:
    """Sizes of a worker's work.

    Args:
        limits: Of a micro batch.
        recomputation: What of a layer is computed again.
        head_chunk_tokens: Tokens whose logits are there at once; None is what suits a CPU's cache.
    """

    limits: MicroBatchLimits
    recomputation: Recomputation
    head_chunk_tokens: int | None = None


def budget_of_rows(
    config: TrainingConfig, model_config: object, *, max_rows: int, row_tokens: int, dtype: torch.dtype
) -> TokenBudget:
    """Return the budget of a CPU: rows, unless the configuration names tokens.

    Args:
        config: Hyperparameters.
        model_config: The base model's transformers configuration.
        max_rows: Rows of a forward pass.
        row_tokens: Tokens of the longest row, both answers of a preference included.
        dtype: Data type of the activations.
    """
    limits, num_tokens = MicroBatchLimits(max_examples=max_rows), max_rows * row_tokens
    if config.micro_batch_tokens is not None:
        limits = MicroBatchLimits(max_tokens=config.micro_batch_tokens)
        num_tokens = max(config.micro_batch_tokens, row_tokens)
    cpu = torch.device("cpu")
    level = choose_recomputation(config.gradient_checkpointing, model_config, num_tokens, dtype, cpu)
    if level not in _levels(config, model_config):
        level = Recomputation.FULL
    return TokenBudget(limits, level)


def budget_of_memory(
    config: TrainingConfig,
    model_config: object,
    *,
    free_bytes: int,
    num_learned: int,
    row_tokens: int,
    dtype: torch.dtype,
) -> TokenBudget:
    """Return the budget of a GPU: as many tokens as its memory has room for.

    Activations are computed again only where they would leave no room for the longest row: a smaller micro batch costs
    less than that.

    Args:
        config: Hyperparameters; `micro_batch_tokens` goes before what memory has room for.
        model_config: The base model's transformers configuration.
        free_bytes: Memory that is free with the model loaded; the same on workers that keep step.
        num_learned: Numbers in the adapter.
        row_tokens: Tokens of the longest row, both answers of a preference included.
        dtype: Data type of the activations.

    Example:
        >>> from types import SimpleNamespace
        >>> llama = SimpleNamespace(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, vocab_size=128256)
        >>> config = TrainingConfig(base_model="meta-llama/Llama-3.1-8B")
        >>> free = {"free_bytes": 64 * 1024**3, "num_learned": 42_000_000}
        >>> budget = budget_of_memory(config, llama, **free, row_tokens=512, dtype=torch.bfloat16)
        >>> budget.limits.max_tokens, budget.recomputation.value, budget.head_chunk_tokens
        (7589, 'none', 2077)
    """
    left = max(0, free_bytes - num_learned * _BYTES_PER_LEARNED)
    room = int(left * _ACTIVATIONS_SHARE)
    wanted = max(config.micro_batch_tokens or 0, row_tokens)
    for level in _levels(config, model_config):
        kept = room // max(1, activation_bytes(model_config, 1, dtype, level))
        if kept >= wanted:
            break
    chunk = int(left * _LOGITS_SHARE) // _logits_bytes(model_config, dtype)
    return TokenBudget(
        MicroBatchLimits(max_tokens=config.micro_batch_tokens or min(max(kept, 1), _MAX_TOKENS)),
        level,
        head_chunk_tokens=min(max(chunk, _MIN_CHUNK_TOKENS), _MAX_CHUNK_TOKENS),
    )


def _levels(config: TrainingConfig, model_config: object) -> list[Recomputation]:
    """What may be computed again, the least first."""
    if config.gradient_checkpointing is not None:
        return [Recomputation.FULL if config.gradient_checkpointing else Recomputation.NONE]
    # Within a layer that is compiled, the compiler chooses what is kept.
    if config.torch_compile or drops_attention(model_config):
        return [Recomputation.NONE, Recomputation.FULL]
    return list(Recomputation)


def _logits_bytes(model_config: object, dtype: torch.dtype) -> int:
    vocabulary = int(getattr(model_config, "vocab_size", 0) or 131_072)
    return vocabulary * (2 * dtype.itemsize + _FLOAT32_LOGITS_BYTES)
