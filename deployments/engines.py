"""Finds the engine of a base model, and starts it when it is first needed."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any

from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError

from deployments.engine import build_engine
from sienn_ray.errors import CapacityError, EngineError, SiennError
from sienn_ray.inference.engine import GenerationDelta, GenerationRequest, GenerationResult
from sienn_ray.settings import Settings

_POLL_S = 0.2
_MAX_MESSAGE_CHARS = 1000
APPLICATION_PREFIX = "engine-"


def application_name(base_model: str) -> str:
    """Name of the Serve application that holds a base model."""
    return APPLICATION_PREFIX + re.sub(r"[^A-Za-z0-9._-]", "--", base_model)


def base_model_of(name: str) -> str:
    """The base model of such an application. A hub id has at most one slash and never two dashes side by side."""
    return name.removeprefix(APPLICATION_PREFIX).replace("--", "/")


class ServeEngines:
    """Asks engines, each of which is a Serve application of its own.

    Args:
        settings: See `Settings`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._starting: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def generate(self, base_model: str, request: GenerationRequest) -> GenerationResult:
        """Answer one request; a caller that is cancelled ends it at its replica.

        Raises:
            SiennError: What the engine raised; `CapacityError` when it is too busy, too slow, or lost.
        """
        handle = _choosing_by_adapter(await self._engine(base_model), request)
        response = handle.generate.remote(request)
        with self._translated(base_model):
            try:
                async with asyncio.timeout(self._settings.generation_timeout_s):
                    result: GenerationResult = await response
                    return result
            except (TimeoutError, asyncio.CancelledError):
                _cancel(response)
                raise

    async def stream(self, base_model: str, request: GenerationRequest) -> AsyncGenerator[GenerationDelta]:
        """Answer one request piece by piece; closing the generator ends it at its replica.

        Raises:
            SiennError: See `generate`, before the first piece; what fails later is the last one's error.
        """
        handle = _choosing_by_adapter(await self._engine(base_model), request, stream=True)
        deadline = asyncio.get_running_loop().time() + self._settings.generation_timeout_s
        response = handle.stream.remote(request)
        is_begun = is_whole = False
        try:
            while not is_whole:
                with self._translated(base_model):
                    async with asyncio.timeout_at(deadline):
                        delta: GenerationDelta = await anext(response)
                is_whole = delta.is_last
                if delta.error is not None and not is_begun:
                    raise delta.error
                is_begun = True
                yield delta
        except SiennError as error:
            if not is_begun:
                raise
            yield GenerationDelta(error=error)
        finally:
            if not is_whole:
                _cancel(response)

    @contextmanager
    def _translated(self, base_model: str) -> Iterator[None]:
        """Errors of a request to an engine as this project's own."""
        try:
            yield
        except TimeoutError:
            raise CapacityError(
                f"no answer within {self._settings.generation_timeout_s:.0f} s (SIENN_GENERATION_TIMEOUT_S); "
                "lower max_new_tokens or try again later",
                retry_after_s=30,
            ) from None
        except BackPressureError:
            raise CapacityError(
                f"{self._settings.engine_max_queue} requests wait for {base_model} already (SIENN_ENGINE_MAX_QUEUE)"
            ) from None
        except RayActorError as error:
            raise CapacityError(f"the engine of {base_model} was lost while it answered; ask again") from error
        except RayTaskError as error:
            cause = getattr(error, "cause", None)
            raise cause if isinstance(cause, SiennError) else error from None

    async def _engine(self, base_model: str) -> Any:
        """Handle of the base model's engine, once it is ready."""
        async with self._starting[base_model]:
            try:
                return await asyncio.to_thread(self._ensure_running, base_model)
            except TimeoutError:
                raise CapacityError(
                    f"the engine of {base_model} is still loading after {self._settings.engine_start_timeout_s:.0f} s "
                    "(SIENN_ENGINE_START_TIMEOUT_S)",
                    retry_after_s=30,
                ) from None

    def _ensure_running(self, base_model: str) -> Any:
        """Start the engine unless somebody has; waits until it is ready."""
        name = application_name(base_model)
        deadline = time.monotonic() + self._settings.engine_start_timeout_s
        if _status(name) in {None, "DEPLOY_FAILED", "NOT_STARTED"}:
            target = serve.RunTarget(build_engine(base_model, self._settings), name=name, route_prefix=None)
            serve.run_many([target], wait_for_applications_running=False)
        while (status := _status(name)) != "RUNNING":
            if status == "DEPLOY_FAILED":
                raise EngineError(f"the engine of {base_model} couldn't be started: {_why(name)}")
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(_POLL_S)
        return serve.get_app_handle(name)


def _choosing_by_adapter(handle: Any, request: GenerationRequest, **options: Any) -> Any:
    """The handle, for a request that is best at a replica which has its adapter already."""
    return handle.options(multiplexed_model_id=request.adapter_id or "", **options)


def _cancel(response: Any) -> None:
    """End a request at its replica, or take it out of the queue; one that has failed by itself tells nobody again."""
    with contextlib.suppress(Exception):
        response.cancel()


def _status(name: str) -> str | None:
    application = serve.status().applications.get(name)
    return None if application is None else str(application.status.value)


def _why(name: str) -> str:
    application = serve.status().applications.get(name)
    return "it is gone" if application is None else application.message[-_MAX_MESSAGE_CHARS:]
