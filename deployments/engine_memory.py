"""Memory of an engine's replica: what it reserves, and whether there is a node that has so much."""

from __future__ import annotations

import ray

from deployments.engine_choice import num_gpus_of
from sienn_ray import catalog
from sienn_ray.errors import CapacityError
from sienn_ray.inference.applications import EngineKey
from sienn_ray.model_sizes import model_sizes
from sienn_ray.settings import GIB, MIB, EngineKind, Settings

# Python with torch, transformers and a tokenizer, measured without any weights.
_PROGRAM_BYTES = 700 * MIB
# What vLLM starts beside the replica: its scheduler, and a worker for each GPU.
_VLLM_SCHEDULER_BYTES, _VLLM_WORKER_BYTES = 700 * MIB, 1200 * MIB
_CPU_VALUE_BYTES, _GPU_VALUE_BYTES = 4, 2  # float32, and bfloat16
_NO_ROOM_RETRY_AFTER_S = 60
_GB = 1e9


def engine_memory_bytes(key: EngineKey, settings: Settings) -> int:
    """Bytes of a node's memory that a replica reserves; 0 reserves none.

    On a GPU its cache of keys and values lies there, and the weights pass through the node's memory.

    Args:
        key: The engine.
        settings: See `Settings`.
    """
    if settings.engine_memory_bytes is not None:
        return settings.engine_memory_bytes
    has_gpu = num_gpus_of(key.base_model, settings) > 0
    sizes = model_sizes(key.base_model, settings, key.revision)
    value_bytes = _GPU_VALUE_BYTES if has_gpu else _CPU_VALUE_BYTES
    weights_bytes = _catalog_bytes(key.base_model) if sizes is None else sizes.total * value_bytes
    return _program_bytes(settings, has_gpu=has_gpu) + weights_bytes + (0 if has_gpu else settings.cpu_kv_cache_bytes)


def _program_bytes(settings: Settings, *, has_gpu: bool) -> int:
    if settings.engine is not EngineKind.VLLM:
        return _PROGRAM_BYTES
    # Each worker keeps all loaded adapters whole in the node's memory, beside their places on its GPU.
    worker_bytes = _VLLM_WORKER_BYTES + (settings.adapter_cache_max_bytes if has_gpu else 0)
    return _PROGRAM_BYTES + _VLLM_SCHEDULER_BYTES + settings.engine_tensor_parallel * worker_bytes


def _catalog_bytes(base_model: str) -> int:
    return next((entry.vram_required_gb * GIB for entry in catalog.CATALOG if entry.id == base_model), 0)


def check_fits(key: EngineKey, need_bytes: int, settings: Settings) -> None:
    """Check that a node has the memory, busy or not.

    Raises:
        CapacityError: None has.
    """
    if fits(need_bytes, settings):
        return
    raise CapacityError(
        f"the engine of {key} needs {need_bytes / _GB:.1f} GB of memory, and the largest node gives "
        f"{_largest_bytes(settings) / _GB:.1f} GB; choose a smaller base model, lower SIENN_ENGINE_KV_CACHE_BYTES, or "
        "add a larger node (SIENN_ENGINE_NODE_MEMORY_BYTES names one that an autoscaler adds)",
        retry_after_s=_NO_ROOM_RETRY_AFTER_S,
    )


def fits(need_bytes: int, settings: Settings) -> bool:
    """Return whether a node has the memory, busy or not."""
    return not need_bytes or need_bytes <= _largest_bytes(settings)


def _largest_bytes(settings: Settings) -> int:
    return max(largest_node_bytes(), settings.engine_node_memory_bytes or 0)


def largest_node_bytes() -> int:
    """Memory that the largest node gives to replicas and tasks."""
    return max((int(node["Resources"].get("memory", 0)) for node in ray.nodes() if node["Alive"]), default=0)


def free_bytes() -> int:
    """Memory of all nodes that nothing has reserved."""
    return int(ray.available_resources().get("memory", 0))
