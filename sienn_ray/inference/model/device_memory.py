"""The memory of a GPU: what the cache of keys and values gets beside weights, adapters and a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sienn_ray.context_length import context_tokens_of
from sienn_ray.errors import EngineError
from sienn_ray.inference.assigned_device import AssignedDevice
from sienn_ray.inference.model.lora_weights import GAIN_BYTES

_MIB = 1024**2
# Of what is left for the cache; the rest is for what PyTorch's allocator can't use between its pieces.
_CACHE_SHARE = 0.9
# Masks and scores (`_MAX_SCORES` of ten bytes), products' work spaces, gains of adapters, and a margin.
_FIXED_BYTES = 768 * _MIB
#: Most bytes of keys and values that one attention call gathers, copies for each head included.
MOST_GATHERED_BYTES = 1024 * _MIB
# Of what is free beside weights, adapters and a step, where that is less.
_GATHERED_SHARE = 1 / 16
#: One call of a graph gathers so much less. Graphs share a pool of memory of their own, in which pieces of many powers
#: of two stay beside each other: twice the largest at the most.
GRAPH_SHARE = 4
# The graphs themselves, beside their pool.
_GRAPHS_BYTES = 512 * _MIB
# Tensors of one value a token and unit that are there at the same time.
_HIDDEN_TENSORS, _INNER_TENSORS, _LOGIT_TENSORS = 8, 4, 4


@dataclass(frozen=True)
class StepSize:
    """The size of the largest step, for what its activations take.

    Args:
        num_tokens: Tokens.
        num_requests: Requests whose logits are wanted.
    """

    num_tokens: int
    num_requests: int


def free_bytes(assigned: AssignedDevice) -> int:
    """Return the bytes of a GPU that this process may still take: what is free, and no more than its share."""
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(assigned.device)
    left_of_share = int(assigned.memory_share * total) - torch.cuda.memory_allocated(assigned.device)
    return min(free, left_of_share)


@dataclass(frozen=True)
class GpuShares:
    """The parts of a GPU's memory that the engine divides up.

    Args:
        cache_bytes: Keys and values.
        gathered_bytes: What one attention call gathers of them.
    """

    cache_bytes: int
    gathered_bytes: int


def gpu_shares(
    config: Any, value_bytes: int, free: int, adapter_bytes: int, step: StepSize, *, has_graphs: bool
) -> GpuShares:
    """Return what the cache of keys and values, and an attention call, may take.

    One call gathers no more than its part, or the keys and values of one request and one key head. No other layer's are
    there at the same time.

    Args:
        config: The base model's configuration.
        value_bytes: Bytes of an activation's value.
        free: Bytes that are free once the weights are loaded.
        adapter_bytes: Bytes that adapters in use may take.
        step: The largest step.
        has_graphs: Whether decoding steps are captured, which have a pool of memory of their own.

    Raises:
        EngineError: Nothing is left.
    """
    left = free - adapter_bytes - step_bytes(config, value_bytes, step) - (_GRAPHS_BYTES if has_graphs else 0)
    gathered = min(MOST_GATHERED_BYTES, int(_GATHERED_SHARE * left))
    pool = 2 * (gathered // GRAPH_SHARE) if has_graphs else 0
    found = max(
        # Room for the longest request, or for one that fills the cache, in one call.
        left - pool - max(gathered, _longest_head_bytes(config, value_bytes)),
        int((left - pool - gathered) / (1 + _head_share(config))),
    )
    if found <= 0:
        raise EngineError(
            f"{free / 1e9:.1f} GB of the GPU are free beside the weights, and adapters and a step of {step.num_tokens} "
            "tokens need more; lower SIENN_ENGINE_STEP_TOKENS or SIENN_ADAPTER_CACHE_MAX_BYTES, or give the engine "
            "more of a GPU (SIENN_ENGINE_NUM_GPUS)"
        )
    return GpuShares(int(_CACHE_SHARE * found), gathered)


def _heads(config: Any) -> tuple[int, int]:
    """Return the key heads, and the heads that share one."""
    num_heads = int(getattr(config, "num_attention_heads", 0) or 1)
    num_key_heads = int(getattr(config, "num_key_value_heads", 0) or num_heads)
    return num_key_heads, num_heads // num_key_heads


def _head_share(config: Any) -> float:
    """Return the share of the cache that one key head of one layer is, with a copy for each head that shares it."""
    num_key_heads, group = _heads(config)
    return (1 + group) / (num_key_heads * int(getattr(config, "num_hidden_layers", 0) or 1))


def _longest_head_bytes(config: Any, value_bytes: int) -> float:
    """Return the bytes of one key head of the longest request, likewise; infinite where no length is known."""
    num_key_heads, group = _heads(config)
    size = getattr(config, "head_dim", None) or int(getattr(config, "hidden_size", 0) or 0) // (num_key_heads * group)
    num_tokens = context_tokens_of(config.to_dict())
    return float("inf") if num_tokens is None else (1 + group) * 2 * num_tokens * int(size) * value_bytes


def step_bytes(config: Any, value_bytes: int, step: StepSize) -> int:
    """Return the bytes of a step's activations and logits, and of what comes with any step or beside it."""
    hidden = int(getattr(config, "hidden_size", 0) or 0)
    inner = int(getattr(config, "intermediate_size", 0) or 4 * hidden)
    vocabulary = int(getattr(config, "vocab_size", 0) or 0)
    activations = step.num_tokens * (_HIDDEN_TENSORS * hidden + _INNER_TENSORS * inner) * value_bytes
    logits = _LOGIT_TENSORS * step.num_requests * vocabulary * 4  # float32
    return activations + logits + GAIN_BYTES + _FIXED_BYTES
