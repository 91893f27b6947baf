from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig

from sienn_ray.errors import EngineError
from sienn_ray.inference.assigned_device import AssignedDevice
from sienn_ray.inference.model.device_memory import StepSize, free_bytes, gpu_cache_bytes, step_bytes

GIB = 1024**3
CONFIG = LlamaConfig(
    hidden_size=4096, intermediate_size=14336, num_attention_heads=32, num_key_value_heads=8, vocab_size=128_256
)
STEP = StepSize(8192, 32)


def test_an_8_billion_model_on_80_gb_keeps_some_hundred_thousand_tokens() -> None:
    # 80 GiB less 16 GB of weights.
    found = gpu_cache_bytes(CONFIG, 2, 64 * GIB, GIB, STEP)
    assert 300_000 < found / (128 * 1024) < 400_000
    gathered = found * (2 + 4) / CONFIG.num_hidden_layers
    assert found + gathered + GIB + step_bytes(CONFIG, 2, STEP) < 64 * GIB


def test_a_larger_step_and_more_adapters_leave_less() -> None:
    found = [
        gpu_cache_bytes(CONFIG, 2, 20 * GIB, adapter_bytes, StepSize(num_tokens, 32))
        for adapter_bytes, num_tokens in ((GIB, 256), (GIB, 8192), (4 * GIB, 8192))
    ]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 3


def test_a_gpu_that_is_too_small_is_told_with_ways_out() -> None:
    with pytest.raises(EngineError, match=r"2\.1 GB of the GPU are free .* SIENN_ENGINE_STEP_TOKENS"):
        gpu_cache_bytes(CONFIG, 2, 2 * GIB, GIB, STEP)


@pytest.mark.parametrize(
    ("share", "free", "allocated", "expected"),
    [
        (1.0, 70 * GIB, 10 * GIB, 70 * GIB),
        # Others may not have taken their part yet.
        (0.25, 70 * GIB, 10 * GIB, 10 * GIB),
        # Others have taken more than theirs.
        (0.25, 5 * GIB, 10 * GIB, 5 * GIB),
    ],
)
def test_a_part_of_a_gpu_is_a_part_of_its_memory(
    monkeypatch: pytest.MonkeyPatch, share: float, free: int, allocated: int, expected: int
) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: allocated)
    assert free_bytes(AssignedDevice(torch.device("cuda"), share)) == expected
