"""Start fine-tunes and watch them."""

from __future__ import annotations

import asyncio
import uuid
from http import HTTPStatus

from fastapi import APIRouter

from sienn_ray import catalog
from sienn_ray.api.deps import Backends, BackendsDep
from sienn_ray.api.errors import documented
from sienn_ray.api.schemas import (
    JobList,
    JobMeta,
    JobSummary,
    StartFinetuningRequest,
    StartFinetuningResponse,
    TrainingStatus,
)
from sienn_ray.errors import CapacityError
from sienn_ray.jobs.schema import JobRecord, utc_now
from sienn_ray.training.config import TrainingConfig

router = APIRouter(prefix="/api", tags=["Training Jobs"])

# Several questions to the hub, each with its own deadline.
_RESOLVE_TIMEOUT_FACTOR = 3


@router.post(
    "/start-finetuning",
    status_code=HTTPStatus.CREATED,
    summary="Start a fine-tuning job",
    responses=documented(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY),
)
async def start_finetuning(body: StartFinetuningRequest, backends: BackendsDep) -> StartFinetuningResponse:
    """Queue a LoRA fine-tune; it starts as soon as fewer than SIENN_MAX_RUNNING_JOBS run."""
    await backends.tracker.dataset(body.dataset_id)
    await _resolve(body.model_name, backends)
    now = utc_now()
    job = await backends.tracker.add_job(
        JobRecord(
            id=str(uuid.uuid4()), dataset_id=body.dataset_id, config=_config(body), created_at=now, updated_at=now
        )
    )
    return StartFinetuningResponse(
        job_id=job.id,
        status="pending",
        dataset_id=job.dataset_id,
        message="Fine-tuning job submitted successfully",
        created_at=job.created_at,
    )


def _config(body: StartFinetuningRequest) -> TrainingConfig:
    fields = body.model_dump(exclude={"dataset_id", "model_name"})
    return TrainingConfig(base_model=body.model_name, **fields)


async def _resolve(base_model: str, backends: Backends) -> None:
    timeout_s = backends.settings.hub_timeout_s
    try:
        async with asyncio.timeout(timeout_s * _RESOLVE_TIMEOUT_FACTOR):
            await asyncio.to_thread(catalog.resolve, base_model, timeout_s)
    except TimeoutError:
        raise CapacityError(
            f"the model hub hasn't said within {timeout_s * _RESOLVE_TIMEOUT_FACTOR:.0f} s if it has '{base_model}'",
            retry_after_s=30,
        ) from None


@router.get(
    "/training-status/{job_id}",
    summary="Get training job status and progress",
    responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY),
)
async def training_status(job_id: str, backends: BackendsDep) -> TrainingStatus:
    """Status, progress and facts of one job."""
    job = await backends.tracker.job(job_id)
    return TrainingStatus(**_summary(job).model_dump(), meta=_meta(job, backends))


@router.get("/jobs", summary="List all training jobs")
async def list_jobs(backends: BackendsDep) -> JobList:
    """All jobs, the newest first."""
    jobs = await backends.tracker.jobs()
    return JobList(jobs=[_summary(job) for job in jobs], count=len(jobs))


def _summary(job: JobRecord) -> JobSummary:
    return JobSummary(
        job_id=job.id,
        dataset_id=job.dataset_id,
        status=job.status.value,
        progress=job.progress,
        message=job.message,
        created_at=job.created_at,
        updated_at=job.updated_at,
    )


def _meta(job: JobRecord, backends: Backends) -> JobMeta:
    known = {"current_epoch": 0, "total_epochs": job.config.num_epochs, "current_loss": None, **job.facts}
    run = {
        "attempt": job.attempt,
        "ray_submission_id": job.submission_id,
        "hyperparameters": job.config.model_dump(exclude={"base_model"}),
    }
    failure = {"failure_reason": job.failure_reason} if job.failure_reason else {}
    return JobMeta(
        model_name=job.config.base_model,
        model_path=backends.storage.location(job.adapter_key),
        **known,
        **run,
        **failure,
    )
