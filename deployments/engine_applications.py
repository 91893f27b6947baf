"""Deploys engines' applications: within the limits of number and memory, and anew where theirs is an old version."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ray import serve

from deployments.engine import build_engine
from deployments.engine_choice import engine_kind, num_gpus_of, with_kind
from deployments.engine_failures import VllmPause
from deployments.engine_fallback import kind_at_start, must_start
from deployments.engine_memory import check_fits, engine_memory_bytes, fits
from deployments.engine_room import EngineRoom, Need, end, is_listed
from deployments.engine_versions import EngineVersion, digest_of, version_of
from sienn_ray import catalog
from sienn_ray.catalog import FoundBaseModel
from sienn_ray.errors import CapacityError, SiennError
from sienn_ray.inference.applications import (
    APPLICATION_PREFIX,
    EngineKey,
    application_of,
    key_of,
    kind_of,
    num_replicas,
)
from sienn_ray.settings import AUTO_ENGINE, EngineKind, Settings

logger = logging.getLogger(__name__)

_NO_GPU_RETRY_AFTER_S = 60


class EngineApplications:
    """The engines' applications on the cluster, one change at a time. Every method blocks.

    Args:
        settings: See `Settings`.
        built_at: When the service was deployed, in milliseconds of Unix time; see `EngineVersion`.
        find: Finds a base model, by hub id and the longest wait for the hub.
        memory_bytes: Tells the memory of an engine's replica.
        choose: Chooses the kind of a base model's engine; may wait for nodes.
        now_s: Tells Unix time, in seconds.
    """

    def __init__(
        self,
        settings: Settings,
        built_at: int = 0,
        find: Callable[[str, float], FoundBaseModel] = catalog.resolve,
        memory_bytes: Callable[[EngineKey, Settings], int] = engine_memory_bytes,
        choose: Callable[[str, Settings], EngineKind] = engine_kind,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._find = find
        self._memory_bytes = memory_bytes
        self._choose = choose
        self._now_s = now_s
        self._room = EngineRoom(settings)
        self._version = EngineVersion(digest_of(settings), built_at)
        self._lock = threading.Lock()

    def deployed(self, key: EngineKey) -> str:
        """Return the name of the application that answers for an engine.

        It is deployed unless it is there; one of an old version is deployed anew, by a rolling update.

        Raises:
            CapacityError: As many engines as may are busy, or no node has the memory.
            EngineError: The settings name an engine that the nodes don't have.
        """
        applications = serve.status().applications
        name = application_of(key, applications)
        if name is not None and self._is_current(applications[name]):
            return name
        # Before the lock: these wait for nodes and for the hub.
        chosen = self._chosen(key)
        pinned = key
        if name is None and key.revision is None:
            # All who take any commit share an engine with those who want the one that is here.
            pinned = replace(key, revision=self._commit_here(key.base_model))
        with self._lock:
            return self._settled(key, pinned, chosen)

    def roll_outdated(self) -> None:
        """Deploy engines of old versions anew, those that run by a rolling update; what fails is logged."""
        try:
            names = [name for name in serve.status().applications if name.startswith(APPLICATION_PREFIX)]
        except Exception as error:
            logger.warning("engines of older versions weren't looked for: %s: %s", type(error).__name__, error)
            return
        for name in names:
            try:
                self._roll_if_outdated(name)
            except Exception as error:
                logger.warning("%s wasn't deployed anew: %s: %s", name, type(error).__name__, error)

    def _is_current(self, application: Any) -> bool:
        """Return whether an engine has replicas, and they are of no older version."""
        is_old = must_start(application, self._settings) or self._version.replaces(version_of(application))
        return not is_old and num_replicas(application) > 0

    def _chosen(self, key: EngineKey) -> EngineKind:
        """Return the kind that the settings choose: of `auto`, vLLM only where its memory fits on a node as well."""
        kind = self._choose(key.base_model, self._settings)
        if self._settings.engine != AUTO_ENGINE or kind is EngineKind.BUILTIN:
            return kind
        if fits(self._need_anywhere(replace(key, kind=kind)).num_bytes, self._settings):
            return kind
        logger.info("the engine of %s is sienn_ray's own, since no node has the memory for vLLM", key)
        return EngineKind.BUILTIN

    def _need(self, key: EngineKey) -> Need:
        """Return what a replica of a kind needs.

        Raises:
            CapacityError: No node has the memory.
        """
        need = self._need_anywhere(key)
        check_fits(key, need.num_bytes, self._settings)
        return need

    def _need_anywhere(self, key: EngineKey) -> Need:
        settings = with_kind(key, self._settings)
        return Need(self._memory_bytes(key, settings), num_gpus_of(key.base_model, settings))

    def _commit_here(self, base_model: str) -> str | None:
        try:
            return self._find(base_model, self._settings.hub_timeout_s).revision
        except SiennError:  # the engine's node may have what this one can't get
            return None

    # With the lock.

    def _settled(self, asked: EngineKey, key: EngineKey, chosen: EngineKind) -> str:
        """Have an engine run; see `deployed`.

        Args:
            asked: The engine, as it was asked for.
            key: The same, at a commit.
            chosen: The kind that the settings choose.
        """
        applications = serve.status().applications
        name = application_of(asked, applications) or application_of(key, applications)
        plain = key.of_chosen_kind
        plain_name = (
            application_of(asked.of_chosen_kind, applications)
            or application_of(plain, applications)
            or plain.application
        )
        in_place = applications.get(plain_name)
        has_vllm = in_place is not None and kind_of(in_place) is EngineKind.VLLM
        if key.kind is None or name == plain_name or (key.kind is chosen and not has_vllm):
            return self._plain(key, name or plain_name, chosen, applications)
        return self._beside(key, name or key.application, plain_name, applications)

    def _plain(self, key: EngineKey, name: str, chosen: EngineKind, applications: Mapping[str, Any]) -> str:
        """Have the one engine of a base model run, or the first of two."""
        application = applications.get(name)
        if application is not None and self._is_current(application):
            return name  # by another caller meanwhile
        kind, pause = kind_at_start(key, chosen, application, self._version, self._settings, self._now_s())
        wanted = replace(key, kind=kind)
        need = self._need(wanted)
        other = application_of(replace(key, kind=EngineKind.BUILTIN), applications)
        if kind is EngineKind.VLLM and other not in {None, name} and num_replicas(applications[str(other)]):
            # The other one serves all adapters, so it isn't ended for this one.
            if not self._has_room_beside(name, str(other), applications, need):
                return str(other)
        elif application is None or not num_replicas(application):
            self._room.make(name, applications, need)
        is_old = application is not None and self._version.replaces(version_of(application))
        if is_old or must_start(application, self._settings) or kind_of(application) is not kind:
            self._deploy(wanted, name, applications, need, pause)
        return name

    def _beside(self, key: EngineKey, name: str, plain_name: str, applications: Mapping[str, Any]) -> str:
        """Have our engine run beside vLLM's, or in its place where there is no room for both."""
        application = applications.get(name)
        if application is not None and self._is_current(application):
            return name
        need = self._need(key)
        is_absent = must_start(application, self._settings)
        has_replicas = not is_absent and num_replicas(application) > 0
        if not has_replicas and not self._has_room_beside(name, plain_name, applications, need):
            return self._in_place(key, plain_name, applications, need)
        if is_absent or self._version.replaces(version_of(application)):
            self._deploy(key, name, applications, need)
        return name

    def _in_place(self, key: EngineKey, name: str, applications: Mapping[str, Any], need: Need) -> str:
        application = applications.get(name)
        if application is not None and is_listed(application):
            raise CapacityError(
                f"the engine of {key} is vLLM's, which can't serve this adapter, and there is no room for another one; "
                "list it with `engine: builtin` in serveconfig.yaml, or add a GPU",
                retry_after_s=_NO_GPU_RETRY_AFTER_S,
            )
        logger.warning(
            "an adapter of %s is asked for that vLLM can't serve, and there is no room for two engines; sienn_ray's "
            "own takes vLLM's place",
            key,
        )
        if application is None or not num_replicas(application):
            self._room.make(name, applications, need)
        self._deploy(key, name, applications, need, VllmPause.for_adapters(self._now_s()))
        return name

    def _has_room_beside(self, name: str, other: str, applications: Mapping[str, Any], need: Need) -> bool:
        """Return whether an engine can run beside another one of its base model, which isn't ended for it."""
        if not self._room.holds_two(need.num_gpus):
            return False
        try:
            return self._room.make(name, applications, need, kept=other)
        except CapacityError:
            return False

    def _roll_if_outdated(self, name: str) -> None:
        application = serve.status().applications.get(name)
        if application is None or not self._version.replaces(version := version_of(application)):
            return
        key = key_of(name, version.revision if version else None)
        runs = num_replicas(application) > 0
        wanted = replace(key, kind=key.kind or self._chosen(key)) if runs else key
        need = self._need(wanted) if runs else Need()
        with self._lock:
            applications = serve.status().applications
            if name not in applications or not self._version.replaces(version_of(applications[name])):
                return
            if not num_replicas(applications[name]):
                end(name)  # the next request for it deploys it anew
            elif runs:
                self._deploy(wanted, name, applications, need)

    def _deploy(
        self, key: EngineKey, name: str, applications: Mapping[str, Any], need: Need, pause: VllmPause | None = None
    ) -> None:
        """Deploy an engine of a kind; Serve replaces an application's replicas, and what these have begun, they end."""
        is_new = name not in applications or not num_replicas(applications[name])
        if not is_new:
            logger.info("%s is of an older version, or gets other settings; its replicas are replaced", name)
        version = replace(self._version, revision=key.revision, pause=pause)
        settings = with_kind(key, self._settings)
        built = build_engine(key.base_model, settings, key.revision, version=version, memory_bytes=need.num_bytes)
        serve.run_many([serve.RunTarget(built, name=name, route_prefix=None)], wait_for_applications_running=False)
        if is_new:
            self._check_room(name)

    def _check_room(self, name: str) -> None:
        """Make room again if another ingress replica has started an engine meanwhile.

        Raises:
            CapacityError: All are busy; the application is gone again.
        """
        try:
            self._room.make(name, serve.status().applications, Need())
        except CapacityError:
            end(name)
            raise
