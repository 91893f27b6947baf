"""Monitoring of the service in one process: health checks, the CPU meter, and the sender of metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends
from fastapi.requests import HTTPConnection

from sienn_ray.access.usage import UsageBatch
from sienn_ray.api.deps import Backends
from sienn_ray.api.monitoring.health_checks import HealthChecks
from sienn_ray.api.monitoring.machine import CpuMeter
from sienn_ray.api.monitoring.metrics_flusher import Flusher
from sienn_ray.metrics import MetricBatch


@dataclass(frozen=True)
class Monitoring:
    """One application's watchers; they keep state between requests."""

    checks: HealthChecks
    flusher: Flusher[MetricBatch]
    usage_flusher: Flusher[UsageBatch]
    cpu: CpuMeter

    @classmethod
    def of(cls, backends: Backends) -> Monitoring:
        """Watchers of these backends."""
        settings = backends.settings
        checks = HealthChecks(
            backends.tracker.health,
            backends.storage,
            backends.cluster,
            home=settings.home,
            timeout_s=settings.health_check_timeout_s,
        )
        interval_s = settings.metrics_flush_s
        flusher = Flusher(backends.recorder, backends.tracker.add_metrics, interval_s=interval_s)
        usage = Flusher(backends.usage, backends.tracker.add_usage, interval_s=interval_s, what="usage")
        return cls(checks, flusher, usage, CpuMeter())


def _monitoring(connection: HTTPConnection) -> Monitoring:
    return cast(Monitoring, connection.app.state.monitoring)


MonitoringDep = Annotated[Monitoring, Depends(_monitoring)]
