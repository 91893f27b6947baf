"""Starts of engines, on demand: at the first request for a base model, and again after it was idle or lost."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from ray import serve
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from deployments.engine_applications import EngineApplications
from deployments.engine_failures import failure_of, has_failed, is_loss
from deployments.engine_fallback import has_fallback
from sienn_ray.errors import CapacityError, EngineError, SiennError
from sienn_ray.inference.applications import EngineKey, num_running
from sienn_ray.settings import Settings

T = TypeVar("T")

# Ending an engine to start another takes seconds, and asyncio's own threads are few and for everything.
_NUM_THREADS = 8
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
        applications: The engines' applications.
    """

    def __init__(self, settings: Settings, applications: EngineApplications) -> None:
        self._settings = settings
        self._applications = applications
        self._threads = ThreadPoolExecutor(_NUM_THREADS, "engine-starts")
        self._handles: dict[EngineKey, Any] = {}
        self._heard_at: dict[EngineKey, float] = {}
        self._lost_at: dict[EngineKey, float] = {}
        self._starts: dict[EngineKey, asyncio.Task[Any]] = {}

    def note_answer(self, key: EngineKey, asked_at: float) -> None:
        """Note an answer of an engine; one to a question of before a loss proves nothing about the present replicas."""
        if asked_at > self._lost_at.get(key, float("-inf")):
            self._heard_at[key] = time.monotonic()

    def note_loss(self, key: EngineKey) -> None:
        """Note the loss of a replica: the engine is probed before it gets requests again."""
        self._lost_at[key] = time.monotonic()
        self._heard_at.pop(key, None)

    def is_heard(self, key: EngineKey) -> bool:
        """Return whether the engine has answered lately."""
        return time.monotonic() - self._heard_at.get(key, float("-inf")) < _FRESH_S

    async def ready(self, key: EngineKey, wait_s: float | None = None) -> Any:
        """Return the handle of an engine once it can answer; concurrent callers share one start.

        Args:
            key: The engine.
            wait_s: Longest wait of the caller; None is as long as the settings allow. The start continues either way.

        Raises:
            CapacityError: The engine is still loading, or there is no room for it.
            EngineError: The engine can't be started.
        """
        if self.is_heard(key):
            return self._handles[key]
        start = self._starts.get(key)
        if start is None or start.done():
            # In a context of its own: Serve would take its request for one of the first caller's, and end it with that.
            start = asyncio.create_task(self._start(key), context=contextvars.Context())
            # The error is raised for the callers that wait; where none does, it is dropped.
            start.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._starts[key] = start
        longest_s = self._settings.engine_start_timeout_s
        limit_s = longest_s if wait_s is None else min(max(wait_s, _SHORTEST_WAIT_S), longest_s)
        began_at = time.monotonic()
        try:
            async with asyncio.timeout(limit_s):
                return await asyncio.shield(start)
        except TimeoutError:
            setting = "SIENN_ENGINE_START_TIMEOUT_S" if limit_s == longest_s else "the request's `Prefer: wait`"
            raise CapacityError(
                f"the engine of {key} is still loading after a wait of {time.monotonic() - began_at:.0f} s "
                f"({setting}); ask again in a moment",
                retry_after_s=_LOADING_RETRY_AFTER_S,
            ) from None

    async def _start(self, key: EngineKey) -> Any:
        async with asyncio.timeout(self._settings.engine_start_timeout_s):
            while True:
                name = await self._in_thread(self._applications.deployed, key)
                try:
                    return await self._answering(key, name)
                except SiennError:
                    if not await self._in_thread(self._has_fallback, name):
                        raise

    async def _answering(self, key: EngineKey, name: str) -> Any:
        """Return the handle of an engine once it has answered."""
        handle = serve.get_app_handle(name)
        asked_at = time.monotonic()
        # A probe is a request like any other: where no replica runs, it has Serve start one.
        answer = asyncio.ensure_future(self._answer(name, handle))
        try:
            while not (await asyncio.wait({answer}, timeout=_LOOK_S))[0]:
                await self._in_thread(_check, key, name)
            await answer
        finally:
            answer.cancel()
        self._handles[key] = handle
        self.note_answer(key, asked_at)
        return handle

    def _has_fallback(self, name: str) -> bool:
        application = serve.status().applications.get(name)
        return application is not None and has_failed(application) and has_fallback(application, self._settings)

    async def _in_thread(self, call: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *arguments))

    async def _answer(self, name: str, handle: Any) -> None:
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
                if await self._in_thread(_has_replica, name):
                    return
            except DeploymentUnavailableError:
                pass  # for a moment, a handle knows of an earlier, failed deployment only
            else:
                return
            await asyncio.sleep(_RETRY_S)


def _has_replica(name: str) -> bool:
    application = serve.status().applications.get(name)
    return application is not None and num_running(application) > 0


def _check(key: EngineKey, name: str) -> None:
    """Check that the engine's start can still succeed.

    Raises:
        EngineError: The start has failed, or the application is gone.
        CapacityError: It has failed since its process was killed again and again; another one may succeed.
    """
    application = serve.status().applications.get(name)
    if application is None:
        raise EngineError(f"the engine of {key} couldn't be started: it is gone")
    if has_failed(application):
        why = failure_of(application)
        if is_loss(why):
            raise CapacityError(
                f"the engine of {key} was killed each time that it started, maybe for lack of memory; ask again in a "
                "moment",
                retry_after_s=_LOADING_RETRY_AFTER_S,
            )
        raise EngineError(f"the engine of {key} couldn't be started: {why[-_MAX_TRACEBACK_CHARS:]}")
