"""Chat completions, as clients of the OpenAI API request them."""

from __future__ import annotations

from fastapi import APIRouter, Request

from sienn_ray.access.principals import Scope
from sienn_ray.api.access.scopes import needs
from sienn_ray.api.answers.chat_output import ChatOutput
from sienn_ray.api.answers.openai_output import ERRORS
from sienn_ray.api.answers.openai_run import run_openai
from sienn_ray.api.answers.start_wait import AskingBackendsDep
from sienn_ray.api.http.error_shapes import OPENAI_PREFIX
from sienn_ray.api.http.errors import documented
from sienn_ray.api.http.event_streams import documented_stream
from sienn_ray.api.http.places import Kind, takes_place
from sienn_ray.api.openapi.document import OPENAI_TAG
from sienn_ray.api.schemas.chat import ChatCompletion, ChatCompletionRequest

router = APIRouter(prefix=OPENAI_PREFIX, tags=[OPENAI_TAG], dependencies=[needs(Scope.INFER)])

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
    dependencies=[takes_place(Kind.ANSWER)],
)
async def create_chat_completion(body: ChatCompletionRequest, request: Request, backends: AskingBackendsDep) -> object:
    """Answer a conversation, as the OpenAI API does; the first request to a base model waits until it is loaded."""
    return await run_openai(request, backends, body, ChatOutput, "chatcmpl")
