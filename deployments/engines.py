"""Requests to the engine of a base model, with a retry where a replica is lost before its first message."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from deployments.engine_starts import EngineStarts
from sienn_ray.errors import CapacityError, QueueFullError, SiennError
from sienn_ray.inference.engine import GenerationDelta, GenerationRequest, GenerationResult
from sienn_ray.settings import Settings

# A request that ends its replica each time must not end all the others that come after it.
_MAX_TRIES = 3
_POLL_S = 0.2

_Answer = TypeVar("_Answer")


class ServeEngines:
    """Asks engines, each of which is a Serve application of its own.

    Args:
        settings: See `Settings`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._starts = EngineStarts(settings)

    async def generate(
        self, base_model: str, request: GenerationRequest, start_wait_s: float | None = None
    ) -> GenerationResult:
        """See `sienn_ray.api.deps.Engines.generate`; a caller that is cancelled ends the request at its replica.

        Raises:
            SiennError: What the engine raised; `CapacityError` when it is starting, too busy, too slow, or lost.
        """

        async def ask(handle: Any, asked_at: float, latest: float) -> GenerationResult:
            response = _choosing_by_adapter(handle, request).generate.remote(request)
            try:
                async with asyncio.timeout_at(latest):
                    result: GenerationResult = await response
            except BaseException:
                _cancel(response)
                raise
            self._starts.note_answer(base_model, asked_at)
            return result

        return await self._until_it_holds(base_model, start_wait_s, ask)

    async def stream(
        self, base_model: str, request: GenerationRequest, start_wait_s: float | None = None
    ) -> AsyncGenerator[GenerationDelta]:
        """See `sienn_ray.api.deps.Engines.stream`; closing the generator ends the request at its replica.

        Raises:
            SiennError: See `generate`, before the first piece; what fails later is the last one's error.
        """
        response: Any = None
        is_whole = False

        async def next_delta(asked_at: float, latest: float) -> GenerationDelta:
            nonlocal is_whole
            async with asyncio.timeout_at(latest):
                delta: GenerationDelta = await anext(response)
            self._starts.note_answer(base_model, asked_at)
            is_whole = delta.is_last
            return delta

        async def ask(handle: Any, asked_at: float, latest: float) -> tuple[GenerationDelta, float, float]:
            nonlocal response
            if response is not None:
                _cancel(response)  # of a replica that may only have been out of reach
            response = _choosing_by_adapter(handle, request, stream=True).stream.remote(request)
            delta = await next_delta(asked_at, latest)
            if delta.error is not None:
                raise delta.error
            return delta, asked_at, latest

        try:
            delta, asked_at, latest = await self._until_it_holds(base_model, start_wait_s, ask)
            yield delta
            while not is_whole:
                try:
                    with self._translated():
                        delta = await next_delta(asked_at, latest)
                except SiennError as error:
                    yield GenerationDelta(error=error)
                    return
                except RayActorError as error:
                    self._starts.note_loss(base_model)
                    yield GenerationDelta(error=self._refusal(base_model, error))
                    return
                yield delta
        finally:
            if response is not None and not is_whole:
                _cancel(response)

    async def _until_it_holds(
        self,
        base_model: str,
        start_wait_s: float | None,
        ask: Callable[[Any, float, float], Awaitable[_Answer]],
    ) -> _Answer:
        """Ask again where a replica was lost; nothing of such an answer has been seen by anybody.

        Args:
            base_model: Hub id.
            start_wait_s: See `generate`.
            ask: Gets a handle, when it is called, and until when there has to be an answer, on the loop's clock.

        Raises:
            SiennError: What was raised instead, or the last loss.
        """
        loop = asyncio.get_running_loop()
        latest = None
        num_losses, has_waited = 0, False
        while True:
            has_waited |= not self._starts.is_heard(base_model)
            handle = await self._starts.ready(base_model, start_wait_s)
            latest = latest or loop.time() + self._settings.generation_timeout_s
            try:
                with self._translated():
                    return await ask(handle, time.monotonic(), latest)
            except (RayActorError, DeploymentUnavailableError) as error:
                self._starts.note_loss(base_model)
                num_losses += 1
                if num_losses == _MAX_TRIES:
                    raise self._refusal(base_model, error) from error
            except (BackPressureError, QueueFullError) as error:
                # Those who waited for an engine come all at once, more of them than its queue takes in that moment.
                if not has_waited or loop.time() + _POLL_S > latest:
                    raise self._refusal(base_model, error) from None
                await asyncio.sleep(_POLL_S)

    def _refusal(self, base_model: str, error: Exception) -> CapacityError:
        """A lost replica, or a queue that is full, in our words."""
        if isinstance(error, QueueFullError):
            return error
        if isinstance(error, BackPressureError):
            return QueueFullError.of(base_model, self._settings.engine_max_queue)
        return CapacityError(f"the engine of {base_model} was lost while it answered; ask again")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """What goes wrong with a request as this project's own errors, but for what asking again may mend."""
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


def _choosing_by_adapter(handle: Any, request: GenerationRequest, **options: Any) -> Any:
    """The handle, for a request that is best at a replica which has its adapter already."""
    return handle.options(multiplexed_model_id=request.adapter_id or "", **options)


def _cancel(response: Any) -> None:
    """End a request at its replica, or take it out of the queue; one that has failed by itself tells nobody again."""
    with contextlib.suppress(Exception):
        response.cancel()
