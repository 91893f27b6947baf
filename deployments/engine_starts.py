"""Starts of engines, on demand: at the first request for a base model, and again after it was idle or lost."""

from __future__ import annotations

import asyncio
import contextvars
import time
from typing import Any

from ray import serve
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from deployments.engine import build_engine
from sienn_ray.errors import CapacityError, EngineError
from sienn_ray.inference.applications import application_name, num_running
from sienn_ray.settings import Settings

# For so long after its last answer an engine counts as ready without a probe.
_FRESH_S = 10.0
# A running engine answers a probe within this, so a caller who doesn't want to wait is still served.
_SHORTEST_WAIT_S = 1.0
_LOOK_S = 1.0
_RETRY_S = 0.2
# Loading a base model takes at least this long.
_LOADING_RETRY_AFTER_S = 10
# The end of Serve's message, which is where a traceback says what was wrong.
_MAX_TRACEBACK_CHARS = 1000


class EngineStarts:
    """Handles of ready engines, started on demand.

    Args:
        settings: See `Settings`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._handles: dict[str, Any] = {}
        self._heard_at: dict[str, float] = {}
        self._lost_at: dict[str, float] = {}
        self._starts: dict[str, asyncio.Task[Any]] = {}

    def note_answer(self, base_model: str, asked_at: float) -> None:
        """Note an answer of an engine; one to a question of before a loss proves nothing about the present replicas."""
        if asked_at > self._lost_at.get(base_model, float("-inf")):
            self._heard_at[base_model] = time.monotonic()

    def note_loss(self, base_model: str) -> None:
        """Note the loss of a replica: the engine is probed before it gets requests again."""
        self._lost_at[base_model] = time.monotonic()
        self._heard_at.pop(base_model, None)

    def is_heard(self, base_model: str) -> bool:
        """Return whether the engine has answered lately."""
        return time.monotonic() - self._heard_at.get(base_model, float("-inf")) < _FRESH_S

    async def ready(self, base_model: str, wait_s: float | None = None) -> Any:
        """Return the handle of a base model's engine once it can answer; concurrent callers share one start.

        Args:
            base_model: Hub id.
            wait_s: Longest wait of the caller; None is as long as the settings allow. The start continues either way.

        Raises:
            CapacityError: The engine is still loading.
            EngineError: The engine can't be started.
        """
        if self.is_heard(base_model):
            return self._handles[base_model]
        start = self._starts.get(base_model)
        if start is None or start.done():
            # In a context of its own: Serve would take its request for one of the first caller's, and end it with that.
            start = asyncio.create_task(self._start(base_model), context=contextvars.Context())
            # The error is raised for the callers that wait; where none does, it is dropped.
            start.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._starts[base_model] = start
        longest_s = self._settings.engine_start_timeout_s
        limit_s = longest_s if wait_s is None else min(max(wait_s, _SHORTEST_WAIT_S), longest_s)
        began_at = time.monotonic()
        try:
            async with asyncio.timeout(limit_s):
                return await asyncio.shield(start)
        except TimeoutError:
            setting = "SIENN_ENGINE_START_TIMEOUT_S" if limit_s == longest_s else "the request's `Prefer: wait`"
            raise CapacityError(
                f"the engine of {base_model} is still loading after a wait of {time.monotonic() - began_at:.0f} s "
                f"({setting}); ask again in a moment",
                retry_after_s=_LOADING_RETRY_AFTER_S,
            ) from None

    async def _start(self, base_model: str) -> Any:
        async with asyncio.timeout(self._settings.engine_start_timeout_s):
            handle = await asyncio.to_thread(self._deployed, base_model)
            asked_at = time.monotonic()
            # A probe is a request like any other: where no replica runs, it has Serve start one.
            answer = asyncio.ensure_future(self._answer(base_model, handle))
            try:
                while not (await asyncio.wait({answer}, timeout=_LOOK_S))[0]:
                    await asyncio.to_thread(_check, base_model)
                await answer
            finally:
                answer.cancel()
        self._handles[base_model] = handle
        self.note_answer(base_model, asked_at)
        return handle

    def _deployed(self, base_model: str) -> Any:
        """Return the handle of the engine's application; deploy it unless it exists."""
        name = application_name(base_model)
        application = serve.status().applications.get(name)
        if application is None or str(application.status.value) in {"DEPLOY_FAILED", "NOT_STARTED"}:
            target = serve.RunTarget(build_engine(base_model, self._settings), name=name, route_prefix=None)
            serve.run_many([target], wait_for_applications_running=False)
        return serve.get_app_handle(name)

    async def _answer(self, base_model: str, handle: Any) -> None:
        """Probe until a replica answers, or is there but overloaded."""
        while True:
            response = handle.ready.remote()
            try:
                await response
            except asyncio.CancelledError:
                response.cancel()
                raise
            except BackPressureError:
                # Other requests may fill the queue of an engine that has no replica yet.
                if await asyncio.to_thread(_has_replica, base_model):
                    return
            except DeploymentUnavailableError:
                pass  # for a moment, a handle knows of an earlier, failed deployment only
            else:
                return
            await asyncio.sleep(_RETRY_S)


def _has_replica(base_model: str) -> bool:
    application = serve.status().applications.get(application_name(base_model))
    return application is not None and num_running(application) > 0


def _check(base_model: str) -> None:
    """Check that the engine's start can still succeed.

    Raises:
        EngineError: The start has failed, or the application is gone.
    """
    application = serve.status().applications.get(application_name(base_model))
    if application is None:
        raise EngineError(f"the engine of {base_model} couldn't be started: it is gone")
    # An engine that has run before counts as unhealthy when it can't be started again.
    triggers = {str(each.status_trigger.value) for each in application.deployments.values()}
    is_unable = "REPLICA_STARTUP_FAILED" in triggers and num_running(application) == 0
    status = str(application.status.value)
    if status == "DEPLOY_FAILED" or (status == "UNHEALTHY" and is_unable):
        why = application.message or "; ".join(each.message for each in application.deployments.values())
        raise EngineError(f"the engine of {base_model} couldn't be started: {why[-_MAX_TRACEBACK_CHARS:]}")
