"""The Python environments of engines on the nodes: what they have, and what keeps vLLM from running in them.

A worker of another environment joins the cluster as any other does, so it needs the cluster's Ray and minor version of
Python; with others, Ray ends it or fails later and elsewhere. So each node is looked at before an engine is deployed.
"""

from __future__ import annotations

import functools
import json
import platform
import subprocess  # nosec B404 # the interpreter that the settings name, and no words of users
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sienn_ray import __version__
from sienn_ray.errors import EngineError
from sienn_ray.inference.vllm_engine.versions import check_version

# An interpreter that is slower says so itself, before nobody waits for its node any more.
_PROGRAM_TIMEOUT_S, _LOOK_TIMEOUT_S = 45.0, 60.0
# For so long a fault is remembered; a fit environment is for good.
_FAULT_LIFETIME_S = 60.0
# Prints versions without importing Ray or vLLM, which would take seconds.
_PROGRAM = """
import json, platform
from importlib import metadata
try:
    ray = metadata.version("ray")
except metadata.PackageNotFoundError:
    ray = None
try:
    from sienn_ray import __version__ as ours
    from sienn_ray.inference.vllm_engine.versions import installed_version
except ImportError:
    ours, installed_version = None, lambda: None
print(json.dumps(dict(python=platform.python_version(), ray=ray, vllm=installed_version(), sienn_ray=ours)))
"""


@dataclass(frozen=True)
class Environment:
    """Versions in a Python environment; None is a package that it doesn't have."""

    python: str
    ray: str | None
    vllm: str | None
    sienn_ray: str | None


def this_environment() -> Environment:
    """Return the versions of the cluster, which are those of this process; vLLM isn't looked for."""
    return Environment(platform.python_version(), ray.__version__, None, __version__)


def environment_fault(found: Environment, cluster: Environment, python: str) -> str | None:
    """Say why vLLM can't serve from an environment, or None where it can.

    Args:
        found: Its versions.
        cluster: The cluster's versions.
        python: What messages call the environment.
    """
    if _minor(found.python) != _minor(cluster.python):
        return f"{python} is Python {found.python}, and the cluster runs Python {cluster.python}"
    for name, has, needs in (
        ("Ray", found.ray, cluster.ray),
        ("sienn_ray", found.sienn_ray, cluster.sienn_ray),
    ):
        if has is None:
            return f"{python} has no {name}; install {name} {needs} there, the cluster's version"
        if has != needs:
            return f"{python} has {name} {has}, and the cluster has {name} {needs}; install {needs} there"
    try:
        check_version(found.vllm)
    except EngineError as error:
        return f"of {python}: {error.message}"
    return None


def _minor(version: str) -> str:
    return version.rpartition(".")[0]


def look(python: str | None) -> Environment | str:
    """Look at an interpreter of this node; the body of the Ray task.

    Args:
        python: Its path; None is the interpreter of Ray's workers.

    Returns:
        Its versions, or why it has none.
    """
    path = python or sys.executable
    try:
        done = subprocess.run(  # nosec B603 # no shell, and no words of users
            [path, "-P", "-c", _PROGRAM], capture_output=True, text=True, timeout=_PROGRAM_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{path} can't be run: {error}"
    if done.returncode != 0:
        return f"{path} ended with {done.returncode}: {done.stderr.strip()[-500:]}"
    # What is imported at an interpreter's start may print as well, and is done before.
    last = done.stdout.strip().rpartition("\n")[2]
    try:
        return Environment(**json.loads(last))
    except (ValueError, TypeError):
        return f"{path} told no versions, but {last[-500:]!r}"


@dataclass(frozen=True)
class _Fault:
    """Why vLLM can't serve on a node.

    Args:
        words: The reason.
        until_s: When the node is looked at again, on the clock.
        is_silence: The node has told nothing.
    """

    words: str
    until_s: float
    is_silence: bool


class NodeEnvironments:
    """Looks at the environments of the nodes that an engine may be placed on.

    Those that are fit are remembered for good, and the others for a minute. Callers who need the same look share it.

    Args:
        nodes: Ray's table of nodes.
        look_on: Looks at an interpreter on several nodes, by their ids; a node that doesn't answer is left out.
        clock: Tells seconds.
    """

    def __init__(
        self,
        nodes: Callable[[], Sequence[Mapping[str, Any]]] | None = None,
        look_on: Callable[[Sequence[str], str | None], Mapping[str, Environment | str]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nodes = nodes or ray.nodes
        self._look_on = look_on or look_on_nodes
        self._clock = clock
        self._fit: set[tuple[str, str | None]] = set()
        self._faults: dict[tuple[str, str | None], _Fault] = {}
        self._lock = threading.Lock()

    def fault(self, python: Path | None, *, needs_gpu: bool, trusts_silence: bool = False) -> str | None:
        """Say why vLLM can't serve on one of the nodes, or None where nothing speaks against it.

        Nodes that an autoscaler has yet to add are taken to have what the settings name. Waits for answers up to a
        minute.

        Args:
            python: Path of the interpreter on each node; None is the interpreter of Ray's workers.
            needs_gpu: Whether only nodes with GPUs count.
            trusts_silence: Whether nothing speaks against a node that doesn't answer.
        """
        path = None if python is None else str(python)
        ids = self._ids(needs_gpu=needs_gpu)
        if not ids:
            return None if path else "no node is there yet to look for vLLM on"
        if any((each, path) not in self._fit for each in ids):
            with self._lock:
                self._look_at_unknown(ids, path)
            ids = self._ids(needs_gpu=needs_gpu)  # one that has gone meanwhile says nothing
        for node_id in ids:
            found = self._faults.get((node_id, path))
            if found is not None and not (found.is_silence and trusts_silence):
                return f"on node {node_id[:8]}, {found.words}"
        return None

    def _ids(self, *, needs_gpu: bool) -> list[str]:
        return [node["NodeID"] for node in self._nodes() if node["Alive"] and (not needs_gpu or _has_gpu(node))]

    def _look_at_unknown(self, ids: Sequence[str], path: str | None) -> None:
        unknown = [each for each in ids if (each, path) not in self._fit and not self._is_faulty(each, path)]
        found = self._look_on(unknown, path) if unknown else {}
        until_s = self._clock() + _FAULT_LIFETIME_S
        for node_id in unknown:
            self._faults.pop((node_id, path), None)
            words = _words(found.get(node_id), path)
            if words is None:
                self._fit.add((node_id, path))
            else:
                self._faults[node_id, path] = _Fault(words, until_s, is_silence=node_id not in found)

    def _is_faulty(self, node_id: str, path: str | None) -> bool:
        known = self._faults.get((node_id, path))
        return known is not None and self._clock() < known.until_s


def _words(found: Environment | str | None, path: str | None) -> str | None:
    named = path or "the interpreter of Ray's workers"
    if found is None:
        return f"{named} gave no answer within {_LOOK_TIMEOUT_S:.0f} s"
    return found if isinstance(found, str) else environment_fault(found, this_environment(), named)


def _has_gpu(node: Mapping[str, Any]) -> bool:
    return float(node["Resources"].get("GPU", 0)) > 0


def look_on_nodes(node_ids: Sequence[str], python: str | None) -> dict[str, Environment | str]:
    """Look at an interpreter on several nodes at once, in Ray tasks that wait for no CPU, with one deadline for all."""
    tasks = {
        node_id: _task().options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)).remote(python)
        for node_id in node_ids
    }
    ray.wait(list(tasks.values()), num_returns=len(tasks), timeout=_LOOK_TIMEOUT_S)
    found: dict[str, Environment | str] = {}
    for node_id, task in tasks.items():
        try:
            found[node_id] = ray.get(task, timeout=0)
        except RayError:  # the node has gone, or is too busy to say; GetTimeoutError is one of these
            ray.cancel(task, force=True)
    return found


@functools.cache
def _task() -> Any:
    """The task of all looks: Ray keeps each function that is decorated for as long as the cluster lives."""
    return ray.remote(num_cpus=0, max_retries=1)(look)
