"""Base models and adapters, as clients of the OpenAI API list them."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path

from sienn_ray.access.principals import Scope
from sienn_ray.api.access.scopes import needs
from sienn_ray.api.answers.asked_models import AskedModel, find_model
from sienn_ray.api.answers.openai_output import ERRORS
from sienn_ray.api.deps import BackendsDep
from sienn_ray.api.http.error_shapes import OPENAI_PREFIX
from sienn_ray.api.http.errors import documented
from sienn_ray.api.lists.job_pages import job_page
from sienn_ray.api.openapi.document import OPENAI_TAG
from sienn_ray.api.schemas.common import JOB_ID
from sienn_ray.api.schemas.openai_answers import Model, ModelList
from sienn_ray.api.schemas.openai_requests import MAX_NAME_CHARS
from sienn_ray.catalog import CATALOG, cached_size_bytes
from sienn_ray.jobs.schema import JobQuery, JobStatus

router = APIRouter(prefix=OPENAI_PREFIX, tags=[OPENAI_TAG], dependencies=[needs(Scope.INFER, Scope.READ)])

_OWNER_OF_ADAPTERS = "sienn_ray"


@router.get("/models/", include_in_schema=False)
@router.get("/models", summary="List what can be asked", responses=documented(HTTPStatus.SERVICE_UNAVAILABLE))
async def list_models(backends: BackendsDep) -> ModelList:
    """The base models of the catalog that are on this machine, and the adapters of all completed jobs."""
    here = await asyncio.to_thread(_base_models_here)
    page = await job_page(JobQuery(status=JobStatus.COMPLETED), backends.tracker)
    asked = [*map(AskedModel, here), *map(AskedModel.adapter_of, page.jobs)]
    return ModelList(data=[_model(each) for each in asked])


@router.get("/models/{model:path}", summary="Look up what can be asked", responses=documented(*ERRORS))
async def retrieve_model(
    model: Annotated[
        str,
        Path(
            min_length=1,
            max_length=MAX_NAME_CHARS,
            description="A hub id or a job's id.",
            examples=[JOB_ID, CATALOG[0].id],
        ),
    ],
    backends: BackendsDep,
) -> Model:
    """One base model, or the adapter of a completed job."""
    return _model(await find_model(backends, model))


def _base_models_here() -> list[str]:
    return [entry.id for entry in CATALOG if cached_size_bytes(entry.id) is not None]


def _model(asked: AskedModel) -> Model:
    job, base_model = asked.job, asked.base_model
    if job is None:
        return Model(id=base_model, created=0, owned_by=base_model.partition("/")[0], root=base_model, parent=None)
    created = int((job.ended_at or job.updated_at).timestamp())
    return Model(id=job.id, created=created, owned_by=_OWNER_OF_ADAPTERS, root=base_model, parent=base_model)
