"""The memory of a GPU: what the cache of keys and values gets beside weights, adapters and a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sienn_ray.errors import EngineError
from sienn_ray.inference.assigned_device import AssignedDevice
from sienn_ray.inference.model.lora_weights import GAIN_BYTES

_MIB = 1024**2
# Of what is left for the cache; the rest is for what PyTorch's allocator can't use between its pieces.
_CACHE_SHARE = 0.9
# Masks, products' work spaces, captured graphs, and a margin.
_FIXED_BYTES = 768 * _MIB
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


def gpu_cache_bytes(config: Any, value_bytes: int, free: int, adapter_bytes: int, step: StepSize) -> int:
    """Return the bytes that the cache of keys and values may take.

    Each layer gathers the keys and values of a step's requests, padded to at most twice as many, and those of prompts
    once more for each head; no other layer's are there at the same time.

    Args:
        config: The base model's configuration.
        value_bytes: Bytes of an activation's value.
        free: Bytes that are free once the weights are loaded.
        adapter_bytes: Bytes that adapters in use may take.
        step: The largest step.

    Raises:
        EngineError: Nothing is left.
    """
    left = free - adapter_bytes - step_bytes(config, value_bytes, step)
    num_layers = int(getattr(config, "num_hidden_layers", 0) or 1)
    num_heads = int(getattr(config, "num_attention_heads", 0) or 1)
    group = num_heads // int(getattr(config, "num_key_value_heads", 0) or num_heads)
    found = int(_CACHE_SHARE * left / (1 + (2 + group) / num_layers))
    if found <= 0:
        raise EngineError(
            f"{free / 1e9:.1f} GB of the GPU are free beside the weights, and adapters and a step of {step.num_tokens} "
            "tokens need more; lower SIENN_ENGINE_STEP_TOKENS or SIENN_ADAPTER_CACHE_MAX_BYTES, or give the engine "
            "more of a GPU (SIENN_ENGINE_NUM_GPUS)"
        )
    return found


def step_bytes(config: Any, value_bytes: int, step: StepSize) -> int:
    """Return the bytes of a step's activations and logits, and of what comes with any step or beside it."""
    hidden = int(getattr(config, "hidden_size", 0) or 0)
    inner = int(getattr(config, "intermediate_size", 0) or 4 * hidden)
    vocabulary = int(getattr(config, "vocab_size", 0) or 0)
    activations = step.num_tokens * (_HIDDEN_TENSORS * hidden + _INNER_TENSORS * inner) * value_bytes
    logits = _LOGIT_TENSORS * step.num_requests * vocabulary * 4  # float32
    return activations + logits + GAIN_BYTES + _FIXED_BYTES
