"""Serve applications of engines: their names, their running replicas, and loading an adapter ahead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sienn_ray.errors import first_line
from sienn_ray.settings import EngineKind

APPLICATION_PREFIX = "engine-"
# Before a commit, and before a kind. No hub id has three dashes in a row.
_SEPARATOR = "---"
_COMMIT_CHARS = 12
_DEPLOYMENTS = {EngineKind.BUILTIN: "Engine", EngineKind.VLLM: "VllmEngine"}
_READY, _ENDING = "RUNNING", "STOPPING"
_PREFETCH_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class EngineKey:
    """An engine that is asked for: its base model, at a commit.

    Args:
        base_model: Hub id.
        revision: The commit that its weights have to be of; None takes any.
        kind: The kind that it has to be of; None takes the one that the settings choose.
    """

    base_model: str
    revision: str | None = None
    kind: EngineKind | None = None

    def __str__(self) -> str:
        """Return what messages call it."""
        return self.base_model if self.revision is None else f"{self.base_model} at {_short(self.revision)}"

    @property
    def application(self) -> str:
        """Name of the Serve application of this very engine."""
        name = APPLICATION_PREFIX + re.sub(r"[^A-Za-z0-9._-]", "--", self.base_model)
        commit = None if self.revision is None else _short(self.revision)
        return _SEPARATOR.join(filter(None, (name, commit, self.kind)))

    @property
    def of_chosen_kind(self) -> EngineKey:
        """The engine of the kind that the settings choose."""
        return replace(self, kind=None)


def base_model_of(name: str) -> str:
    """Return the base model of an application's name. A hub id has at most one slash and never two dashes in a row."""
    return name.removeprefix(APPLICATION_PREFIX).partition(_SEPARATOR)[0].replace("--", "/")


def key_of(name: str, revision: str | None) -> EngineKey:
    """Return the engine of an application's name, which has no more than the beginning of its commit."""
    kind = next((kind for kind in EngineKind if name.endswith(f"{_SEPARATOR}{kind}")), None)
    return EngineKey(base_model_of(name), revision, kind)


def deployment_name(revision: str | None, kind: EngineKind = EngineKind.BUILTIN) -> str:
    """Return the name of an engine's deployment, which tells its kind, and the commit of its weights if it is known."""
    name = _DEPLOYMENTS[kind]
    return name if revision is None else f"{name}-{_short(revision)}"


def application_of(key: EngineKey, applications: Mapping[str, Any]) -> str | None:
    """Return the application that answers for an engine, or None where there is none.

    The one that has no commit in its name, as those listed in `serveconfig.yaml`, answers for the commit that it has
    loaded too, and the one of the chosen kind for its own kind: the same weights needn't be loaded twice.

    Args:
        key: The engine.
        applications: Serve's overview, by name.
    """
    for kind in dict.fromkeys((None, key.kind)):
        plain, whole = (EngineKey(key.base_model, revision, kind).application for revision in (None, key.revision))
        if plain in applications and _answers(applications[plain], key, is_plain=True):
            return plain
        if whole in applications and _answers(applications[whole], key):
            return whole
    return None


def _answers(application: Any, key: EngineKey, *, is_plain: bool = False) -> bool:
    """Return whether an application is of a key's kind, and has loaded its commit if its name tells none."""
    kinds = [key.kind] if key.kind is not None else list(EngineKind)
    if key.revision is not None and is_plain:
        return any(deployment_name(key.revision, kind) in application.deployments for kind in kinds)
    return key.kind is None or kind_of(application) is key.kind


def kind_of(application: Any) -> EngineKind | None:
    """Return the kind of an application's engine in Serve's overview, or None where it isn't there yet."""
    names = {name.partition("-")[0] for name in application.deployments}
    return next((kind for kind in EngineKind if _DEPLOYMENTS[kind] in names), None)


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
