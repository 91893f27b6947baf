"""Whether the service answers."""

from fastapi import APIRouter

from sienn_ray.api.deps import BackendsDep
from sienn_ray.api.schemas import HealthResponse

router = APIRouter(tags=["Health & Metrics"])


@router.get("/health", summary="Basic health check")
async def health(backends: BackendsDep) -> HealthResponse:
    """Answers at once, whatever else goes on."""
    return HealthResponse(env=backends.settings.env)
