"""Which engine serves a base model, by the settings and the nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray

from deployments.engine_choice import engine_kind, with_kind
from deployments.engine_environment import Environment, NodeEnvironments, this_environment
from sienn_ray.errors import EngineError
from sienn_ray.inference.applications import EngineKey
from sienn_ray.settings import EngineKind, Settings

BASE_MODEL = "some/base"
FIT = Environment(this_environment().python, this_environment().ray, "0.32.0", this_environment().sienn_ray)
PYTHON = Path("/opt/vllm/bin/python")


def on_a_node(found: Environment | str | None, num_gpus: float = 1.0) -> NodeEnvironments:
    """A cluster of one node, which may not answer."""

    def look_on(node_ids: Sequence[str], python: str | None) -> Mapping[str, Environment | str]:
        return {} if found is None else dict.fromkeys(node_ids, found)

    resources: dict[str, Any] = {"CPU": 8.0} | ({"GPU": num_gpus} if num_gpus else {})
    return NodeEnvironments(lambda: [{"NodeID": "0" * 56, "Alive": True, "Resources": resources}], look_on)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    resources: dict[str, float] = {"CPU": 8.0}
    monkeypatch.setattr(ray, "cluster_resources", lambda: resources)
    return resources


@pytest.mark.parametrize(
    ("num_gpus", "found", "expected"),
    [
        (0, FIT, EngineKind.BUILTIN),  # a laptop, even one with vLLM
        (1, FIT, EngineKind.VLLM),
        (1, Environment(FIT.python, FIT.ray, None, FIT.sienn_ray), EngineKind.BUILTIN),
        (1, None, EngineKind.BUILTIN),
    ],
)
def test_auto_is_vllm_where_it_is_installed_and_a_gpu_is_reserved(
    cluster: dict[str, float], num_gpus: int, found: Environment | None, expected: EngineKind
) -> None:
    cluster |= {"GPU": 1.0} if num_gpus else {}
    assert engine_kind(BASE_MODEL, Settings(), on_a_node(found, num_gpus)) is expected


def test_auto_leaves_an_engine_without_a_gpu_to_ours(cluster: dict[str, float]) -> None:
    cluster |= {"GPU": 1.0}
    assert engine_kind(BASE_MODEL, Settings(engine_num_gpus=0), on_a_node(FIT)) is EngineKind.BUILTIN


def test_vllm_may_run_without_a_gpu_where_it_is_named(cluster: dict[str, float]) -> None:
    assert engine_kind(BASE_MODEL, Settings(engine="vllm"), on_a_node(FIT, num_gpus=0)) is EngineKind.VLLM


def test_where_vllm_is_named_a_node_that_is_too_busy_to_say_is_tried(cluster: dict[str, float]) -> None:
    assert engine_kind(BASE_MODEL, Settings(engine="vllm"), on_a_node(None)) is EngineKind.VLLM


def test_where_vllm_is_named_and_absent_the_error_says_on_which_node_and_why(cluster: dict[str, float]) -> None:
    absent = on_a_node(f"{PYTHON} can't be run: no such file", num_gpus=0)
    with pytest.raises(EngineError, match=r"^SIENN_ENGINE is vllm, .* on node 00000000, /opt/vllm/bin/python can't be"):
        engine_kind(BASE_MODEL, Settings(engine="vllm", engine_python=PYTHON), absent)


def test_an_engines_settings_have_its_kind_and_its_gpus(cluster: dict[str, float]) -> None:
    settings = Settings(engine="vllm", engine_tensor_parallel=4)
    told = with_kind(EngineKey(BASE_MODEL, kind=EngineKind.VLLM), settings)
    assert (told.engine, told.engine_num_gpus) == (EngineKind.VLLM, 4.0)


def test_an_engine_of_a_certain_kind_isnt_chosen(cluster: dict[str, float]) -> None:
    cluster |= {"GPU": 1.0}
    told = with_kind(EngineKey("Qwen/Qwen2.5-0.5B-Instruct", kind=EngineKind.BUILTIN), Settings())
    assert (told.engine, told.engine_num_gpus) == (EngineKind.BUILTIN, 0.25)
