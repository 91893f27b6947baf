"""Errors after which a process can't compute on its device any more."""

from __future__ import annotations

from sienn_ray.memory_shortage import is_out_of_memory

# What PyTorch says of an illegal access, a failed assertion, an ECC error, or a device that has fallen off the bus. The
# context of the process is lost with each of them: every later call raises the same.
_CUDA_ERROR = "CUDA error"


def is_device_fault(error: BaseException) -> bool:
    """Return whether an error says that the device has failed, rather than one computation or its memory.

    Example:
        >>> is_device_fault(RuntimeError("CUDA error: an illegal memory access was encountered"))
        True
        >>> is_device_fault(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
        False
    """
    return _CUDA_ERROR in str(error) and not is_out_of_memory(error)
