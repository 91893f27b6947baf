"""Serve applications of engines: their names, their running replicas, and loading an adapter ahead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sienn_ray.errors import first_line

APPLICATION_PREFIX = "engine-"
# No hub id has three dashes in a row.
_BEFORE_COMMIT = "---"
_COMMIT_CHARS = 12
_DEPLOYMENT = "Engine"
_READY, _ENDING = "RUNNING", "STOPPING"
_PREFETCH_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class EngineKey:
    """An engine that is asked for: its base model, at a commit.

    Args:
        base_model: Hub id.
        revision: The commit that its weights have to be of; None takes any.
    """

    base_model: str
    revision: str | None = None

    def __str__(self) -> str:
        """Return what messages call it."""
        return self.base_model if self.revision is None else f"{self.base_model} at {_short(self.revision)}"

    @property
    def application(self) -> str:
        """Name of the Serve application of this very engine."""
        name = APPLICATION_PREFIX + re.sub(r"[^A-Za-z0-9._-]", "--", self.base_model)
        return name if self.revision is None else f"{name}{_BEFORE_COMMIT}{_short(self.revision)}"


def base_model_of(name: str) -> str:
    """Return the base model of an application's name. A hub id has at most one slash and never two dashes in a row."""
    return name.removeprefix(APPLICATION_PREFIX).partition(_BEFORE_COMMIT)[0].replace("--", "/")


def deployment_name(revision: str | None) -> str:
    """Return the name of an engine's deployment, which tells the commit of its weights where one is known."""
    return _DEPLOYMENT if revision is None else f"{_DEPLOYMENT}-{_short(revision)}"


def application_of(key: EngineKey, applications: Mapping[str, Any]) -> str | None:
    """Return the application that answers for an engine, or None where there is none.

    The one that has no commit in its name, as those listed in `serveconfig.yaml`, answers for the commit that it has
    loaded too: the same weights needn't be loaded twice.

    Args:
        key: The engine.
        applications: Serve's overview, by name.
    """
    plain = EngineKey(key.base_model).application
    loaded = applications[plain].deployments if plain in applications else {}
    if plain in applications and (key.revision is None or deployment_name(key.revision) in loaded):
        return plain
    return key.application if key.application in applications else None


def _short(revision: str) -> str:
    return revision[:_COMMIT_CHARS]


def num_running(application: Any) -> int:
    """Return the number of ready replicas in Serve's overview of an application."""
    return sum(
        count
        for deployment in application.deployments.values()
        for state, count in deployment.replica_states.items()
        if str(getattr(state, "value", state)) == _READY
    )


def num_replicas(application: Any) -> int:
    """Return the number of replicas, ready or not, but for those that are ending."""
    return sum(
        count
        for deployment in application.deployments.values()
        for state, count in deployment.replica_states.items()
        if str(getattr(state, "value", state)) != _ENDING
    )


def prefetch(engine: EngineKey, adapter_id: str, adapter_key: str) -> str:
    """Load an adapter into a running engine, so that its first request needn't wait; starts no engine.

    Returns:
        A sentence on what came of it, for a log. It raises nothing: the first request loads the adapter as well.
    """
    try:
        from ray import serve  # takes a second, which a run's start has not

        applications = serve.status().applications
        name = application_of(engine, applications)
        if name is None or not num_running(applications[name]):
            return f"no engine of {engine} is running, so the first request of adapter {adapter_id} starts one"
        handle = serve.get_app_handle(name).options(multiplexed_model_id=adapter_id)
        handle.prefetch.remote(adapter_id, adapter_key).result(timeout_s=_PREFETCH_TIMEOUT_S)
    except Exception as error:
        return f"adapter {adapter_id} wasn't loaded ahead: {type(error).__name__}: {first_line(error)}"
    return f"the engine of {engine} has loaded adapter {adapter_id}"
