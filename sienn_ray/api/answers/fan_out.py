"""Several requests to one base model at the same time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from sienn_ray.api.deps import Engines
from sienn_ray.api.http.streams import gathered, merged
from sienn_ray.inference.engine import GenerationDelta, GenerationRequest, GenerationResult


async def generate_all(
    engines: Engines, base_model: str, requests: Sequence[GenerationRequest]
) -> list[GenerationResult]:
    """The answers to all requests. The first that fails cancels the others.

    Raises:
        SiennError: See `Engines`.
    """
    return await gathered([engines.generate(base_model, request) for request in requests])


async def stream_all(
    engines: Engines, base_model: str, requests: Sequence[GenerationRequest]
) -> AsyncGenerator[tuple[int, GenerationDelta]]:
    """The pieces of all answers as they come, each with its request's number. The first that fails cancels the others.

    Raises:
        SiennError: See `Engines`.
    """
    async with aclosing(merged([engines.stream(base_model, request) for request in requests])) as pieces:
        async for number, delta in pieces:
            if delta.error is not None:
                raise delta.error
            yield number, delta
