"""One request of the OpenAI API, from its body to the response: all answers at once, or their chunks as events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

from fastapi import Request

from sienn_ray.api.answers.asked_models import find_model
from sienn_ray.api.answers.fan_out import generate_all, stream_all
from sienn_ray.api.answers.openai_output import OpenAiOutput, ResponseHead
from sienn_ray.api.deps import Backends
from sienn_ray.api.http.error_shapes import Fault
from sienn_ray.api.http.event_streams import EventStream, event, event_stream
from sienn_ray.api.http.streams import unless_gone
from sienn_ray.api.schemas.common import ResponseBody
from sienn_ray.api.schemas.openai_requests import OpenAiRequest
from sienn_ray.inference.engine import GenerationDelta, GenerationResult

_Body = TypeVar("_Body", bound=OpenAiRequest)


async def run_openai(
    request: Request,
    backends: Backends,
    body: _Body,
    output_of: Callable[[ResponseHead, _Body], OpenAiOutput],
    id_prefix: str,
) -> ResponseBody | EventStream:
    """Answer a request; the answers to a prompt follow each other, `n` of each.

    Args:
        request: The client's request.
        backends: See `Backends`.
        body: The request's body.
        output_of: Makes the shape of the route's answers.
        id_prefix: The beginning of the response's id.

    Raises:
        SiennError: There is no answer, or no first piece of one.
    """
    asked = await find_model(backends, body.model)
    how = body.as_asked
    requests = [
        how.of(asked.request(prompt, body.sampling_of(choice))) for prompt in body.prompts for choice in range(body.n)
    ]
    await backends.admit(requests)
    head = ResponseHead.of(request, id_prefix, body.model, body.n)
    output = output_of(head, body)
    if not body.stream:
        work = generate_all(backends.engines, asked.base_model, requests)
        return output.whole(await unless_gone(request, work))
    pieces = stream_all(backends.engines, asked.base_model, requests)
    return await event_stream(request, _events(pieces, output), _error_event)


async def _events(pieces: AsyncGenerator[tuple[int, GenerationDelta]], output: OpenAiOutput) -> AsyncGenerator[bytes]:
    results: dict[int, GenerationResult] = {}
    async with aclosing(pieces):
        async for number, delta in pieces:
            if delta.result is not None:
                results[number] = delta.result
            for chunk in output.chunks(number, delta):
                yield _chunk_event(chunk)
    if last := output.last_chunk([results[number] for number in sorted(results)]):
        yield _chunk_event(last)
    yield event("[DONE]")


def _chunk_event(chunk: ResponseBody) -> bytes:
    return event(chunk.model_dump_json(exclude_unset=True))


def _error_event(fault: Fault) -> bytes:
    return event(json.dumps(fault.as_json(is_openai=True)))
