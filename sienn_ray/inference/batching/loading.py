"""The base model of an engine, loaded and made ready for steps on its device."""

from __future__ import annotations

import logging
from pathlib import Path

from transformers import PreTrainedModel

from sienn_ray.base_model import load_causal_lm
from sienn_ray.inference.assigned_device import AssignedDevice
from sienn_ray.inference.model.decode_graphs import CudaCapture
from sienn_ray.inference.model.device_memory import MOST_GATHERED_BYTES, GpuShares, StepSize, free_bytes, gpu_shares
from sienn_ray.inference.model.linear_choice import LinearChoices
from sienn_ray.inference.model.runner import ModelRunner, PackingError
from sienn_ray.precision import allow_tf32
from sienn_ray.settings import Settings

logger = logging.getLogger(__name__)


def load_runner(
    folder: Path, assigned: AssignedDevice, settings: Settings, block_tokens: int
) -> tuple[PreTrainedModel, ModelRunner]:
    """Load the base model, and a runner with the fastest layouts that the model can have."""
    assigned.limit_memory()
    allow_tf32()
    model = load_causal_lm(folder, assigned.device)
    choices = LinearChoices(settings.home / "cache" / "linear-layers.json")
    try:
        return model, _runner(model, assigned, settings, block_tokens, choices)
    except PackingError:
        logger.warning("%s can't have packed weights and will be slower", type(model).__name__)
    model = load_causal_lm(folder, assigned.device)
    return model, _runner(model, assigned, settings, block_tokens, None)


def _runner(
    model: PreTrainedModel,
    assigned: AssignedDevice,
    settings: Settings,
    block_tokens: int,
    choices: LinearChoices | None,
) -> ModelRunner:
    capture = CudaCapture() if assigned.device.type == "cuda" and settings.engine_cuda_graphs else None
    shares = _shares(model, assigned, settings, has_graphs=capture is not None)
    return ModelRunner(
        model,
        shares.cache_bytes,
        block_tokens,
        choices,
        capture=capture,
        adapter_bytes=None if assigned.device.type == "cpu" else _adapter_bytes(settings),
        gathered_bytes=shares.gathered_bytes,
    )


def _adapter_bytes(settings: Settings) -> int:
    """Return the bytes of a GPU for adapters in use; the cache of adapters counts the copies on the host as well."""
    return settings.adapter_cache_max_bytes // 2


def _shares(model: PreTrainedModel, assigned: AssignedDevice, settings: Settings, *, has_graphs: bool) -> GpuShares:
    """Return what the cache of keys and values, and an attention call, may take, once the weights are loaded."""
    if assigned.device.type == "cpu" or settings.engine_kv_cache_bytes is not None:
        return GpuShares(settings.cpu_kv_cache_bytes, MOST_GATHERED_BYTES)
    found = gpu_shares(
        model.config,
        model.dtype.itemsize,
        free_bytes(assigned),
        _adapter_bytes(settings),
        StepSize(settings.step_tokens(on_gpu=True), settings.engine_max_batch),
        has_graphs=has_graphs,
    )
    logger.info("%.1f GB of the GPU's memory are for keys and values", found.cache_bytes / 1e9)
    return found
