"""Engines whose start has failed, as Serve's overview tells it, and for how long vLLM isn't tried again after that."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ray import exceptions

from sienn_ray.inference.applications import num_running

# Errors of Ray that blame nothing that the process did. Serve's message of a failed start ends with the error's repr
# (`ActorDiedError()`, without a reason) or with a traceback (`ray.exceptions.ActorDiedError: ...`).
_LOSSES = "|".join(
    each.__name__
    for each in (
        exceptions.RayActorError,
        exceptions.ActorDiedError,
        exceptions.ActorUnavailableError,
        exceptions.NodeDiedError,
        exceptions.OutOfMemoryError,
        exceptions.WorkerCrashedError,
    )
)
_LOSS = re.compile(rf"^(?:ray\.exceptions\.(?:{_LOSSES})\b|(?:{_LOSSES})\()", re.MULTILINE)
_FIRST_WAIT_S, _LONGEST_WAIT_S = 600, 86_400


@dataclass(frozen=True)
class VllmPause:
    """A time for which `auto` leaves a base model to the built-in engine.

    Args:
        wait_s: Its length.
        since_s: Its beginning, in seconds of Unix time.
    """

    wait_s: int
    since_s: int

    @classmethod
    def after_failure(cls, earlier: VllmPause | None, now_s: float) -> VllmPause:
        """Return the one after a failed start: each is twice as long as the one before, up to a day."""
        wait_s = _FIRST_WAIT_S if earlier is None else min(2 * earlier.wait_s, _LONGEST_WAIT_S)
        return cls(wait_s, int(now_s))

    @classmethod
    def for_adapters(cls, now_s: float) -> VllmPause:
        """Return the one after a request for an adapter that vLLM can't serve, where there is no room for both."""
        return cls(_LONGEST_WAIT_S, int(now_s))

    def is_over(self, now_s: float) -> bool:
        """Return whether vLLM may be tried again."""
        return now_s >= self.since_s + self.wait_s


def has_failed(application: Any) -> bool:
    """Return whether an engine's start has failed; one that has run before counts as unhealthy then."""
    status = str(application.status.value)
    if status == "DEPLOY_FAILED":
        return True
    triggers = {str(each.status_trigger.value) for each in application.deployments.values()}
    return status == "UNHEALTHY" and "REPLICA_STARTUP_FAILED" in triggers and num_running(application) == 0


def failure_of(application: Any) -> str:
    """Return why an engine's start has failed."""
    # The application's own message may be no more than which deployment it was.
    told = [each.message for each in application.deployments.values() if each.message]
    return "; ".join(told) or str(application.message)


def is_loss(failure: str) -> bool:
    """Return whether the engine's process was lost or killed each time, rather than refusing to start."""
    return _LOSS.search(failure) is not None
