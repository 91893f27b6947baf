"""Asks the engine of a base model, and asks again where a replica is lost before it has said anything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError

from deployments.engine_starts import EngineStarts
from sienn_ray.errors import CapacityError, SiennError
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
        """Answer one request; a caller that is cancelled ends it at its replica.

        Args:
            base_model: Hub id.
            request: What to generate.
            start_wait_s: How long to wait where the engine has to be started first; None is as long as settings allow.

        Raises:
            SiennError: What the engine raised; `CapacityError` when it is starting, too busy, too slow, or lost.
        """

        async def ask() -> GenerationResult:
            handle = _choosing_by_adapter(await self._starts.ready(base_model, start_wait_s), request)
            response = handle.generate.remote(request)
            with self._translated():
                try:
                    async with asyncio.timeout(self._settings.generation_timeout_s):
                        result: GenerationResult = await response
                except (TimeoutError, asyncio.CancelledError):
                    _cancel(response)
                    raise
            self._starts.note_answer(base_model)
            return result

        return await self._until_it_holds(base_model, ask)

    async def stream(
        self, base_model: str, request: GenerationRequest, start_wait_s: float | None = None
    ) -> AsyncGenerator[GenerationDelta]:
        """Answer one request piece by piece; closing the generator ends it at its replica.

        Args:
            base_model: Hub id.
            request: What to generate.
            start_wait_s: See `generate`.

        Raises:
            SiennError: See `generate`, before the first piece; what fails later is the last one's error.
        """
        response: Any = None
        latest = 0.0
        is_whole = False

        async def ask() -> GenerationDelta:
            nonlocal response, latest
            handle = _choosing_by_adapter(await self._starts.ready(base_model, start_wait_s), request, stream=True)
            response = handle.stream.remote(request)
            latest = asyncio.get_running_loop().time() + self._settings.generation_timeout_s
            delta = await self._next(base_model, response, latest)
            if delta.error is not None:
                raise delta.error
            return delta

        try:
            delta = await self._until_it_holds(base_model, ask)
            while True:
                is_whole = delta.is_last
                yield delta
                if is_whole:
                    return
                failure: SiennError
                try:
                    delta = await self._next(base_model, response, latest)
                    continue
                except SiennError as error:
                    failure = error
                except (RayActorError, BackPressureError) as error:
                    self._starts.note_loss(base_model)
                    failure = self._refusal(base_model, error)
                yield GenerationDelta(error=failure)
                return
        finally:
            if response is not None and not is_whole:
                _cancel(response)

    async def _next(self, base_model: str, response: Any, latest: float) -> GenerationDelta:
        with self._translated():
            async with asyncio.timeout_at(latest):
                delta: GenerationDelta = await anext(response)
        self._starts.note_answer(base_model)
        return delta

    async def _until_it_holds(self, base_model: str, ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Ask again where a replica was lost; nothing of such an answer has been seen by anybody.

        Raises:
            SiennError: What was raised instead, or the last loss.
        """
        num_losses = 0
        while True:
            try:
                return await ask()
            except RayActorError as error:
                self._starts.note_loss(base_model)
                num_losses += 1
                if num_losses == _MAX_TRIES:
                    raise self._refusal(base_model, error) from error
            except BackPressureError as error:
                # Those that were lost come back all at once, more of them than a queue takes beside what is computed.
                if not num_losses:
                    raise self._refusal(base_model, error) from None
                await asyncio.sleep(_POLL_S)

    def _refusal(self, base_model: str, error: Exception) -> CapacityError:
        """A lost replica, or a queue that is full, in our words."""
        if isinstance(error, BackPressureError):
            limit = self._settings.engine_max_queue
            return CapacityError(f"{limit} requests wait for {base_model} already (SIENN_ENGINE_MAX_QUEUE)")
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
