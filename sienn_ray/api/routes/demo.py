"""The question of a chat page that knows no job: the newest adapter answers, or a base model."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from fastapi import APIRouter, Request

from sienn_ray.access.principals import Scope
from sienn_ray.api.access.scopes import PrincipalDep, needs
from sienn_ray.api.answers.asked_models import AskedModel, find_model
from sienn_ray.api.answers.fields import answer_fields
from sienn_ray.api.answers.start_wait import AskingBackendsDep
from sienn_ray.api.deps import Backends
from sienn_ray.api.http.errors import documented
from sienn_ray.api.http.places import Kind, takes_place
from sienn_ray.api.http.streams import unless_gone
from sienn_ray.api.schemas.demo import DemoRequest, DemoResponse
from sienn_ray.catalog import CATALOG, cached_size_bytes
from sienn_ray.jobs.schema import JobQuery, JobStatus

router = APIRouter(prefix="/api/demo", tags=["Inference"], dependencies=[needs(Scope.INFER)])


@router.post(
    "/test-tinyllama",
    summary="Ask your newest adapter, or a base model",
    responses=documented(
        HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE
    ),
    dependencies=[takes_place(Kind.ANSWER)],
)
async def ask_newest(
    body: DemoRequest, request: Request, backends: AskingBackendsDep, principal: PrincipalDep
) -> DemoResponse:
    """Answer a prompt with the adapter of your newest completed job; without one, a base model of the catalog answers.

    For the chat page of the reference's front end, which names no job. Fields that this API doesn't know are ignored.
    """
    asked = await _newest(backends, principal.owner)
    result = await unless_gone(
        request, backends.engines.generate(asked.base_model, asked.request(body.chat_messages, body.sampling_params))
    )
    return DemoResponse(
        job_id=None if asked.job is None else asked.job.id,
        model_name=asked.base_model,
        response=result.text,
        **answer_fields(asked, body.prompt, result, backends.storage),
    )


async def _newest(backends: Backends, owner: str) -> AskedModel:
    page = await backends.tracker.jobs(JobQuery(status=JobStatus.COMPLETED, owner=owner, limit=1))
    if page.jobs:
        return AskedModel.adapter_of(page.jobs[0])
    return await find_model(backends, await asyncio.to_thread(_base_model, backends))


def _base_model(backends: Backends) -> str:
    """The smallest base model of the catalog that is on this machine, or the smallest one; one that is allowed."""
    entries = sorted(CATALOG, key=lambda entry: entry.vram_required_gb)
    allowed = [entry.id for entry in entries if backends.settings.admission_rules.allows(entry.id)]
    here = (base_model for base_model in allowed if cached_size_bytes(base_model) is not None)
    return next(here, next(iter(allowed), entries[0].id))
