"""Requests to engines, retried where a replica is lost before its first delta."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from deployments.engine_applications import EngineApplications
from deployments.engine_starts import EngineStarts
from sienn_ray.errors import CapacityError, QueueFullError, SiennError
from sienn_ray.inference.adapter_kinds import kind_for_adapter
from sienn_ray.inference.applications import EngineKey
from sienn_ray.inference.engine import GenerationDelta, GenerationRequest, GenerationResult
from sienn_ray.settings import Settings

# A request that crashes its replica each time must not crash all of them.
_MAX_TRIES = 3
_POLL_S = 0.2

_Answer = TypeVar("_Answer")


class ServeEngines:
    """Client of the engines, each of which is a Serve application of its own.

    Args:
        settings: See `Settings`.
        applications: The engines' applications.
    """

    def __init__(self, settings: Settings, applications: EngineApplications) -> None:
        self._settings = settings
        self._starts = EngineStarts(settings, applications)

    async def generate(
        self, base_model: str, request: GenerationRequest, start_wait_s: float | None = None
    ) -> GenerationResult:
        """See `sienn_ray.api.deps.Engines.generate`; a cancelled caller cancels the request at its replica.

        Raises:
            SiennError: The engine's error; `CapacityError` when the engine is starting, too busy, too slow, or lost.
        """
        key = self._key(base_model, request)

        async def ask(handle: Any, asked_at: float, latest: float) -> GenerationResult:
            response = _preferring_adapter(handle, request).generate.remote(request)
            try:
                async with asyncio.timeout_at(latest):
                    result: GenerationResult = await response
            except BaseException:
                _cancel(response)
                raise
            self._starts.note_answer(key, asked_at)
            return result

        return await self._with_retries(key, start_wait_s, ask)

    async def stream(
        self, base_model: str, request: GenerationRequest, start_wait_s: float | None = None
    ) -> AsyncGenerator[GenerationDelta]:
        """See `sienn_ray.api.deps.Engines.stream`; closing the generator cancels the request at its replica.

        Raises:
            SiennError: See `generate`, before the first delta; a later error comes as the last delta.
        """
        key = self._key(base_model, request)
        response: Any = None
        is_whole = False

        async def next_delta(asked_at: float, latest: float) -> GenerationDelta:
            nonlocal is_whole
            async with asyncio.timeout_at(latest):
                delta: GenerationDelta = await anext(response)
            self._starts.note_answer(key, asked_at)
            is_whole = delta.is_last
            return delta

        async def ask(handle: Any, asked_at: float, latest: float) -> tuple[GenerationDelta, float, float]:
            nonlocal response
            if response is not None:
                _cancel(response)  # of a replica that may only have been out of reach
            response = _preferring_adapter(handle, request, stream=True).stream.remote(request)
            delta = await next_delta(asked_at, latest)
            if delta.error is not None:
                raise delta.error
            return delta, asked_at, latest

        try:
            delta, asked_at, latest = await self._with_retries(key, start_wait_s, ask)
            yield delta
            while not is_whole:
                try:
                    with self._translated():
                        delta = await next_delta(asked_at, latest)
                except SiennError as error:
                    yield GenerationDelta(error=error)
                    return
                except RayActorError as error:
                    self._starts.note_loss(key)
                    yield GenerationDelta(error=self._refusal(key, error))
                    return
                yield delta
        finally:
            if response is not None and not is_whole:
                _cancel(response)

    def _key(self, base_model: str, request: GenerationRequest) -> EngineKey:
        """Return the engine that answers a request.

        Raises:
            InvalidInputError: The one that the settings name can't serve the adapter.
        """
        kind = kind_for_adapter(request.adapter_config, self._settings)
        return EngineKey(base_model, request.base_model_revision, kind)

    async def _with_retries(
        self,
        key: EngineKey,
        start_wait_s: float | None,
        ask: Callable[[Any, float, float], Awaitable[_Answer]],
    ) -> _Answer:
        """Retry a request whose replica was lost; no part of such an answer has left this process.

        Args:
            key: The engine.
            start_wait_s: See `generate`.
            ask: Gets a handle, the time of the call, and the deadline of the answer on the loop's clock.

        Raises:
            InvalidBaseModelError: The base model isn't allowed, or not any more.
            SiennError: The engine's error, or the last loss.
        """
        self._settings.admission_rules.check_id(key.base_model)
        loop = asyncio.get_running_loop()
        latest = None
        num_losses, has_waited = 0, False
        while True:
            has_waited |= not self._starts.is_heard(key)
            handle = await self._starts.ready(key, start_wait_s)
            latest = latest or loop.time() + self._settings.generation_timeout_s
            try:
                with self._translated():
                    return await ask(handle, time.monotonic(), latest)
            except (RayActorError, DeploymentUnavailableError) as error:
                self._starts.note_loss(key)
                num_losses += 1
                if num_losses == _MAX_TRIES:
                    raise self._refusal(key, error) from error
            except (BackPressureError, QueueFullError) as error:
                # Callers that waited for a start come all at once, more of them than the queue holds.
                if not has_waited or loop.time() + _POLL_S > latest:
                    raise self._refusal(key, error) from None
                await asyncio.sleep(_POLL_S)

    def _refusal(self, key: EngineKey, error: Exception) -> CapacityError:
        """Return the error of a lost replica or a full queue."""
        if isinstance(error, QueueFullError):
            return error
        if isinstance(error, BackPressureError):
            return QueueFullError.of(str(key), self._settings.engine_max_queue)
        return CapacityError(f"the engine of {key} was lost while it answered; ask again")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Translate Serve's errors into `SiennError`, except those that a retry may mend."""
        try:
            yield
        except TimeoutError:
            raise CapacityError(
                f"no answer within {self._settings.generation_timeout_s:.0f} s (SIENN_GENERATION_TIMEOUT_S); "
                "lower max_new_tokens or try again later",
                retry_after_s=30,
            ) from None
        except RayTaskError as error:
            cause = getattr(error, "cause", None)
            raise cause if isinstance(cause, SiennError) else error from None


def _preferring_adapter(handle: Any, request: GenerationRequest, **options: Any) -> Any:
    """Return the handle with the request's adapter as a hint: replicas that have it loaded are preferred."""
    return handle.options(multiplexed_model_id=request.adapter_id or "", **options)


def _cancel(response: Any) -> None:
    """Cancel a request at its replica or in the queue; the error of one that has failed already is dropped."""
    with contextlib.suppress(Exception):
        response.cancel()
