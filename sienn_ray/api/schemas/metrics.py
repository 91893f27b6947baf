"""Bodies of metrics."""

from __future__ import annotations

from pydantic import Field

from sienn_ray.api.schemas.common import ResponseBody, Timestamp

_JOBS_BY_STATUS = {"pending": 2, "running": 1, "paused": 0, "completed": 37, "failed": 2, "cancelled": 0}
_SYSTEM = {
    "cpu_percent": 45.2,
    "memory_percent": 62.1,
    "memory_available_mb": 3072.0,
    "memory_total_mb": 8192.0,
    "disk_percent": 54.8,
    "disk_free_gb": 128.5,
    "disk_total_gb": 512.0,
}
_JOBS = {
    "total": 42,
    "by_status": _JOBS_BY_STATUS,
    "pending": 2,
    "running": 1,
    "completed": 37,
    "failed": 2,
    "completed_last_24h": 5,
    "failed_last_24h": 0,
    "success_rate_24h": 100.0,
    "avg_training_time_minutes": 12.5,
}
_DATASETS = {"total": 15, "total_size_mb": 256.7, "total_size_gb": 0.25}


class SystemMetrics(ResponseBody):
    """The machine of the process that answers; in a container, what the container may use of it."""

    cpu_percent: float = Field(description="CPU in use since the look before, over all cores.", examples=[45.2])
    memory_percent: float = Field(description="Share of memory in use.", examples=[62.1])
    memory_available_mb: float = Field(description="MiB that can still be had.", examples=[3072.0])
    memory_total_mb: float = Field(description="MiB there are.", examples=[8192.0])
    disk_percent: float = Field(description="Share of the disk in use.", examples=[54.8])
    disk_free_gb: float = Field(description="GiB that are free.", examples=[128.5])
    disk_total_gb: float = Field(description="GiB there are.", examples=[512.0])


class JobCounts(ResponseBody):
    """Jobs by their status now."""

    pending: int = Field(description="Jobs that wait.", examples=[2])
    running: int = Field(description="Jobs that run.", examples=[1])
    paused: int = Field(description="Jobs that a user has paused.", examples=[0])
    completed: int = Field(description="Jobs whose adapter is published.", examples=[37])
    failed: int = Field(description="Jobs that ended without an adapter.", examples=[2])
    cancelled: int = Field(description="Jobs that a user ended.", examples=[0])


class JobMetrics(ResponseBody):
    """Numbers over all jobs."""

    total: int = Field(description="Jobs there are.", examples=[42])
    by_status: JobCounts = Field(description="The same by status.", examples=[_JOBS_BY_STATUS])
    pending: int = Field(description="`by_status.pending` again, for clients that look for it here.", examples=[2])
    running: int = Field(description="`by_status.running` again.", examples=[1])
    completed: int = Field(description="`by_status.completed` again.", examples=[37])
    failed: int = Field(description="`by_status.failed` again.", examples=[2])
    completed_last_24h: int = Field(description="Jobs completed within 24 hours.", examples=[5])
    failed_last_24h: int = Field(description="Jobs failed within 24 hours.", examples=[0])
    success_rate_24h: float = Field(
        description="Percent of completed ones among the completed and failed of 24 hours; 0 when there were neither.",
        examples=[100.0],
    )
    avg_training_time_minutes: float = Field(
        description="Mean time from start to end of completed jobs; 0 when there are none.", examples=[12.5]
    )


class DatasetMetrics(ResponseBody):
    """Numbers over all datasets."""

    total: int = Field(description="Datasets there are.", examples=[15])
    total_size_mb: float = Field(description="MiB of their files.", examples=[256.7])
    total_size_gb: float = Field(description="GiB of their files.", examples=[0.25])


class ApplicationMetrics(ResponseBody):
    """Numbers about the work of the service."""

    jobs: JobMetrics = Field(description="Fine-tunes.", examples=[_JOBS])
    datasets: DatasetMetrics = Field(description="Uploaded files.", examples=[_DATASETS])


class MetricsResponse(ResponseBody):
    """Numbers about the machine and the application."""

    timestamp: Timestamp
    system: SystemMetrics = Field(description="The machine.", examples=[_SYSTEM])
    application: ApplicationMetrics = Field(
        description="The application.", examples=[{"jobs": _JOBS, "datasets": _DATASETS}]
    )
