"""The arguments that vLLM is started with."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from sienn_ray.inference.vllm_engine.refusals import rank_bound
from sienn_ray.settings import Settings

# Of the GPU that an engine has to itself; vLLM's own default.
_MAX_GPU_SHARE = 0.92
# Adapters that are loaded before others are evicted for them, as many as `AdapterCache` loads at a time.
_LOADED_AHEAD = 8
# What /v1/chat/completions allows.
_MAX_LOGPROBS = 20
_SEED_LIMIT = 2**31


def engine_arguments(folder: Path, settings: Settings, *, is_cpu: bool, num_places: int) -> dict[str, Any]:
    """Return the arguments of `vllm.AsyncEngineArgs` for a base model; what isn't said here is vLLM's default.

    Args:
        folder: The base model's, on this machine; nothing is asked of the hub.
        settings: See `Settings`.
        is_cpu: Whether vLLM's build is the one for CPUs.
        num_places: Adapters that share a batch, for each of which memory is set aside.
    """
    num_gpus = settings.engine_tensor_parallel
    return {
        "model": str(folder),
        "skip_tokenizer_init": True,  # it gets tokens, and gives tokens
        "trust_remote_code": False,
        "generation_config": "vllm",  # a request says all of it
        "load_format": "safetensors",
        # float32 weights become the type that the GPU is fast with; on a CPU they give what the built-in engine gives.
        "dtype": "float32" if is_cpu else "auto",
        # Compiling for a CPU takes longer than it saves in the tests that this build is for.
        "enforce_eager": is_cpu,
        "max_model_len": -1,  # the base model's own, or as much as fits into the cache
        "max_num_seqs": settings.engine_max_batch,
        "max_num_batched_tokens": settings.engine_step_tokens,
        "max_logprobs": _MAX_LOGPROBS,
        "kv_cache_memory_bytes": _cache_bytes(settings, is_cpu),
        "gpu_memory_utilization": gpu_share(settings),
        "tensor_parallel_size": num_gpus,
        "distributed_executor_backend": "mp" if num_gpus > 1 else None,
        "enable_prefix_caching": True,
        "enable_lora": True,
        "max_lora_rank": rank_bound(settings.engine_max_lora_rank),
        "max_loras": num_places,
        "max_cpu_loras": max(num_places, settings.adapter_cache_max_count + _LOADED_AHEAD),
        # Requests without a seed: other replicas have to draw other numbers.
        "seed": secrets.randbelow(_SEED_LIMIT),
        "disable_log_stats": True,
        "enable_log_requests": False,
    }


def gpu_share(settings: Settings) -> float:
    """Return the part of each GPU's memory that vLLM takes; whole ones, and those that nobody assigns, are its own.

    With none, the build for CPUs has no use for it, and wants it to be more than 0 all the same.
    """
    return _MAX_GPU_SHARE * min(1.0, settings.engine_num_gpus or 1.0)


def variables(settings: Settings, *, is_cpu: bool) -> dict[str, str]:
    """Return the environment that vLLM and its processes are started with; what an operator has set stays.

    Args:
        settings: See `Settings`.
        is_cpu: Whether vLLM's build is the one for CPUs.
    """
    chosen = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        # Its loggers pass on what they have to the process's.
        "VLLM_CONFIGURE_LOGGING": "0",
        # A fork of a process that has threads may hang, and would inherit what tells the watchdog of this one's end.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    if is_cpu and (num_cpus := int(settings.engine_num_cpus)):
        cpus = sorted(os.sched_getaffinity(0))[:num_cpus] if hasattr(os, "sched_getaffinity") else range(num_cpus)
        chosen["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cpus))
    return {name: value for name, value in chosen.items() if name not in os.environ}


def _cache_bytes(settings: Settings, is_cpu: bool) -> int | None:
    """Bytes of the cache, where they were chosen: else vLLM takes what the GPU has left, or on a CPU a GiB."""
    return settings.cpu_kv_cache_bytes if is_cpu else settings.engine_kv_cache_bytes
