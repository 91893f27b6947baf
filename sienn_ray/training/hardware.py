"""Precision, threads and memory of a worker, by the hardware that it was given."""

from __future__ import annotations

import resource
from typing import assert_never

import psutil
import torch

from sienn_ray.compute_threads import compute_here, usable_cpus
from sienn_ray.precision import half_type
from sienn_ray.training.config import Precision

# What `torch.cpu.get_capabilities` calls instructions for products in bfloat16.
_FAST_BFLOAT16 = ("avx512_bf16", "amx_bf16", "amx_tile", "bf16")


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the base model's data type: of 2 bytes where the hardware multiplies such faster than float32.

    Told from what the hardware says of itself: a measurement could come out differently when the run is repeated.
    """
    match precision:
        case "auto":
            return _fast_type(device)
        case "bfloat16":
            return torch.bfloat16
        case "float16":
            return torch.float16
        case "float32":
            return torch.float32
        case _:
            assert_never(precision)


def _fast_type(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return half_type(device)
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return torch.bfloat16 if any(capabilities.get(name, False) for name in _FAST_BFLOAT16) else torch.float32


def use_all_cpus(num_cpus: int) -> int:
    """Have the calling thread compute, with as many threads as this worker has CPUs; returns how many that is."""
    num_threads = max(1, min(num_cpus, usable_cpus()))
    compute_here(num_threads)
    return num_threads


def free_memory_bytes(device: torch.device) -> int:
    """Memory that is left for activations on a device, with what PyTorch's allocator has taken and doesn't use."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    return int(psutil.virtual_memory().available)


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory that this process had on a GPU, or on a CPU resident."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
