"""List jobs; show, cancel, pause, resume, retry and delete one."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import StringConstraints

from sienn_ray.api.deps import Backends, BackendsDep
from sienn_ray.api.exports.deletion import delete_all_of
from sienn_ray.api.http.errors import documented
from sienn_ray.api.lists.job_pages import job_page
from sienn_ray.api.lists.paging import cursor_query, limit_query
from sienn_ray.api.schemas.common import DATASET_ID
from sienn_ray.api.schemas.finetuning import JobName
from sienn_ray.api.schemas.hyperparameters import hyperparameters
from sienn_ray.api.schemas.ids import JobIdPath
from sienn_ray.api.schemas.jobs import DeletedJob, JobList, JobMeta, JobStatusName, JobSummary, TrainingStatus
from sienn_ray.catalog import CATALOG
from sienn_ray.errors import ConflictError, InvalidInputError
from sienn_ray.jobs import job_facts
from sienn_ray.jobs.naming import LABEL_PATTERN, MAX_LABELS, PRINTABLE_PATTERN
from sienn_ray.jobs.schema import JobQuery, JobRecord

router = APIRouter(prefix="/api", tags=["Training Jobs"])

_OF_ONE_JOB = documented(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE)
_CHANGES_ONE_JOB = {**_OF_ONE_JOB, **documented(HTTPStatus.CONFLICT)}

LabelFilter = Annotated[str, StringConstraints(pattern=LABEL_PATTERN)]


@router.get(
    "/jobs",
    summary="List all training jobs",
    responses=documented(HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE),
)
async def list_jobs(
    backends: BackendsDep,
    status: Annotated[JobStatusName | None, Query(description="Jobs with this status.", examples=["running"])] = None,
    dataset_id: Annotated[
        str | None, Query(description="Jobs that train or evaluate on this dataset.", examples=[DATASET_ID])
    ] = None,
    model_name: Annotated[
        str | None,
        Query(
            max_length=200, pattern=PRINTABLE_PATTERN, description="Jobs of this base model.", examples=[CATALOG[0].id]
        ),
    ] = None,
    name: Annotated[JobName | None, Query(description="Jobs of this name.", examples=["Ferry assistant"])] = None,
    label: Annotated[
        list[LabelFilter] | None,
        Query(
            max_length=MAX_LABELS,
            description="Jobs with this label, as `key=value`; may be given more than once.",
            examples=[["team=support"]],
        ),
    ] = None,
    limit: Annotated[int | None, limit_query("Jobs")] = None,
    cursor: Annotated[str | None, cursor_query("NDI=")] = None,
) -> JobList:
    """Jobs, the newest first: all of them, those that the filters fit, or page by page."""
    query = JobQuery(
        status=status,
        dataset_id=dataset_id,
        base_model=model_name,
        name=name,
        labels=_labels(label or []),
        limit=limit,
        cursor=cursor,
    )
    page = await job_page(query, backends.tracker)
    return JobList(jobs=[_summary(job) for job in page.jobs], count=page.count, next_cursor=page.next_cursor)


def _labels(filters: list[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for key, _, value in (text.partition("=") for text in filters):
        if labels.setdefault(key, value) != value:
            raise InvalidInputError(f"label '{key}' is asked for with two values, and a job has one; ask for one")
    return labels


@router.get("/training-status/{job_id}", summary="Get training job status and progress", responses=_OF_ONE_JOB)
async def training_status(job_id: JobIdPath, backends: BackendsDep) -> TrainingStatus:
    """Status, progress and facts of one job."""
    return _status(await backends.tracker.job(job_id), backends)


@router.get("/jobs/{job_id}", summary="Get a training job", responses=_OF_ONE_JOB)
async def get_job(job_id: JobIdPath, backends: BackendsDep) -> TrainingStatus:
    """Status, progress and facts of one job, as `/api/training-status/{job_id}`."""
    return _status(await backends.tracker.job(job_id), backends)


@router.post("/jobs/{job_id}/cancel", summary="Cancel a training job", responses=_CHANGES_ONE_JOB)
async def cancel_job(job_id: JobIdPath, backends: BackendsDep) -> TrainingStatus:
    """End a job that waits, runs or is paused. One that runs stops shortly after.

    Its last checkpoint stays, for a retry.
    """
    return _status(await backends.tracker.cancel_job(job_id), backends)


@router.post("/jobs/{job_id}/pause", summary="Pause a training job", responses=_CHANGES_ONE_JOB)
async def pause_job(job_id: JobIdPath, backends: BackendsDep) -> TrainingStatus:
    """Pause a job. One that waits is `paused` at once; one that runs writes a checkpoint first, and others start then.

    Until its run has ended, it is `running` in the phase `pausing`.
    """
    return _status(await backends.tracker.pause_job(job_id), backends)


@router.post("/jobs/{job_id}/resume", summary="Resume a paused training job", responses=_CHANGES_ONE_JOB)
async def resume_job(job_id: JobIdPath, backends: BackendsDep) -> TrainingStatus:
    """Put a paused job back into the queue, at its old place; it resumes from its last checkpoint.

    One that is still pausing goes on as if nothing had been asked.
    """
    return _status(await backends.tracker.resume_job(job_id), backends)


@router.post("/jobs/{job_id}/retry", summary="Retry a training job", responses=_CHANGES_ONE_JOB)
async def retry_job(job_id: JobIdPath, backends: BackendsDep) -> TrainingStatus:
    """Put a failed or cancelled job back into the queue; it resumes from its last checkpoint, if it has one."""
    return _status(await backends.tracker.retry_job(job_id), backends)


@router.delete("/jobs/{job_id}", summary="Delete a training job", responses=_CHANGES_ONE_JOB)
async def delete_job(job_id: JobIdPath, backends: BackendsDep) -> DeletedJob:
    """Delete a job that has ended, with its adapter, exports, checkpoints, events and curves."""
    job = await backends.tracker.job(job_id)
    if not job.status.is_final:
        raise ConflictError(
            f"Job status is '{job.status}', and only jobs that have ended can be deleted; cancel it first "
            f"(POST /api/jobs/{job.id}/cancel)"
        )
    if job.is_stopping:
        raise ConflictError(f"Job {job.id} is still stopping, and would write what is deleted; delete it in a moment")
    # The record goes last: a deletion that was interrupted can be repeated.
    await delete_all_of(job.id, backends)
    for key in (job.adapter_key, job.checkpoints_key):
        await asyncio.to_thread(backends.storage.delete, key)
    await backends.tracker.delete_job(job.id)
    return DeletedJob(job_id=job.id)


def _summary(job: JobRecord) -> JobSummary:
    return JobSummary(
        job_id=job.id,
        dataset_id=job.dataset_id,
        status=job.status,
        progress=job.progress,
        message=job.message,
        created_at=job.created_at,
        updated_at=job.updated_at,
        name=job.name,
        labels=job.labels,
        model_name=job.config.base_model,
        started_at=job.started_at,
        ended_at=job.ended_at,
    )


def _facts(job: JobRecord) -> dict[str, Any]:
    waiting = {} if job.queue_position is None else {"queue_position": job.queue_position}
    return {**job_facts.to_flat(job), **waiting}


def _status(job: JobRecord, backends: Backends) -> TrainingStatus:
    known: dict[str, Any] = {"current_epoch": 0, "total_epochs": job.config.num_epochs, "current_loss": None}
    run = {
        "model_name": job.config.base_model,
        "model_path": backends.storage.location(job.adapter_key),
        "attempt": job.attempt,
        "ray_submission_id": job.submission_id,
        "failure_reason": job.failure_reason,
        "validation_dataset_id": job.validation_dataset_id,
        "hyperparameters": hyperparameters(job.config),
    }
    return TrainingStatus(**_summary(job).model_dump(), meta=JobMeta(**{**known, **_facts(job), **run}))
