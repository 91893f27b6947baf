"""Numbers of the machine and of the service, as responses and live updates tell them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from sienn_ray.api.deps import Backends
from sienn_ray.api.monitoring import machine
from sienn_ray.api.monitoring.check_runner import in_own_thread
from sienn_ray.api.monitoring.health_checks import machine_folders
from sienn_ray.api.monitoring.monitoring import Monitoring
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
from sienn_ray.settings import GIB, MIB

# Prometheus itself waits ten seconds unless it is told otherwise.
_DEADLINE_S = 8.0
_MINUTE_S = 60.0

T = TypeVar("T")


async def numbers_now(backends: Backends, monitoring: Monitoring) -> MetricsResponse:
    """Return the numbers of this machine, and those over all jobs and datasets of the caller.

    Raises:
        CapacityError: The tracker doesn't answer in time.
    """
    system, overview = await within_deadline(
        asyncio.gather(in_own_thread(lambda: _system(backends, monitoring.cpu.percent())), backends.tracker.overview())
    )
    return MetricsResponse(timestamp=utc_now(), system=system, application=_application(overview))


async def within_deadline(answer: Awaitable[T]) -> T:
    """Wait for an answer of the tracker for as long as a scraper waits.

    Raises:
        CapacityError: It hasn't come.
    """
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
            pending=counts[JobStatus.PENDING],
            running=counts[JobStatus.RUNNING],
            completed=counts[JobStatus.COMPLETED],
            failed=counts[JobStatus.FAILED],
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
