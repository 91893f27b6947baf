"""Events and curves of a job."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query

from sienn_ray.access.principals import Scope
from sienn_ray.api.access.scopes import needs
from sienn_ray.api.deps import BackendsDep
from sienn_ray.api.http.errors import documented
from sienn_ray.api.schemas.ids import JobIdPath
from sienn_ray.api.schemas.job_history import JobCurves, JobEventBody, JobEventList, MetricPointBody

router = APIRouter(prefix="/api", tags=["Training Jobs"], dependencies=[needs(Scope.READ, Scope.TRAIN)])

_RESPONSES = documented(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE)
# A database's BIGINT.
_MAX_SEQ = 2**63 - 1


@router.get("/jobs/{job_id}/events", summary="Get a training job's events", responses=_RESPONSES)
async def job_events(
    job_id: JobIdPath,
    backends: BackendsDep,
    after: Annotated[
        int, Query(ge=0, le=_MAX_SEQ, description="Events after the one with this `seq`.", examples=[0])
    ] = 0,
    limit: Annotated[int, Query(ge=1, le=1000, description="Events at the most.", examples=[100])] = 100,
) -> JobEventList:
    """List a job's events, the oldest first. Ask again with `next_after` for those that came since."""
    events = await backends.tracker.events(job_id, after, limit)
    return JobEventList(
        job_id=job_id,
        events=[JobEventBody(**event.model_dump()) for event in events],
        next_after=events[-1].seq if events else after,
    )


@router.get("/jobs/{job_id}/metrics", summary="Get a training job's curves", responses=_RESPONSES)
async def job_metrics(
    job_id: JobIdPath,
    backends: BackendsDep,
    max_points: Annotated[
        int,
        Query(ge=1, le=10_000, description="Points at the most; more are thinned out evenly.", examples=[1000]),
    ] = 1000,
) -> JobCurves:
    """Losses, rewards of preferred answers, learning rate and speed over the steps, to draw curves from."""
    points = await backends.tracker.metric_points(job_id, max_points)
    return JobCurves(job_id=job_id, points=[MetricPointBody(**point.model_dump()) for point in points])
