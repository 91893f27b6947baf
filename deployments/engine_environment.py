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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sienn_ray import __version__
from sienn_ray.errors import EngineError
from sienn_ray.inference.vllm_engine.versions import check_version

_LOOK_TIMEOUT_S = 60.0
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
            [path, "-P", "-c", _PROGRAM], capture_output=True, text=True, timeout=_LOOK_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{path} can't be run: {error}"
    if done.returncode != 0:
        return f"{path} ended with {done.returncode}: {done.stderr.strip()[-500:]}"
    return Environment(**json.loads(done.stdout))


class NodeEnvironments:
    """Looks at the environments of the nodes that an engine may be placed on; remembers those that are fit.

    Args:
        nodes: Ray's table of nodes.
        look_on: Looks at an interpreter on several nodes, by their ids; a node that doesn't answer is left out.
    """

    def __init__(
        self,
        nodes: Callable[[], Sequence[Mapping[str, Any]]] | None = None,
        look_on: Callable[[Sequence[str], str | None], Mapping[str, Environment | str]] | None = None,
    ) -> None:
        self._nodes = nodes or ray.nodes
        self._look_on = look_on or look_on_nodes
        self._fit: set[tuple[str, str | None]] = set()

    def fault(self, python: Path | None, *, needs_gpu: bool) -> str | None:
        """Say why vLLM can't serve on one of the nodes, or None where nothing speaks against it.

        Nodes that an autoscaler has yet to add are taken to have what the settings name.

        Args:
            python: Path of the interpreter on each node; None is the interpreter of Ray's workers.
            needs_gpu: Whether only nodes with GPUs count.
        """
        path = None if python is None else str(python)
        ids = [node["NodeID"] for node in self._nodes() if node["Alive"] and (not needs_gpu or _has_gpu(node))]
        if not ids:
            return None if path else "no node is there yet to look for vLLM on"
        unknown = [each for each in ids if (each, path) not in self._fit]
        for node_id, found in (self._look_on(unknown, path) if unknown else {}).items():
            named = path or "the interpreter of Ray's workers"
            fault = found if isinstance(found, str) else environment_fault(found, this_environment(), named)
            if fault is not None:
                return f"on node {node_id[:8]}, {fault}"
            self._fit.add((node_id, path))
        return None


def _has_gpu(node: Mapping[str, Any]) -> bool:
    return float(node["Resources"].get("GPU", 0)) > 0


def look_on_nodes(node_ids: Sequence[str], python: str | None) -> dict[str, Environment | str]:
    """Look at an interpreter on several nodes at once, in Ray tasks that wait for no CPU."""
    tasks = {
        node_id: _task().options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)).remote(python)
        for node_id in node_ids
    }
    found = {}
    for node_id, task in tasks.items():
        try:
            found[node_id] = ray.get(task, timeout=_LOOK_TIMEOUT_S)
        except (GetTimeoutError, RayError):  # the node has gone, or is too busy to say
            ray.cancel(task, force=True)
    return found


@functools.cache
def _task() -> Any:
    """The task of all looks: Ray keeps each function that is decorated for as long as the cluster lives."""
    return ray.remote(num_cpus=0, max_retries=1)(look)
