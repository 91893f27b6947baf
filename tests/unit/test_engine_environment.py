"""The environments that vLLM runs in, as they are looked at before an engine is deployed."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import GetTimeoutError

from deployments import engine_environment
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


def test_what_else_an_interpreter_prints_isnt_its_answer(tmp_path: Path) -> None:
    (tmp_path / "chatty").write_text(f'#!/bin/sh\necho {{}} of a hook\nexec {sys.executable} "$@"\n')
    (tmp_path / "mute").write_text("#!/bin/sh\necho no versions here\n")
    for name in ("chatty", "mute"):
        (tmp_path / name).chmod(0o755)
    assert isinstance(look(str(tmp_path / "chatty")), Environment)
    assert look(str(tmp_path / "mute")) == f"{tmp_path}/mute told no versions, but 'no versions here'"


class FakeNodes:
    """A cluster's nodes.

    Args:
        found: What is found on each node; one that isn't there doesn't answer.
        num_gpus: GPUs of each node.
    """

    def __init__(self, found: dict[str, Environment | str], **num_gpus: float) -> None:
        self._found, self._num_gpus = found, num_gpus
        self.looked: list[tuple[str, str | None]] = []
        self.now_s = 0.0
        self.environments = NodeEnvironments(self._nodes, self._look_on, lambda: self.now_s)

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


def test_a_node_that_lacks_it_is_named_and_looked_at_again_after_a_minute() -> None:
    nodes = FakeNodes({"one": HERE, "two": dataclasses.replace(HERE, vllm=None)}, one=0, two=0)
    for nodes.now_s in (0.0, 59.0, 61.0):
        fault = nodes.environments.fault(None, needs_gpu=False)
        assert fault is not None
        assert fault.startswith("on node two, ")
        assert "vLLM isn't installed" in fault
    assert nodes.looked == [("one", None), ("two", None), ("two", None)]


@pytest.mark.parametrize("trusts_silence", [False, True])
def test_a_node_that_doesnt_answer_isnt_taken_to_have_it(trusts_silence: bool) -> None:
    nodes = FakeNodes({"one": HERE}, one=1, busy=1)
    for nodes.now_s in (0.0, 59.0):
        fault = nodes.environments.fault(PYTHON, needs_gpu=True, trusts_silence=trusts_silence)
        expected = None if trusts_silence else "on node busy, /opt/vllm/bin/python gave no answer within 60 s"
        assert fault == expected
    assert len(nodes.looked) == 2


def test_a_node_that_goes_while_it_is_looked_at_speaks_against_nothing() -> None:
    both: list[Mapping[str, Any]] = [{"NodeID": name, "Alive": True, "Resources": {}} for name in ("one", "two")]
    tables = [both, both[:1]]
    environments = NodeEnvironments(lambda: tables.pop(0), lambda *_: {"one": HERE})
    assert environments.fault(PYTHON, needs_gpu=False) is None


def test_callers_at_a_time_share_a_look() -> None:
    nodes = FakeNodes({"one": HERE}, one=1)
    with ThreadPoolExecutor(4) as threads:
        faults = [threads.submit(nodes.environments.fault, PYTHON, needs_gpu=True) for _ in range(4)]
    assert [each.result() for each in faults] == [None] * 4
    assert nodes.looked == [("one", str(PYTHON))]


def test_all_nodes_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    timeouts: list[float] = []

    class Task:
        def options(self, **_: Any) -> Task:
            return self

        def remote(self, python: str | None) -> str:
            return str(python)

    def get(task: str, timeout: float) -> Environment:
        timeouts.append(timeout)
        raise GetTimeoutError

    monkeypatch.setattr(engine_environment, "_task", Task)
    monkeypatch.setattr(ray, "wait", lambda tasks, num_returns, timeout: timeouts.append(timeout))
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "cancel", lambda task, force: None)
    assert engine_environment.look_on_nodes(["0" * 56, "1" * 56], None) == {}
    assert timeouts == [60.0, 0, 0]


def test_nodes_that_are_yet_to_come_have_what_the_settings_name() -> None:
    nodes = FakeNodes({}, head=0)
    assert nodes.environments.fault(PYTHON, needs_gpu=True) is None
    assert nodes.environments.fault(None, needs_gpu=True) == "no node is there yet to look for vLLM on"
