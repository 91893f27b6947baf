"""The memory that an engine's replica reserves."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import ray

from deployments.engine_memory import engine_memory_bytes
from sienn_ray import catalog
from sienn_ray.inference.applications import EngineKey
from sienn_ray.model_sizes import sizes_of_config
from sienn_ray.settings import GIB, MIB, EngineKind, Settings

KEY = EngineKey("owner/model")
CONFIG = {"hidden_size": 1024, "vocab_size": 1000, "intermediate_size": 4096, "num_hidden_layers": 10}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(env="test", home=tmp_path, engine_kv_cache_bytes=2 * GIB)
    folder = catalog.converted_folder(KEY.base_model, settings.models_dir)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return settings


@pytest.mark.parametrize(("num_gpus", "value_bytes", "cache_bytes"), [(0, 4, 2 * GIB), (1, 2, 0)])
def test_it_is_that_of_weights_in_the_dtype_that_is_loaded_and_of_the_cache(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, num_gpus: int, value_bytes: int, cache_bytes: int
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": float(num_gpus)})
    sizes = sizes_of_config(CONFIG)
    assert sizes is not None
    assert engine_memory_bytes(KEY, settings) == 700 * MIB + value_bytes * sizes.total + cache_bytes


@pytest.mark.parametrize("chosen", [0, 5 * GIB])
def test_it_can_be_chosen(settings: Settings, chosen: int) -> None:
    assert engine_memory_bytes(KEY, settings.model_copy(update={"engine_memory_bytes": chosen})) == chosen


def test_vllm_has_further_processes_one_with_adapters_for_each_gpu(settings: Settings) -> None:
    ours = settings.model_copy(
        update={"engine": EngineKind.BUILTIN, "engine_num_gpus": 1.0, "adapter_cache_max_bytes": 500 * MIB}
    )
    one = ours.model_copy(update={"engine": EngineKind.VLLM})
    two = one.model_copy(update={"engine_tensor_parallel": 2})
    on_cpu = [each.model_copy(update={"engine_num_gpus": 0.0}) for each in (ours, one)]
    assert engine_memory_bytes(KEY, on_cpu[1]) - engine_memory_bytes(KEY, on_cpu[0]) == 1900 * MIB
    needed = [engine_memory_bytes(KEY, each) for each in (ours, one, two)]
    assert [later - earlier for earlier, later in pairwise(needed)] == [2400 * MIB, 1700 * MIB]
