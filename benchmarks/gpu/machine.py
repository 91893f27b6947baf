"""The machine: card, versions, and the rates that nothing on it can exceed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from checks import Check, Figure, Place

_PACKAGES = (
    "torch", "triton", "transformers", "peft", "accelerate", "safetensors", "pydantic", "liger_kernel", "trl",
    "datasets", "bitsandbytes",
)  # fmt: skip
_REPEATS = 10


def describe(place: Place) -> Iterator[Figure]:
    """Name card and versions, and which of PyTorch's newer functions are there."""
    import inspect
    import platform

    import torch

    place.facts["versions"] = {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES}
    try:
        from torch.nn.attention.varlen import varlen_attn

        place.facts["varlen_attn"] = str(inspect.signature(varlen_attn))
    except ImportError:
        place.facts["varlen_attn"] = None
    if place.device == "cuda":
        place.facts["card"] = torch.cuda.get_device_name()
        place.facts["capability"] = list(torch.cuda.get_device_capability())
        place.facts["cuda"] = torch.version.cuda
        free, total = torch.cuda.mem_get_info()
        yield Figure("memory of the device", total / 2**30, "GiB")
        yield Figure("free memory at the start", free / 2**30, "GiB")
    else:
        place.facts["card"] = "none (CPU)"
        place.facts["cuda"] = None
    yield Figure("threads", torch.get_num_threads())


def ceilings(place: Place) -> Iterator[Figure]:
    """Measure the two rates that bound all others: products in bfloat16, and copies."""
    import torch
    from timing import seconds_of

    size = 256 if place.is_rehearsal else 8192
    x, y = (torch.randn(size, size, device=place.device, dtype=torch.bfloat16) for _ in range(2))
    seconds = seconds_of(lambda: x @ y, place.device, _REPEATS)
    place.kept["flops"] = 2 * size**3 / seconds
    yield Figure(f"product of {size} x {size} bfloat16 matrices", place.kept["flops"] / 1e12, "TFLOP/s")
    source = torch.randn(2**16 if place.is_rehearsal else 2**30, device=place.device)
    target = torch.empty_like(source)
    seconds = seconds_of(lambda: target.copy_(source), place.device, _REPEATS)
    yield Figure("copy on the device, bytes read and written", 2 * source.nbytes / seconds / 1e12, "TB/s")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


CHECKS = (Check("machine/versions", describe, 60.0), Check("machine/ceilings", ceilings, 30.0))
