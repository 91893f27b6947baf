from __future__ import annotations

import pytest
import torch

from sienn_ray.inference.batching.device_faults import is_device_fault
from sienn_ray.memory_shortage import is_out_of_memory


def test_words_of_torch_s_allocator_are_known() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**46, dtype=torch.float32)
    assert is_out_of_memory(error.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
        RuntimeError("CUDA driver error: out of memory"),
    ],
)
def test_so_are_those_of_gpus_and_pythons_own(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape mismatch"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        ValueError("not enough memory"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_others_are_others(error: BaseException) -> None:
    assert not is_out_of_memory(error)


def test_a_gpu_whose_memory_is_short_has_not_failed() -> None:
    """An engine ends with its device, and only the request that asked too much with its memory."""
    words = "CUDA error: {}; CUDA kernel errors might be asynchronously reported"
    assert not is_device_fault(RuntimeError(words.format("out of memory")))
    assert not is_device_fault(RuntimeError(words.format("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`")))
    assert is_device_fault(RuntimeError(words.format("device-side assert triggered")))
