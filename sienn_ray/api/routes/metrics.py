"""Numbers about the service, for people and for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from http import HTTPStatus
from typing import TypeVar

from fastapi import APIRouter
from starlette.responses import Response

from sienn_ray.api.deps import Backends, BackendsDep
from sienn_ray.api.http.errors import documented
from sienn_ray.api.monitoring import machine, prometheus
from sienn_ray.api.monitoring.check_runner import in_own_thread
from sienn_ray.api.monitoring.health_checks import machine_folders
from sienn_ray.api.monitoring.monitoring import Monitoring, MonitoringDep
from sienn_ray.api.schemas.metrics import (
    ApplicationMetrics,
    DatasetMetrics,
    JobCounts,
    JobMetrics,
    MetricsResponse,
    SystemMetrics,
)
from sienn_ray.errors import CapacityError
from sienn_ray.jobs.schema import JobStatus, Overview, utc_now
from sienn_ray.metrics import Sample
from sienn_ray.settings import GIB, MIB

router = APIRouter(prefix="/api/metrics", tags=["Health & Metrics"])

# Prometheus itself waits ten seconds unless it is told otherwise.
_DEADLINE_S = 8.0
_MINUTE_S = 60.0

T = TypeVar("T")


class _TextResponse(Response):
    media_type = prometheus.CONTENT_TYPE


@router.get("", summary="Application and system metrics", responses=documented(HTTPStatus.SERVICE_UNAVAILABLE))
async def metrics(backends: BackendsDep, monitoring: MonitoringDep) -> MetricsResponse:
    """Numbers of the machine that answers, and over all jobs and datasets."""
    system, overview = await _within_deadline(
        asyncio.gather(in_own_thread(lambda: _system(backends, monitoring.cpu.percent())), backends.tracker.overview())
    )
    return MetricsResponse(timestamp=utc_now(), system=system, application=_application(overview))


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
)
async def prometheus_metrics(backends: BackendsDep, monitoring: MonitoringDep) -> _TextResponse:
    """Counters of all processes together, the same whichever replica answers."""
    return _TextResponse(prometheus.render(await _within_deadline(_samples(backends, monitoring))))


async def _samples(backends: Backends, monitoring: Monitoring) -> list[Sample]:
    await monitoring.flusher.flush()
    return await backends.tracker.metric_samples()


async def _within_deadline(answer: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(_DEADLINE_S):
            return await answer
    except TimeoutError:
        raise CapacityError(f"the job tracker hasn't answered within {_DEADLINE_S:g} s; try again later") from None


def _system(backends: Backends, cpu_percent: float) -> SystemMetrics:
    memory = machine.memory()
    disk = machine.fullest_disk(machine_folders(backends.settings.home, backends.storage))
    return SystemMetrics(
        cpu_percent=round(cpu_percent, 1),
        memory_percent=round(memory.used_percent, 1),
        memory_available_mb=round(memory.available_bytes / MIB, 1),
        memory_total_mb=round(memory.total_bytes / MIB, 1),
        disk_percent=round(disk.used_percent, 1),
        disk_free_gb=round(disk.free_bytes / GIB, 1),
        disk_total_gb=round(disk.total_bytes / GIB, 1),
    )


def _application(overview: Overview) -> ApplicationMetrics:
    counts = {status.value: overview.num_jobs.get(status, 0) for status in JobStatus}
    return ApplicationMetrics(
        jobs=JobMetrics(
            total=sum(counts.values()),
            by_status=JobCounts(**counts),
            completed_last_24h=overview.num_completed_24h,
            failed_last_24h=overview.num_failed_24h,
            success_rate_24h=_success_rate(overview.num_completed_24h, overview.num_failed_24h),
            avg_training_time_minutes=round((overview.avg_training_s or 0.0) / _MINUTE_S, 1),
        ),
        datasets=DatasetMetrics(
            total=overview.num_datasets,
            total_size_mb=round(overview.datasets_size_bytes / MIB, 1),
            total_size_gb=round(overview.datasets_size_bytes / GIB, 2),
        ),
    )


def _success_rate(num_completed: int, num_failed: int) -> float:
    num_ended = num_completed + num_failed
    return round(100.0 * num_completed / num_ended, 1) if num_ended else 0.0
