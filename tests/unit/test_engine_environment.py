"""The environments that vLLM runs in, as they are looked at before an engine is deployed."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray

from deployments.engine_environment import (
    Environment,
    NodeEnvironments,
    environment_fault,
    look,
    this_environment,
)

CLUSTER = Environment("3.11.7", "2.60.0", None, "0.2.0")
FIT = dataclasses.replace(CLUSTER, vllm="0.32.0")
PYTHON = Path("/opt/vllm/bin/python")


def fault_of(**changes: Any) -> str | None:
    return environment_fault(dataclasses.replace(FIT, **changes), CLUSTER, str(PYTHON))


@pytest.mark.parametrize("changes", [{}, {"python": "3.11.12"}, {"vllm": "0.33.1"}])
def test_an_environment_with_the_clusters_versions_is_fit(changes: dict[str, str]) -> None:
    assert fault_of(**changes) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"python": "3.12.7"}, "is Python 3.12.7, and the cluster runs Python 3.11.7"),
        ({"ray": "2.61.0"}, "has Ray 2.61.0, and the cluster has Ray 2.60.0; install 2.60.0 there"),
        ({"ray": None}, "has no Ray; install Ray 2.60.0 there"),
        ({"sienn_ray": "0.1.0"}, "has sienn_ray 0.1.0, and the cluster has sienn_ray 0.2.0"),
        ({"sienn_ray": None}, "has no sienn_ray"),
        ({"vllm": None}, "vLLM isn't installed"),
        ({"vllm": "0.29.0"}, "vLLM 0.29.0 is installed, and versions 0.32 to"),
    ],
)
def test_a_fault_names_both_versions(changes: dict[str, str | None], words: str) -> None:
    fault = fault_of(**changes)
    assert fault is not None
    assert str(PYTHON) in fault
    assert words in fault


def test_an_interpreter_tells_its_versions() -> None:
    found = look(sys.executable)
    assert isinstance(found, Environment)
    assert dataclasses.replace(found, vllm=None) == this_environment()
    assert found.ray == ray.__version__


@pytest.mark.parametrize(("program", "words"), [("missing", "can't be run"), ("false", "ended with 3: no luck")])
def test_an_interpreter_that_doesnt_run_says_why(tmp_path: Path, program: str, words: str) -> None:
    (tmp_path / "false").write_text("#!/bin/sh\necho no luck >&2; exit 3\n")
    (tmp_path / "false").chmod(0o755)
    found = look(str(tmp_path / program))
    assert isinstance(found, str)
    assert words in found


class FakeNodes:
    """A cluster's nodes.

    Args:
        found: What is found on each node; one that isn't there doesn't answer.
        num_gpus: GPUs of each node.
    """

    def __init__(self, found: dict[str, Environment | str], **num_gpus: float) -> None:
        self._found, self._num_gpus = found, num_gpus
        self.looked: list[tuple[str, str | None]] = []
        self.environments = NodeEnvironments(self._nodes, self._look_on)

    def _nodes(self) -> Sequence[Mapping[str, Any]]:
        gpus = self._num_gpus.items()
        return [{"NodeID": name, "Alive": name != "dead", "Resources": {"GPU": count}} for name, count in gpus]

    def _look_on(self, node_ids: Sequence[str], python: str | None) -> Mapping[str, Environment | str]:
        self.looked += [(node_id, python) for node_id in node_ids]
        return {node_id: self._found[node_id] for node_id in node_ids if node_id in self._found}


HERE = dataclasses.replace(this_environment(), vllm="0.32.0")


def test_each_node_that_may_get_the_engine_is_looked_at_once() -> None:
    nodes = FakeNodes({"head": HERE, "one": HERE, "two": HERE}, head=0, one=1, two=1, dead=1)
    for _ in range(2):
        assert nodes.environments.fault(PYTHON, needs_gpu=True) is None
    assert nodes.looked == [("one", str(PYTHON)), ("two", str(PYTHON))]


def test_a_node_that_lacks_it_is_named_and_looked_at_again() -> None:
    nodes = FakeNodes({"one": HERE, "two": dataclasses.replace(HERE, vllm=None)}, one=0, two=0)
    for _ in range(2):
        fault = nodes.environments.fault(None, needs_gpu=False)
        assert fault is not None
        assert fault.startswith("on node two, ")
        assert "vLLM isn't installed" in fault
    assert nodes.looked == [("one", None), ("two", None), ("two", None)]


def test_a_node_that_doesnt_answer_speaks_against_nothing() -> None:
    assert FakeNodes({"one": HERE}, one=1, gone=1).environments.fault(PYTHON, needs_gpu=True) is None


def test_nodes_that_are_yet_to_come_have_what_the_settings_name() -> None:
    nodes = FakeNodes({}, head=0)
    assert nodes.environments.fault(PYTHON, needs_gpu=True) is None
    assert nodes.environments.fault(None, needs_gpu=True) == "no node is there yet to look for vLLM on"
