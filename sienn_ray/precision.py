"""The data types that a device multiplies fast, for training and serving alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Compute capability of Ampere, the first NVIDIA GPUs with products in bfloat16.
_BFLOAT16_CAPABILITY = (8, 0)


def half_type(device: torch.device) -> torch.dtype:
    """Return the type of 2 bytes that a GPU multiplies by its tensor cores: bfloat16, or float16 on Volta and Turing.

    PyTorch emulates bfloat16 on those, which is slower than float32.
    """
    import torch

    if torch.version.hip is not None or torch.cuda.get_device_capability(device) >= _BFLOAT16_CAPABILITY:
        return torch.bfloat16
    return torch.float16


def serving_type(device: torch.device) -> torch.dtype:
    """Return the type that a base model is served in: one of 2 bytes on a GPU, and float32 elsewhere."""
    import torch

    return half_type(device) if device.type == "cuda" else torch.float32


def allow_tf32() -> None:
    """Let a GPU's float32 products use TensorFloat-32: what is left in float32 is small, and needn't be exact."""
    import torch

    torch.set_float32_matmul_precision("high")
