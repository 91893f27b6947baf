"""The device that an engine may compute on, and its share of that device's memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class AssignedDevice:
    """A device.

    Args:
        device: Where to compute.
        memory_share: Part of its memory that is this process's, at most 1.
    """

    device: torch.device
    memory_share: float = 1.0

    def limit_memory(self) -> None:
        """Have allocations fail beyond the share, so that they don't fail in another process."""
        if self.device.type == "cuda" and self.memory_share < 1:
            torch.cuda.set_per_process_memory_fraction(self.memory_share)


def assigned_device(num_gpus: float | None) -> AssignedDevice:
    """Return a GPU only where one was assigned; seeing one isn't enough, since Ray hides none from who asks for none.

    Args:
        num_gpus: GPUs that were assigned, also a part of one; None where nobody assigns any, and every GPU that
            CUDA_VISIBLE_DEVICES leaves is this process's.
    """
    assigned = 1.0 if num_gpus is None else num_gpus
    if assigned <= 0 or not torch.cuda.is_available():
        return AssignedDevice(torch.device("cpu"))
    return AssignedDevice(torch.device("cuda"), min(assigned, 1.0))
