"""Conversations, as clients of the OpenAI API have them."""

from __future__ import annotations

from fastapi import APIRouter, Request

from sienn_ray.api.asked_models import find_model
from sienn_ray.api.chat_output import ChatChunks, chat_completion
from sienn_ray.api.error_shapes import OPENAI_PREFIX
from sienn_ray.api.errors import documented
from sienn_ray.api.event_streams import documented_stream, event_stream
from sienn_ray.api.generation import generate_all, stream_all
from sienn_ray.api.openai_output import Heading, openai_error_event, openai_events
from sienn_ray.api.openapi import OPENAI_TAG
from sienn_ray.api.routes.openai_models import ERRORS
from sienn_ray.api.schemas.chat import ChatCompletion, ChatCompletionRequest
from sienn_ray.api.start_wait import AskingBackendsDep
from sienn_ray.api.streams import unless_gone

router = APIRouter(prefix=OPENAI_PREFIX, tags=[OPENAI_TAG])

_EVENTS = """\
data: {"id":"chatcmpl-1a2b","created":1762943400,"model":"a1b2c3d4-...","object":"chat.completion.chunk",\
"choices":[{"index":0,"delta":{"content":"LoRA"},"finish_reason":null}]}

data: [DONE]
"""


@router.post(
    "/chat/completions",
    summary="Go on with a conversation",
    response_model=ChatCompletion,
    responses={**documented_stream("The answers, or chunks of them.", _EVENTS), **documented(*ERRORS)},
)
async def create_chat_completion(body: ChatCompletionRequest, request: Request, backends: AskingBackendsDep) -> object:
    """Answer a conversation, as the OpenAI API does; the first request to a base model waits until it is loaded."""
    asked = await find_model(backends, body.model)
    messages = tuple(message.chat_message for message in body.messages)
    requests = [asked.request(messages, body.sampling_of(choice)) for choice in range(body.n)]
    heading = Heading.of(request, "chatcmpl", body.model, body.n)
    if not body.stream:
        work = generate_all(backends.engines, asked.base_model, requests)
        return chat_completion(heading, await unless_gone(request, work))
    pieces = stream_all(backends.engines, asked.base_model, requests)
    chunks = ChatChunks(heading, with_usage=body.stream_options.include_usage)
    return await event_stream(request, openai_events(pieces, chunks.of, chunks.last), openai_error_event)
