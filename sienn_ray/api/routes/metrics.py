"""Numbers about the service, for people and for Prometheus."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter
from starlette.responses import Response

from sienn_ray.access.principals import Scope
from sienn_ray.api.access.scopes import needs
from sienn_ray.api.deps import Backends, BackendsDep
from sienn_ray.api.http.errors import documented
from sienn_ray.api.monitoring import prometheus
from sienn_ray.api.monitoring.monitoring import Monitoring, MonitoringDep
from sienn_ray.api.monitoring.numbers import numbers_now, within_deadline
from sienn_ray.api.schemas.metrics import MetricsResponse
from sienn_ray.metrics import Sample

router = APIRouter(prefix="/api/metrics", tags=["Health & Metrics"])


class _TextResponse(Response):
    media_type = prometheus.CONTENT_TYPE


@router.get(
    "",
    summary="Application and system metrics",
    responses=documented(HTTPStatus.SERVICE_UNAVAILABLE),
    dependencies=[needs(Scope.READ)],
)
async def metrics(backends: BackendsDep, monitoring: MonitoringDep) -> MetricsResponse:
    """Numbers of the machine that answers, and over all jobs and datasets."""
    return await numbers_now(backends, monitoring)


@router.get(
    "/prometheus",
    summary="Metrics in Prometheus format for scraping",
    response_class=_TextResponse,
    responses={
        200: {
            "description": "Prometheus' text format, version 0.0.4",
            "content": {
                prometheus.CONTENT_TYPE: {
                    "schema": {"type": "string"},
                    "example": "# HELP sienn_queue_length Jobs that wait for their start now\n"
                    "# TYPE sienn_queue_length gauge\nsienn_queue_length 2.0\n",
                }
            },
        },
        **documented(HTTPStatus.SERVICE_UNAVAILABLE),
    },
    dependencies=[needs(Scope.ADMIN)],
)
async def prometheus_metrics(backends: BackendsDep, monitoring: MonitoringDep) -> _TextResponse:
    """Counters of all processes together, the same whichever replica answers."""
    return _TextResponse(prometheus.render(await within_deadline(_samples(backends, monitoring))))


async def _samples(backends: Backends, monitoring: Monitoring) -> list[Sample]:
    await monitoring.flusher.flush()
    return await backends.tracker.metric_samples()
