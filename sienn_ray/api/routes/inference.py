"""Talk to a fine-tuned model."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from http import HTTPStatus

from fastapi import APIRouter, Request

from sienn_ray.access.principals import Scope
from sienn_ray.api.access.scopes import needs
from sienn_ray.api.answers.asked_models import AskedModel
from sienn_ray.api.answers.comparison import compared_answer, compared_models
from sienn_ray.api.answers.fan_out import stream_all
from sienn_ray.api.answers.fields import answer_fields
from sienn_ray.api.answers.start_wait import AskingBackendsDep
from sienn_ray.api.http.error_shapes import Fault
from sienn_ray.api.http.errors import documented
from sienn_ray.api.http.event_streams import documented_stream, event, event_stream
from sienn_ray.api.http.places import Kind, takes_place
from sienn_ray.api.http.streams import gathered, unless_gone
from sienn_ray.api.lists.completed import completed_job
from sienn_ray.api.schemas.inference import (
    AskRequest,
    AskResponse,
    CompareModelsRequest,
    CompareModelsResponse,
)
from sienn_ray.inference.engine import GenerationDelta, GenerationResult

router = APIRouter(prefix="/api", tags=["Inference"], dependencies=[needs(Scope.INFER)])

_ERRORS = documented(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_EVENTS = """\
data: {"text": "Machine learning is"}

data: {"text": " a branch of artificial intelligence."}

event: result
data: {"job_id": "a1b2c3d4-...", "generated_text": "Machine learning is a branch of artificial intelligence.", ...}
"""


@router.post(
    "/test-model",
    name="test_model",
    summary="Test a fine-tuned model with a prompt",
    response_model=AskResponse,
    responses={**documented_stream("The answer, or its pieces with the whole behind them.", _EVENTS), **_ERRORS},
    dependencies=[takes_place(Kind.ANSWER)],
)
async def ask_model(body: AskRequest, request: Request, backends: AskingBackendsDep) -> object:
    """Answer a prompt; the first request to a base model waits until its engine has loaded it.

    With `stream`, the answer comes as server-sent events: its pieces as `{"text": ...}`, then an event `result` with
    what the answer would have been without it, or an event `error`.
    """
    job = await completed_job(backends, body.job_id, "model testing")
    asked = AskedModel.adapter_of(job) if body.use_adapter else AskedModel.base_of(job)
    messages = body.chat_messages
    asking = body.as_asked.of(asked.request(messages, body.sampling_params))

    def answer(result: GenerationResult) -> AskResponse:
        return AskResponse(job_id=job.id, **answer_fields(asked, messages[-1].content, result, backends.storage))

    if not body.stream:
        return answer(await unless_gone(request, backends.engines.generate(asked.base_model, asking)))
    pieces = stream_all(backends.engines, asked.base_model, [asking])
    return await event_stream(request, _events(pieces, answer), _error_event)


async def _events(
    pieces: AsyncGenerator[tuple[int, GenerationDelta]], answer: Callable[[GenerationResult], AskResponse]
) -> AsyncGenerator[bytes]:
    async with aclosing(pieces):
        async for _, delta in pieces:
            if delta.text:
                yield event(json.dumps({"text": delta.text}))
            if delta.result is not None:
                yield event(answer(delta.result).model_dump_json(), "result")


def _error_event(fault: Fault) -> bytes:
    return event(json.dumps(fault.as_json()), "error")


@router.post(
    "/compare-models",
    summary="Ask a base model and its adapters the same",
    responses=_ERRORS,
    dependencies=[takes_place(Kind.ANSWER)],
)
async def compare_models(
    body: CompareModelsRequest, request: Request, backends: AskingBackendsDep
) -> CompareModelsResponse:
    """Ask a base model and up to four adapters of it at the same time.

    One that fails has its error in its place; the others answer nevertheless.
    """
    asked = await compared_models(backends, body.job_ids)
    sampling, messages, how = body.sampling_params, body.chat_messages, body.as_asked
    asking = [how.of(each.request(messages, sampling)) for each in asked]
    await backends.admit(asking)
    answers = [compared_answer(each, one, backends, request.scope) for each, one in zip(asked, asking, strict=True)]
    return CompareModelsResponse(base_model=asked[0].base_model, answers=await unless_gone(request, gathered(answers)))
