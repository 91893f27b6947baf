"""Health of the service, of the machine, and of everything beneath."""

from __future__ import annotations

from fastapi import APIRouter

from sienn_ray.access.principals import Scope
from sienn_ray.api.access.scopes import needs
from sienn_ray.api.deps import AllBackendsDep
from sienn_ray.api.monitoring.monitoring import MonitoringDep
from sienn_ray.api.schemas.health import DetailedHealthResponse, HealthResponse, ServicesHealthResponse

router = APIRouter(tags=["Health & Metrics"])


@router.get("/health", summary="Basic health check")
async def health(backends: AllBackendsDep) -> HealthResponse:
    """Answers at once, whatever else goes on."""
    return HealthResponse(env=backends.settings.env)


@router.get(
    "/api/health/detailed", summary="Detailed health check with component status", dependencies=[needs(Scope.READ)]
)
async def detailed_health(monitoring: MonitoringDep) -> DetailedHealthResponse:
    """Database, disk, memory and supervision of jobs. The HTTP status stays 200; the body says what is wrong.

    Each check has SIENN_HEALTH_CHECK_TIMEOUT_S, so the answer comes within that time whatever hangs.
    """
    return await monitoring.checks.detailed()


@router.get("/api/health/services", summary="Check all services", dependencies=[needs(Scope.READ)])
async def services_health(monitoring: MonitoringDep) -> ServicesHealthResponse:
    """Everything that other processes or machines do for this one, each asked anew. The HTTP status stays 200.

    The keys `redis`, `minio` and `celery` are historical; `implementation` says what plays the part here. Failing
    engines make it degraded, any other failure unhealthy.
    """
    return await monitoring.checks.services()
