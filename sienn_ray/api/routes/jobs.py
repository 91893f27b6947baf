"""List jobs; show, cancel, pause, resume, retry and delete one."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import StringConstraints

from sienn_ray.access.principals import Scope
from sienn_ray.api.access.scopes import needs
from sienn_ray.api.deps import BackendsDep
from sienn_ray.api.http.errors import documented
from sienn_ray.api.lists.job_pages import job_page
from sienn_ray.api.lists.job_status import status_of, summary_of
from sienn_ray.api.lists.paging import cursor_query, limit_query
from sienn_ray.api.schemas.common import DATASET_ID
from sienn_ray.api.schemas.finetuning import JobName
from sienn_ray.api.schemas.ids import JobIdPath
from sienn_ray.api.schemas.jobs import DeletedJob, JobList, JobStatusName, TrainingStatus
from sienn_ray.catalog import CATALOG
from sienn_ray.errors import InvalidInputError
from sienn_ray.jobs.naming import LABEL_PATTERN, MAX_LABELS, PRINTABLE_PATTERN
from sienn_ray.jobs.schema import JobQuery

router = APIRouter(prefix="/api", tags=["Training Jobs"])

_OF_ONE_JOB = documented(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE)
_CHANGES_ONE_JOB = {**_OF_ONE_JOB, **documented(HTTPStatus.CONFLICT)}
_QUEUES_ONE_JOB = {**_CHANGES_ONE_JOB, **documented(HTTPStatus.TOO_MANY_REQUESTS)}

LabelFilter = Annotated[str, StringConstraints(pattern=LABEL_PATTERN)]


@router.get(
    "/jobs",
    summary="List all training jobs",
    responses=documented(HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE),
    dependencies=[needs(Scope.READ, Scope.TRAIN)],
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
    return JobList(jobs=[summary_of(job) for job in page.jobs], count=page.count, next_cursor=page.next_cursor)


def _labels(filters: list[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for key, _, value in (text.partition("=") for text in filters):
        if labels.setdefault(key, value) != value:
            raise InvalidInputError(f"label '{key}' is asked for with two values, and a job has one; ask for one")
    return labels


@router.get(
    "/training-status/{job_id}",
    summary="Get training job status and progress",
    responses=_OF_ONE_JOB,
    dependencies=[needs(Scope.READ, Scope.TRAIN)],
)
async def training_status(job_id: JobIdPath, backends: BackendsDep) -> TrainingStatus:
    """Status, progress and facts of one job."""
    return status_of(await backends.tracker.job(job_id), backends)


@router.get(
    "/jobs/{job_id}", summary="Get a training job", responses=_OF_ONE_JOB, dependencies=[needs(Scope.READ, Scope.TRAIN)]
)
async def get_job(job_id: JobIdPath, backends: BackendsDep) -> TrainingStatus:
    """Status, progress and facts of one job, as `/api/training-status/{job_id}`."""
    return status_of(await backends.tracker.job(job_id), backends)


@router.post(
    "/jobs/{job_id}/cancel",
    summary="Cancel a training job",
    responses=_CHANGES_ONE_JOB,
    dependencies=[needs(Scope.TRAIN)],
)
async def cancel_job(job_id: JobIdPath, backends: BackendsDep) -> TrainingStatus:
    """End a job that waits, runs or is paused. One that runs stops shortly after.

    Its last checkpoint stays, for a retry.
    """
    return status_of(await backends.tracker.cancel_job(job_id), backends)


@router.post(
    "/jobs/{job_id}/pause",
    summary="Pause a training job",
    responses=_CHANGES_ONE_JOB,
    dependencies=[needs(Scope.TRAIN)],
)
async def pause_job(job_id: JobIdPath, backends: BackendsDep) -> TrainingStatus:
    """Pause a job. One that waits is `paused` at once; one that runs writes a checkpoint first, and others start then.

    Until its run has ended, it is `running` in the phase `pausing`.
    """
    return status_of(await backends.tracker.pause_job(job_id), backends)


@router.post(
    "/jobs/{job_id}/resume",
    summary="Resume a paused training job",
    responses=_QUEUES_ONE_JOB,
    dependencies=[needs(Scope.TRAIN)],
)
async def resume_job(job_id: JobIdPath, backends: BackendsDep) -> TrainingStatus:
    """Put a paused job back into the queue, at its old place; it resumes from its last checkpoint.

    One that is still pausing goes on as if nothing had been asked.
    """
    return status_of(await backends.tracker.resume_job(job_id), backends)


@router.post(
    "/jobs/{job_id}/retry",
    summary="Retry a training job",
    responses=_QUEUES_ONE_JOB,
    dependencies=[needs(Scope.TRAIN)],
)
async def retry_job(job_id: JobIdPath, backends: BackendsDep) -> TrainingStatus:
    """Put a failed or cancelled job back into the queue; it resumes from its last checkpoint, if it has one."""
    return status_of(await backends.tracker.retry_job(job_id), backends)


@router.delete(
    "/jobs/{job_id}", summary="Delete a training job", responses=_CHANGES_ONE_JOB, dependencies=[needs(Scope.TRAIN)]
)
async def delete_job(job_id: JobIdPath, backends: BackendsDep) -> DeletedJob:
    """Delete a job that has ended, with its adapter, exports, checkpoints, logs, events and curves.

    It is gone at once; its files go in a moment, or as soon as storage is there again.
    """
    job = await backends.tracker.delete_job(job_id)
    return DeletedJob(job_id=job.id)
