from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sienn_ray.inference.vllm_engine.arguments import engine_arguments, variables
from sienn_ray.settings import EngineKind, Settings


def arguments(is_cpu: bool = False, num_places: int = 16, **changes: Any) -> dict[str, Any]:
    settings = Settings(engine=EngineKind.VLLM, **changes)
    return engine_arguments(Path("/models/it"), settings, is_cpu=is_cpu, num_places=num_places)


def test_nothing_is_run_that_a_model_brings_or_asked_of_the_hub() -> None:
    found = arguments()
    assert (found["model"], found["trust_remote_code"], found["load_format"]) == ("/models/it", False, "safetensors")


def test_a_batch_is_as_large_as_the_queue_in_front_of_it_thinks() -> None:
    assert arguments(engine_max_batch=48)["max_num_seqs"] == 48


def test_a_step_has_the_tokens_that_are_set_and_else_what_vllm_thinks() -> None:
    assert arguments(engine_step_tokens=512)["max_num_batched_tokens"] == 512
    assert arguments()["max_num_batched_tokens"] is None


@pytest.mark.parametrize("is_cpu", [False, True])
def test_the_cache_is_as_large_as_is_set(is_cpu: bool) -> None:
    assert arguments(is_cpu, engine_kv_cache_bytes=5 << 30)["kv_cache_memory_bytes"] == 5 << 30


def test_where_nothing_is_set_a_gpu_is_filled_and_a_machine_is_not() -> None:
    every_field = Settings().model_dump(exclude={"engine"})
    assert arguments()["kv_cache_memory_bytes"] is arguments(**every_field)["kv_cache_memory_bytes"] is None
    assert arguments(is_cpu=True)["kv_cache_memory_bytes"] == 1 << 30


@pytest.mark.parametrize(("max_rank", "bound"), [(16, 16), (24, 32), (512, 512)])
def test_each_place_is_for_the_largest_rank(max_rank: int, bound: int) -> None:
    found = arguments(num_places=7, engine_max_lora_rank=max_rank)
    assert (found["max_lora_rank"], found["max_loras"]) == (bound, 7)
    assert found["max_cpu_loras"] >= found["max_loras"]


def test_vllm_never_forgets_an_adapter_before_the_cache_in_front_of_it_does() -> None:
    assert arguments(adapter_cache_max_count=40)["max_cpu_loras"] >= 48


@pytest.mark.parametrize(("num_gpus", "share"), [(None, 0.92), (0.0, 0.92), (0.25, 0.23), (1.0, 0.92), (2.0, 0.92)])
def test_a_part_of_a_gpu_is_not_taken_for_all_of_it(num_gpus: float | None, share: float) -> None:
    assert arguments(engine_num_gpus=num_gpus)["gpu_memory_utilization"] == pytest.approx(share)


def test_several_gpus_have_processes_of_their_own() -> None:
    found = arguments(engine_tensor_parallel=4)
    assert (found["tensor_parallel_size"], found["distributed_executor_backend"]) == (4, "mp")


def test_on_a_cpu_numbers_are_those_of_the_engine_of_our_own() -> None:
    assert (arguments(is_cpu=True)["dtype"], arguments(is_cpu=True)["enforce_eager"]) == ("float32", True)
    assert arguments()["dtype"] == "auto"


def test_replicas_draw_other_numbers() -> None:
    assert len({arguments()["seed"] for _ in range(8)}) > 1


class TestVariables:
    def test_nothing_is_told_to_vllms_makers(self) -> None:
        found = variables(Settings(), is_cpu=False)
        assert (found["VLLM_NO_USAGE_STATS"], found["DO_NOT_TRACK"], found["HF_HUB_OFFLINE"]) == ("1", "1", "1")

    def test_what_an_operator_has_set_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VLLM_CONFIGURE_LOGGING", "1")
        assert "VLLM_CONFIGURE_LOGGING" not in variables(Settings(), is_cpu=False)

    def test_it_computes_on_as_many_cpus_as_are_reserved(self) -> None:
        first = min(os.sched_getaffinity(0))
        assert variables(Settings(engine_num_cpus=1), is_cpu=True)["VLLM_CPU_OMP_THREADS_BIND"] == str(first)
        assert "VLLM_CPU_OMP_THREADS_BIND" not in variables(Settings(), is_cpu=True)
