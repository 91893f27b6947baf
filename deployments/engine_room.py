"""Room for another engine: within the number that may run, a node's memory and the GPUs; idle engines make it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve

from deployments.engine_choice import num_gpus_of
from deployments.engine_memory import free_bytes
from deployments.engine_versions import version_of
from sienn_ray.errors import CapacityError
from sienn_ray.inference.applications import APPLICATION_PREFIX, base_model_of, num_replicas, num_running
from sienn_ray.settings import Settings

logger = logging.getLogger(__name__)

# One that has just answered isn't ended for another.
_MIN_IDLE_S = 5.0
_ASK_TIMEOUT_S = 5.0
_BUSY_RETRY_AFTER_S = 10
_GPU = "GPU"
# Shares of GPUs are added up.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Need:
    """Resources that an engine's replica reserves.

    Args:
        num_bytes: Bytes of a node's memory.
        num_gpus: GPUs, or a share of one.
    """

    num_bytes: int = 0
    num_gpus: float = 0.0


class EngineRoom:
    """The room that engines share.

    Args:
        settings: See `Settings`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def make(self, name: str, applications: Mapping[str, Any], need: Need, kept: str | None = None) -> bool:
        """End idle engines while there isn't room for another one.

        Args:
            name: The application of that one.
            applications: Serve's overview, by name.
            need: Of a replica.
            kept: An application that isn't ended for it.

        Returns:
            Whether the cluster has what is needed; else the replica waits for memory or a GPU, as it does for CPUs.

        Raises:
            CapacityError: As many engines as may are busy.
        """
        limit = self._settings.max_engines
        gpus = _FreeGpus(0.0 if self._has_autoscaler else need.num_gpus)
        ended: set[str] = set()
        while True:
            others = {
                other: application
                for other, application in applications.items()
                if other.startswith(APPLICATION_PREFIX) and other not in {name, *ended} and _takes_room(application)
            }
            is_full = len(others) >= limit
            lacks_gpus = gpus.are_too_few()
            lacks_memory = self._lacks_memory(need.num_bytes)
            if not (is_full or lacks_gpus or lacks_memory):
                return True
            useful = is_full or lacks_memory or gpus.can_be_enough
            longest_idle = _longest_idle(others, kept) if useful else None
            if longest_idle is None:
                if not is_full:
                    return False
                names = ", ".join(sorted(base_model_of(other) for other in others))
                raise CapacityError(
                    f"{len(others)} engines run (SIENN_MAX_ENGINES is {limit}) and all are busy: {names}; ask one of "
                    "these, or again in a moment",
                    retry_after_s=_BUSY_RETRY_AFTER_S,
                )
            logger.info("%s is ended to make room for %s; it was idle for the longest time", longest_idle, name)
            end(longest_idle)
            ended.add(longest_idle)
            gpus.num_freed += num_gpus_of(base_model_of(longest_idle), self._settings)
            applications = serve.status().applications

    def holds_two(self, num_gpus: float) -> bool:
        """Return whether two engines that need so many GPUs each may run at a time."""
        if self._settings.max_engines < 2:
            return False
        if not num_gpus or self._has_autoscaler:
            return True
        return float(ray.cluster_resources().get(_GPU, 0)) + _ROUNDING >= 2 * num_gpus

    @property
    def _has_autoscaler(self) -> bool:
        return bool(self._settings.engine_node_memory_bytes)  # it adds nodes

    def _lacks_memory(self, need_bytes: int) -> bool:
        if not need_bytes or self._has_autoscaler:
            return False
        return free_bytes() < need_bytes


class _FreeGpus:
    """GPUs that nothing has reserved; Ray's figure comes late after an engine has ended.

    Args:
        num_needed: GPUs that are asked for.

    Attributes:
        num_freed: GPUs of engines that were ended meanwhile.
    """

    def __init__(self, num_needed: float) -> None:
        self._num_needed = num_needed
        self._num_at_first = self._num_free() if num_needed else 0.0
        self.num_freed = 0.0

    def are_too_few(self) -> bool:
        if not self._num_needed:
            return False
        num_free = max(self._num_free(), self._num_at_first + self.num_freed)
        return num_free + _ROUNDING < self._num_needed

    @property
    def can_be_enough(self) -> bool:
        """Whether the cluster has so many."""
        return float(ray.cluster_resources().get(_GPU, 0)) + _ROUNDING >= self._num_needed

    @staticmethod
    def _num_free() -> float:
        return float(ray.available_resources().get(_GPU, 0))


def end(name: str) -> None:
    """Delete an application; one that has begun an answer meanwhile ends it first, and isn't waited for."""
    try:
        serve.delete(name)
    except TimeoutError as error:
        logger.info("%s takes long to end: %s", name, error)


def is_listed(application: Any) -> bool:
    """Return whether `serveconfig.yaml` lists an application."""
    version = version_of(application)
    return version is not None and version.is_listed


def _longest_idle(applications: Mapping[str, Any], kept: str | None) -> str | None:
    idle_s = {
        name: _idle_s(name)
        for name, application in applications.items()
        if name != kept and num_replicas(application) == num_running(application) == 1 and not is_listed(application)
    }
    name = max(idle_s, key=lambda each: idle_s[each], default=None)
    return name if name is not None and idle_s[name] >= _MIN_IDLE_S else None


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
