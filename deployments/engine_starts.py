"""Starts the engine of a base model when it is asked for: the first time, and again after it was idle or lost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from ray import serve
from ray.serve.exceptions import BackPressureError

from deployments.engine import build_engine
from sienn_ray.errors import CapacityError, EngineError
from sienn_ray.inference.applications import application_name
from sienn_ray.settings import Settings

# For so long after its last word an engine is taken to be there without being asked.
_FRESH_S = 10.0
# An engine that is there has answered within this, so a caller who doesn't want to wait gets an answer of it.
_SHORTEST_WAIT_S = 1.0
_LOOK_S = 1.0
_RETRY_AFTER_S = 10
_MAX_MESSAGE_CHARS = 1000


class EngineStarts:
    """Handles of engines that are ready.

    Args:
        settings: See `Settings`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._handles: dict[str, Any] = {}
        self._heard_at: dict[str, float] = {}
        self._starts: dict[str, asyncio.Task[Any]] = {}

    def note_answer(self, base_model: str) -> None:
        """The engine has just said something."""
        self._heard_at[base_model] = time.monotonic()

    def note_loss(self, base_model: str) -> None:
        """A replica has gone; ask the engine itself before it is given requests again."""
        self._heard_at.pop(base_model, None)

    async def ready(self, base_model: str, wait_s: float | None = None) -> Any:
        """Handle of the base model's engine, once it can answer; all who ask share one start.

        Args:
            base_model: Hub id.
            wait_s: How long the caller would wait; None is as long as the settings allow. The start goes on either way.

        Raises:
            CapacityError: It is still loading.
            EngineError: It can't be started.
        """
        if time.monotonic() - self._heard_at.get(base_model, float("-inf")) < _FRESH_S:
            return self._handles[base_model]
        start = self._starts.get(base_model)
        if start is None or start.done():
            start = self._starts[base_model] = asyncio.create_task(self._start(base_model))
            # Its error belongs to those who wait; where none does, nobody needs to hear of it.
            start.add_done_callback(lambda done: done.cancelled() or done.exception())
        longest_s = self._settings.engine_start_timeout_s
        limit_s = longest_s if wait_s is None else min(max(wait_s, _SHORTEST_WAIT_S), longest_s)
        try:
            async with asyncio.timeout(limit_s):
                return await asyncio.shield(start)
        except TimeoutError:
            way_out = "SIENN_ENGINE_START_TIMEOUT_S" if limit_s == longest_s else "the request's `Prefer: wait`"
            raise CapacityError(
                f"the engine of {base_model} is still loading after {limit_s:g} s ({way_out}); ask again in a moment",
                retry_after_s=_RETRY_AFTER_S,
            ) from None

    async def _start(self, base_model: str) -> Any:
        async with asyncio.timeout(self._settings.engine_start_timeout_s):
            handle = await asyncio.to_thread(self._deployed, base_model)
            # A request like any other: where no replica runs, it is what makes Serve start one.
            answer = asyncio.ensure_future(_answer_of(handle))
            try:
                while not (await asyncio.wait({answer}, timeout=_LOOK_S))[0]:
                    await asyncio.to_thread(self._check, base_model)
                await answer
            finally:
                answer.cancel()
        self._handles[base_model] = handle
        self.note_answer(base_model)
        return handle

    def _deployed(self, base_model: str) -> Any:
        """Handle of the engine's application, which is made unless it is there."""
        name = application_name(base_model)
        application = serve.status().applications.get(name)
        if application is None or str(application.status.value) in {"DEPLOY_FAILED", "NOT_STARTED"}:
            target = serve.RunTarget(build_engine(base_model, self._settings), name=name, route_prefix=None)
            serve.run_many([target], wait_for_applications_running=False)
        return serve.get_app_handle(name)

    def _check(self, base_model: str) -> None:
        """See that there is something to wait for."""
        application = serve.status().applications.get(application_name(base_model))
        if application is None:
            raise EngineError(f"the engine of {base_model} couldn't be started: it is gone")
        if str(application.status.value) == "DEPLOY_FAILED":
            why = application.message[-_MAX_MESSAGE_CHARS:]
            raise EngineError(f"the engine of {base_model} couldn't be started: {why}")


async def _answer_of(handle: Any) -> None:
    """Wait until a replica answers; one with a full queue is there as well."""
    response = handle.ready.remote()
    try:
        with contextlib.suppress(BackPressureError):
            await response
    except asyncio.CancelledError:
        response.cancel()
        raise
