"""Places for adapters in a batch, each of which takes memory for the largest rank there may be, used or not."""

from __future__ import annotations

import logging

from sienn_ray.inference.vllm_engine.arguments import gpu_share
from sienn_ray.inference.vllm_engine.base_facts import BaseFacts
from sienn_ray.inference.vllm_engine.refusals import rank_bound
from sienn_ray.settings import Settings

logger = logging.getLogger(__name__)

_MAX_PLACES = 16
# Of the memory that the base model leaves; the cache of keys and values needs the rest, and what a step computes.
_MAX_SHARE = 1 / 3
# Of an adapter's weights, split between GPUs with the base model's; vLLM has the other half on each of them.
_SPLIT_SHARE = 1 / 2
_GB = 1e9


def lora_places(settings: Settings, base: BaseFacts, gpu_bytes: int | None) -> int:
    """Return how many adapters share a batch of a base model.

    Args:
        settings: See `Settings`.
        base: The base model.
        gpu_bytes: Memory of a GPU; None computes on a CPU, where adapters have the memory that they are kept in.
    """
    useful = min(_MAX_PLACES, settings.engine_max_batch, settings.adapter_cache_max_count)
    max_rank = rank_bound(settings.engine_max_lora_rank)
    place_bytes = max_rank * base.rank_bytes * _part_on_each(settings.engine_tensor_parallel)
    room_bytes = settings.adapter_cache_max_bytes if gpu_bytes is None else _room_bytes(settings, base, gpu_bytes)
    num_places = max(1, min(useful, int(room_bytes / max(1.0, place_bytes))))
    logger.info(
        "%d adapters of rank %d or less share a batch (%d at the most), and take %.1f GB of %s; a lower "
        "SIENN_ENGINE_MAX_LORA_RANK takes less",
        num_places,
        max_rank,
        useful,
        num_places * place_bytes / _GB,
        "memory" if gpu_bytes is None else "each GPU",
    )
    return num_places


def _part_on_each(num_gpus: int) -> float:
    return 1 - _SPLIT_SHARE + _SPLIT_SHARE / num_gpus


def _room_bytes(settings: Settings, base: BaseFacts, gpu_bytes: int) -> float:
    """Bytes for adapters on each GPU."""
    weight_bytes = base.weight_bytes / settings.engine_tensor_parallel
    return _MAX_SHARE * (gpu_share(settings) * gpu_bytes - weight_bytes - (settings.engine_kv_cache_bytes or 0))
