"""Errors of allocations: memory was too short, of a CPU or of a GPU."""

from __future__ import annotations

import torch

# Words of PyTorch's allocator for CPUs, the second ones on Linux; of cuBLAS, which allocates handles and workspaces
# itself; and of CUDA, where memory is short beside PyTorch's own.
_SHORT_OF_MEMORY = (
    "not enough memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed. PyTorch's allocator for GPUs has a class for that, others have words."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SHORT_OF_MEMORY)
