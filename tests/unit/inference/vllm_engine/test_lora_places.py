from __future__ import annotations

import logging
from typing import Any

import pytest

from sienn_ray.inference.vllm_engine.base_facts import BaseFacts, LayerShape
from sienn_ray.inference.vllm_engine.lora_places import lora_places
from sienn_ray.settings import GIB, EngineKind, Settings

KV = 1024


def llama(num_layers: int, width: int, num_parameters: int) -> BaseFacts:
    """Llama 3's linear layers."""
    mlp = width * 7 // 2
    shapes = [(width, width), (KV, width), (KV, width), (width, width), (mlp, width), (mlp, width), (width, mlp)]
    layers = {f"{layer}.{at}": LayerShape(each) for layer in range(num_layers) for at, each in enumerate(shapes)}
    return BaseFacts(None, frozenset(), layers, num_parameters)


LLAMA_8B = llama(32, 4096, 8_030_000_000)
LLAMA_70B = llama(80, 8192, 70_600_000_000)


def places(base: BaseFacts = LLAMA_8B, gpu_bytes: int | None = 80 * GIB, **changes: Any) -> int:
    return lora_places(Settings(engine=EngineKind.VLLM, **changes), base, gpu_bytes)


@pytest.mark.parametrize(("gpu_gib", "num"), [(80, 16), (48, 16), (32, 15), (24, 7), (16, 1)])
def test_a_gpu_has_as_many_as_the_base_model_leaves_room_for(gpu_gib: int, num: int) -> None:
    assert places(gpu_bytes=gpu_gib * GIB) == num


def test_by_default_eight_of_the_largest_rank_are_loaded_and_share_a_batch() -> None:
    settings = Settings(engine=EngineKind.VLLM)
    assert lora_places(settings, LLAMA_8B, 32 * GIB) >= 8
    assert settings.adapter_cache_max_bytes >= 8 * settings.engine_max_lora_rank * LLAMA_8B.rank_bytes


@pytest.mark.parametrize(("max_rank", "num"), [(16, 16), (24, 15), (64, 7), (256, 1), (512, 1)])
def test_a_larger_rank_leaves_fewer(max_rank: int, num: int) -> None:
    assert places(gpu_bytes=24 * GIB, engine_max_lora_rank=max_rank) == num


def test_a_base_model_that_is_split_leaves_more_of_each_gpu() -> None:
    """Half of an adapter's weights are split as well, the other half is on each GPU."""
    assert places(LLAMA_70B, engine_tensor_parallel=2) == 2
    assert places(LLAMA_70B, engine_tensor_parallel=4) > 8


def test_a_share_of_a_gpu_and_its_cache_are_left_out() -> None:
    assert places(gpu_bytes=48 * GIB, engine_num_gpus=0.5) == places(gpu_bytes=24 * GIB)
    assert places(gpu_bytes=48 * GIB, engine_kv_cache_bytes=22 * GIB) < places(gpu_bytes=48 * GIB) // 2


def test_on_a_cpu_they_have_the_memory_of_the_cache() -> None:
    assert places(gpu_bytes=None, adapter_cache_max_bytes=2 * GIB) == 6
    assert places(gpu_bytes=None, adapter_cache_max_bytes=1) == 1


def test_there_are_no_more_than_adapters_in_a_batch() -> None:
    assert places(engine_max_batch=4) == 4
    assert places(adapter_cache_max_count=3) == 3


def test_the_log_says_how_many(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        places(gpu_bytes=24 * GIB)
    assert "7 adapters of rank 64 or less share a batch (16 at the most)" in caplog.text
    assert "2.3 GB of each GPU" in caplog.text
    assert "SIENN_ENGINE_MAX_LORA_RANK" in caplog.text
