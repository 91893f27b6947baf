"""Texts that a model goes on with, as clients of the OpenAI API ask for them."""

from __future__ import annotations

from fastapi import APIRouter, Request

from sienn_ray.api.asked_models import find_model
from sienn_ray.api.completion_output import CompletionChunks, completion
from sienn_ray.api.error_shapes import OPENAI_PREFIX
from sienn_ray.api.errors import documented
from sienn_ray.api.event_streams import documented_stream, event_stream
from sienn_ray.api.generation import generate_all, stream_all
from sienn_ray.api.openai_output import Heading, openai_error_event, openai_events
from sienn_ray.api.openapi import OPENAI_TAG
from sienn_ray.api.routes.openai_models import ERRORS
from sienn_ray.api.schemas.completions import Completion, CompletionRequest
from sienn_ray.api.start_wait import AskingBackendsDep
from sienn_ray.api.streams import unless_gone

router = APIRouter(prefix=OPENAI_PREFIX, tags=[OPENAI_TAG])

_EVENTS = """\
data: {"id":"cmpl-1a2b","created":1762943400,"model":"a1b2c3d4-...","object":"text_completion",\
"choices":[{"index":0,"text":" a","logprobs":null,"finish_reason":null}]}

data: [DONE]
"""


@router.post(
    "/completions",
    summary="Go on with a text",
    response_model=Completion,
    responses={**documented_stream("The answers, or chunks of them.", _EVENTS), **documented(*ERRORS)},
)
async def create_completion(body: CompletionRequest, request: Request, backends: AskingBackendsDep) -> object:
    """Go on with texts as they are, without a chat template, as the OpenAI API does."""
    asked = await find_model(backends, body.model)
    requests = [asked.request(prompt, body.sampling_of(choice)) for prompt in body.prompts for choice in range(body.n)]
    heading = Heading.of(request, "cmpl", body.model, body.n)
    if not body.stream:
        work = generate_all(backends.engines, asked.base_model, requests)
        return completion(heading, await unless_gone(request, work))
    pieces = stream_all(backends.engines, asked.base_model, requests)
    chunks = CompletionChunks(heading, with_usage=body.stream_options.include_usage)
    return await event_stream(request, openai_events(pieces, chunks.of, chunks.last), openai_error_event)
