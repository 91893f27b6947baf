"""The state of the Ray cluster for the API's health checks, from Ray and Ray Serve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
from ray import serve
from ray.util import list_named_actors

from sienn_ray.api.cluster import EngineState, Nodes
from sienn_ray.api.schemas.health import EngineStateName
from sienn_ray.inference.applications import APPLICATION_PREFIX, base_model_of, num_running

_STATES: dict[str, EngineStateName] = {
    "NOT_STARTED": "starting",
    "DEPLOYING": "starting",
    "RUNNING": "running",
    "DELETING": "stopping",
    "DEPLOY_FAILED": "failed",
    "UNHEALTHY": "failed",
}
# There may be many engines in one answer.
_MAX_STATE_CHARS = 300


class RayCluster:
    """The cluster that this process has joined."""

    def ask_gcs(self) -> None:
        """Ask for the named actors, of which GCS keeps the list."""
        list_named_actors()

    def nodes(self) -> Nodes:
        """The nodes that are alive."""
        return nodes_of(ray.nodes())

    def engines(self) -> list[EngineState]:
        """The engines that have been asked for so far."""
        return engine_states(serve.status().applications)


def nodes_of(table: list[dict[str, Any]]) -> Nodes:
    """Sum up Ray's table of nodes, those that are alive alone."""
    alive = [node["Resources"] for node in table if node["Alive"]]
    cpus, gpus = (sum(float(resources.get(name, 0)) for resources in alive) for name in ("CPU", "GPU"))
    return Nodes(len(alive), cpus, gpus)


def engine_states(applications: Mapping[str, Any]) -> list[EngineState]:
    """The engines among Serve's applications."""
    return [
        _engine_state(name, application)
        for name, application in sorted(applications.items())
        if name.startswith(APPLICATION_PREFIX)
    ]


def _engine_state(name: str, application: Any) -> EngineState:
    state = _STATES.get(str(application.status.value), "failed")
    num_replicas = num_running(application)
    if state == "running" and num_replicas == 0:
        state = "idle"
    message = _first_line(application.message) if state == "failed" else None
    return EngineState(base_model_of(name), state, num_replicas, message)


def _first_line(text: str) -> str:
    """The rest is a stack trace, if there is more."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")[:_MAX_STATE_CHARS]
