"""Deploys engines' applications: within the limits of number and memory, and anew where theirs is an old version."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ray import serve

from deployments.engine import build_engine
from deployments.engine_choice import engine_kind, with_kind
from deployments.engine_memory import check_fits, engine_memory_bytes, free_bytes
from deployments.engine_versions import EngineVersion, digest_of, version_of
from sienn_ray import catalog
from sienn_ray.catalog import FoundBaseModel
from sienn_ray.errors import CapacityError, SiennError
from sienn_ray.inference.applications import (
    APPLICATION_PREFIX,
    EngineKey,
    application_of,
    base_model_of,
    key_of,
    kind_of,
    num_replicas,
    num_running,
)
from sienn_ray.settings import AUTO_ENGINE, EngineKind, Settings

logger = logging.getLogger(__name__)

# One that has just answered isn't ended for another.
_MIN_IDLE_S = 5.0
_ASK_TIMEOUT_S = 5.0
_FAILED = "DEPLOY_FAILED"
_BUSY_RETRY_AFTER_S = 10


class EngineApplications:
    """The engines' applications on the cluster, one caller at a time. Every method blocks.

    Args:
        settings: See `Settings`.
        built_at: When the service was deployed, in milliseconds of Unix time; see `EngineVersion`.
        find: Finds a base model, by hub id and the longest wait for the hub.
        memory_bytes: Tells the memory of an engine's replica.
        choose: Chooses the kind of a base model's engine.
    """

    def __init__(
        self,
        settings: Settings,
        built_at: int = 0,
        find: Callable[[str, float], FoundBaseModel] = catalog.resolve,
        memory_bytes: Callable[[EngineKey, Settings], int] = engine_memory_bytes,
        choose: Callable[[str, Settings], EngineKind] = engine_kind,
    ) -> None:
        self._settings = settings
        self._find = find
        self._memory_bytes = memory_bytes
        self._choose = choose
        self._version = EngineVersion(digest_of(settings), built_at)
        self._lock = threading.Lock()

    def deployed(self, key: EngineKey) -> str:
        """Return the name of the application that answers for an engine.

        It is deployed unless it is there; one of an old version is deployed anew, by a rolling update.

        Raises:
            CapacityError: As many engines as may are busy, or no node has the memory.
            EngineError: The settings name an engine that the nodes don't have.
        """
        with self._lock:
            applications = serve.status().applications
            name = application_of(key, applications)
            if name is None and key.kind is not None and key.kind is self._choose(key.base_model, self._settings):
                key = key.of_chosen_kind
                name = application_of(key, applications)
            if name is None and key.revision is None:
                # All who take any commit share an engine with those who want the one that is here.
                key = replace(key, revision=self._commit_here(key.base_model))
                name = application_of(key, applications)
            name = name or key.application
            application = applications.get(name)
            if application is None or str(application.status.value) in {_FAILED, "NOT_STARTED"}:
                self._deploy(self._after_failure(key, application), name, applications)
            elif self._version.replaces(version_of(application)):
                self._roll(name, applications)
            elif not num_replicas(application):  # it was idle, and the next request has Serve start a replica
                self._make_room(
                    name, applications, self._memory_bytes(key, with_kind(key, self._settings, self._choose))
                )
            return name

    def _after_failure(self, key: EngineKey, application: Any | None) -> EngineKey:
        """Return the engine to start in the place of one that may have failed: vLLM doesn't know all base models."""
        if application is None or key.kind is not None or self._settings.engine != AUTO_ENGINE:
            return key
        if str(application.status.value) != _FAILED or kind_of(application) is not EngineKind.VLLM:
            return key
        logger.warning("vLLM couldn't be started for %s; sienn_ray's own engine takes its place", key)
        return replace(key, kind=EngineKind.BUILTIN)

    def roll_outdated(self) -> None:
        """Deploy engines of old versions anew, those that run by a rolling update; what fails is logged."""
        try:
            names = [name for name in serve.status().applications if name.startswith(APPLICATION_PREFIX)]
        except Exception as error:
            logger.warning("engines of older versions weren't looked for: %s: %s", type(error).__name__, error)
            return
        for name in names:
            try:
                with self._lock:
                    self._roll_if_outdated(name)
            except Exception as error:
                logger.warning("%s wasn't deployed anew: %s: %s", name, type(error).__name__, error)

    def _roll_if_outdated(self, name: str) -> None:
        applications = serve.status().applications
        if name not in applications or not self._version.replaces(version_of(applications[name])):
            return
        if num_replicas(applications[name]):
            self._roll(name, applications)
        else:
            _end(name)  # the next request for it deploys it anew

    def _roll(self, name: str, applications: Mapping[str, Any]) -> None:
        """Have Serve replace an application's replicas; what these have begun, they end."""
        version = version_of(applications[name])
        logger.info("%s is of an older version or has other settings; its replicas are replaced", name)
        key = key_of(name, version.revision if version else None)
        self._deploy(key, name, applications)

    def _deploy(self, key: EngineKey, name: str, applications: Mapping[str, Any]) -> None:
        settings = self._settings_of(key)
        need_bytes = self._memory_bytes(key, settings)
        check_fits(key, need_bytes, settings)
        is_new = name not in applications or not num_replicas(applications[name])
        if is_new:
            self._make_room(name, applications, need_bytes)
        version = replace(self._version, revision=key.revision)
        built = build_engine(key.base_model, settings, key.revision, version=version, memory_bytes=need_bytes)
        serve.run_many([serve.RunTarget(built, name=name, route_prefix=None)], wait_for_applications_running=False)
        if is_new:
            self._check_room(name)

    def _settings_of(self, key: EngineKey) -> Settings:
        return with_kind(key, self._settings, self._choose)

    def _check_room(self, name: str) -> None:
        """Make room again if another ingress replica has started an engine meanwhile.

        Raises:
            CapacityError: All are busy; the application is gone again.
        """
        try:
            self._make_room(name, serve.status().applications, 0)
        except CapacityError:
            _end(name)
            raise

    def _commit_here(self, base_model: str) -> str | None:
        try:
            return self._find(base_model, self._settings.hub_timeout_s).revision
        except SiennError:  # the engine's node may have what this one can't get
            return None

    def _make_room(self, name: str, applications: Mapping[str, Any], need_bytes: int) -> None:
        """End idle engines while there are too many for another one.

        Raises:
            CapacityError: All are busy.
        """
        limit = self._settings.max_engines
        ended: set[str] = set()
        while True:
            others = {
                other: application
                for other, application in applications.items()
                if other.startswith(APPLICATION_PREFIX) and other not in {name, *ended} and _takes_room(application)
            }
            is_full = len(others) >= limit
            if not is_full and not self._lacks_memory(need_bytes):
                return
            longest_idle = self._longest_idle(others)
            if longest_idle is None:
                if not is_full:
                    return  # the replica waits for memory, as it does for CPUs
                names = ", ".join(sorted(base_model_of(other) for other in others))
                raise CapacityError(
                    f"{len(others)} engines run (SIENN_MAX_ENGINES is {limit}) and all are busy: {names}; ask one of "
                    "these, or again in a moment",
                    retry_after_s=_BUSY_RETRY_AFTER_S,
                )
            logger.info("%s is ended to make room for %s; it was idle for the longest time", longest_idle, name)
            _end(longest_idle)
            ended.add(longest_idle)
            applications = serve.status().applications

    def _lacks_memory(self, need_bytes: int) -> bool:
        if not need_bytes or self._settings.engine_node_memory_bytes:  # an autoscaler adds nodes
            return False
        return free_bytes() < need_bytes

    def _longest_idle(self, applications: Mapping[str, Any]) -> str | None:
        idle_s = {
            name: _idle_s(name)
            for name, application in applications.items()
            if num_replicas(application) == num_running(application) == 1 and not _is_listed(application)
        }
        name = max(idle_s, key=lambda each: idle_s[each], default=None)
        return name if name is not None and idle_s[name] >= _MIN_IDLE_S else None


def _end(name: str) -> None:
    """Delete an application; one that has begun an answer meanwhile ends it first, and isn't waited for."""
    try:
        serve.delete(name)
    except TimeoutError as error:
        logger.info("%s takes long to end: %s", name, error)


def _is_listed(application: Any) -> bool:
    version = version_of(application)
    return version is not None and version.is_listed


def _takes_room(application: Any) -> bool:
    status = str(application.status.value)
    return status == "DEPLOYING" or (status != "DELETING" and num_replicas(application) > 0)


def _idle_s(name: str) -> float:
    """Seconds since an engine's last answer; one that doesn't say is taken to be busy."""
    try:
        return float(serve.get_app_handle(name).idle_s.remote().result(timeout_s=_ASK_TIMEOUT_S))
    except Exception as error:
        logger.info("%s doesn't say whether it is idle: %s", name, type(error).__name__)
        return 0.0
