from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig

from sienn_ray.errors import EngineError
from sienn_ray.inference.assigned_device import AssignedDevice
from sienn_ray.inference.model.device_memory import StepSize, free_bytes, gpu_shares

GIB = 1024**3
CONFIG = LlamaConfig(
    hidden_size=4096, intermediate_size=14336, num_attention_heads=32, num_key_value_heads=8, vocab_size=128_256
)
STEP = StepSize(8192, 32)


def test_an_8_billion_model_on_80_gb_keeps_some_hundred_thousand_tokens() -> None:
    # 80 GiB less 16 GB of weights.
    found = gpu_shares(CONFIG, 2, 64 * GIB, GIB, STEP, has_graphs=True)
    assert 380_000 < found.cache_bytes / (128 * 1024) < 440_000
    # 32 requests with 8,192 tokens each in one call of a layer, whether or not they share them.
    assert found.gathered_bytes == 32 * 8192 * 4096


def test_a_small_gpu_gathers_less_at_a_time() -> None:
    found = gpu_shares(CONFIG, 2, 6 * GIB, GIB, STEP, has_graphs=True)
    assert found.gathered_bytes < GIB // 4
    assert found.cache_bytes > GIB


@pytest.mark.parametrize("num_key_heads", [1, 32])
def test_the_longest_request_may_fill_the_cache(num_key_heads: int) -> None:
    config = LlamaConfig(
        hidden_size=4096,
        num_attention_heads=32,
        num_key_value_heads=num_key_heads,
        num_hidden_layers=18,
        max_position_embeddings=1 << 20,
    )
    left = 8 * GIB
    cache_bytes = gpu_shares(config, 2, left, 0, STEP, has_graphs=False).cache_bytes
    # Keys and values of a head of a layer, and copies for each head that shares it.
    head_bytes = cache_bytes / 18 / num_key_heads * (1 + 32 / num_key_heads)
    assert cache_bytes + head_bytes < left


def test_a_larger_step_more_adapters_and_graphs_leave_less() -> None:
    found = [
        gpu_shares(CONFIG, 2, 20 * GIB, adapter_bytes, StepSize(num_tokens, 32), has_graphs=has_graphs).cache_bytes
        for adapter_bytes, num_tokens, has_graphs in (
            (GIB, 256, False),
            (GIB, 8192, False),
            (4 * GIB, 8192, False),
            (4 * GIB, 8192, True),
        )
    ]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 4


def test_a_gpu_that_is_too_small_is_told_with_ways_out() -> None:
    with pytest.raises(EngineError, match=r"2\.1 GB of the GPU are free .* SIENN_ENGINE_STEP_TOKENS"):
        gpu_shares(CONFIG, 2, 2 * GIB, GIB, STEP, has_graphs=True)


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
