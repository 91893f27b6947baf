"""Adapters that vLLM can't serve, told by their configuration; nothing here imports torch or vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The values that vLLM takes for `max_lora_rank` (vllm/config/lora.py).
_RANK_BOUNDS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
# Beginnings after which an adapter counts on the base model's own weights (vllm/lora/peft_helper.py).
_PLAIN_BEGINNINGS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
# Fields of PEFT's LoraConfig that vLLM doesn't implement, with their plain values and the words for the others.
_FIELDS: dict[str, tuple[tuple[Any, ...], str]] = {
    "use_dora": ((False,), "uses DoRA (use_dora)"),
    "modules_to_save": (([],), "has whole modules of its own (modules_to_save)"),
    "bias": (("none",), "trains biases (bias)"),
    "lora_bias": ((False,), "has biases (lora_bias)"),
    "layer_replication": (([],), "repeats layers (layer_replication)"),
    "alora_invocation_tokens": (([],), "is an activated LoRA (alora_invocation_tokens)"),
    "use_bdlora": ((False,), "is block-diagonal (use_bdlora)"),
    "use_qalora": ((False,), "is a QALoRA (use_qalora)"),
    "trainable_token_indices": (([], {}), "has embeddings of tokens of its own (trainable_token_indices)"),
    "target_parameters": (([],), "changes parameters that aren't linear layers (target_parameters)"),
}


def rank_bound(max_rank: int) -> int:
    """Return the smallest bound that vLLM can be started with and that `max_rank` is within.

    Example:
        >>> rank_bound(24)
        32

    Raises:
        ValueError: There is none.
    """
    for bound in _RANK_BOUNDS:
        if max_rank <= bound:
            return bound
    raise ValueError(f"vLLM serves ranks up to {_RANK_BOUNDS[-1]}, not {max_rank}")


def unsupported(adapter_config: Mapping[str, Any], max_rank: int) -> str | None:
    """Say why vLLM can't serve an adapter.

    Args:
        adapter_config: PEFT's `adapter_config.json`, or the same fields of an adapter that is yet to be trained.
        max_rank: Largest rank that the engine of the base model has room for (`engine_max_lora_rank`).

    Returns:
        Words that go on from "the adapter", or None where vLLM can serve it.

    Example:
        >>> unsupported({"r": 16, "use_dora": True}, max_rank=64)
        'uses DoRA (use_dora)'
    """
    for name, (plain, words) in _FIELDS.items():
        if adapter_config.get(name) not in (None, *plain):
            return words
    beginning = adapter_config.get("init_lora_weights")
    if isinstance(beginning, str) and beginning.lower() not in _PLAIN_BEGINNINGS:
        return f"goes with base weights that its beginning has changed (init_lora_weights={beginning})"
    rank = _largest_rank(adapter_config)
    if rank > max_rank:
        return f"has rank {rank}, and SIENN_ENGINE_MAX_LORA_RANK is {max_rank}"
    return None


def way_out(reason: str) -> str:
    """Say what can be done for an adapter that `unsupported` has a reason against."""
    bound = "raise it, " if "SIENN_ENGINE_MAX_LORA_RANK" in reason else ""
    return f"vLLM can't serve that; {bound}serve its base model with SIENN_ENGINE=builtin, or export the adapter merged"


def _largest_rank(adapter_config: Mapping[str, Any]) -> int:
    patterns = adapter_config.get("rank_pattern") or {}
    return max((int(rank) for rank in (adapter_config.get("r", 0), *patterns.values())), default=0)
