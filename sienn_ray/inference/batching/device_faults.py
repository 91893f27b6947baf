"""Errors after which a process can't compute on its device any more."""

from __future__ import annotations

import torch

# What PyTorch says of an illegal access, a failed assertion, an ECC error, or a device that has fallen off the bus. The
# context of the process is lost with each of them: every later call raises the same.
_CUDA_ERROR = "CUDA error"


def is_device_fault(error: BaseException) -> bool:
    """Return whether an error says that the device has failed, rather than one computation or its memory.

    Example:
        >>> is_device_fault(RuntimeError("CUDA error: an illegal memory access was encountered"))
        True
        >>> is_device_fault(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
        False
    """
    return not isinstance(error, torch.OutOfMemoryError) and _CUDA_ERROR in str(error)
