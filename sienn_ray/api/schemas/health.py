"""Bodies of health checks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sienn_ray.api.schemas.common import ResponseBody, Timestamp
from sienn_ray.catalog import CATALOG

# The mildest first.
HealthStatus = Literal["healthy", "degraded", "unhealthy"]
EngineStateName = Literal["running", "idle", "starting", "stopping", "failed"]


class HealthResponse(ResponseBody):
    """The service answers."""

    status: Literal["ok"] = Field("ok", description="Always `ok`; no answer means it isn't.", examples=["ok"])
    env: str = Field(description="SIENN_ENV of this deployment.", examples=["production"])


class ComponentHealth(ResponseBody):
    """One component."""

    status: HealthStatus = Field(description="How it is.", examples=["healthy"])
    detail: str | None = Field(None, description="What is wrong; null when nothing is.", examples=[None])


class DiskHealth(ComponentHealth):
    """The disk that holds the service's files; of several, the fullest."""

    free_percent: float | None = Field(
        description="Share that is free. Below 10 it is degraded, below 2 unhealthy; null when it couldn't be read.",
        examples=[45.2],
    )


class MemoryHealth(ComponentHealth):
    """Memory of the machine, or of the container that limits it."""

    used_percent: float | None = Field(
        description="Share in use. Above 90 it is degraded, above 97 unhealthy; null when it couldn't be read.",
        examples=[62.1],
    )


class Components(ResponseBody):
    """Components that the detailed check looks at."""

    database: ComponentHealth = Field(description="The job database.", examples=[{"status": "healthy", "detail": None}])
    disk: DiskHealth = Field(
        description="Room for datasets, checkpoints and adapters.",
        examples=[{"status": "healthy", "detail": None, "free_percent": 45.2}],
    )
    memory: MemoryHealth = Field(
        description="Memory of the node that answers.",
        examples=[{"status": "healthy", "detail": None, "used_percent": 62.1}],
    )
    supervision: ComponentHealth = Field(
        description="The threads of the job tracker that start, watch and stop jobs and exports.",
        examples=[{"status": "healthy", "detail": None}],
    )


class DetailedHealthResponse(ResponseBody):
    """Health of the components."""

    status: HealthStatus = Field(description="The worst of all components.", examples=["healthy"])
    timestamp: Timestamp
    components: Components = Field(
        description="Each component.",
        examples=[
            {
                "database": {"status": "healthy"},
                "disk": {"status": "healthy", "free_percent": 45.2},
                "memory": {"status": "healthy", "used_percent": 62.1},
                "supervision": {"status": "healthy"},
            }
        ],
    )


class ServiceHealth(ComponentHealth):
    """One service, and what plays its part here."""

    response_time_ms: float = Field(description="How long its check took, or has been waiting.", examples=[2.1])
    role: str = Field(description="What it is there for.", examples=["records of datasets and jobs"])
    implementation: str = Field(description="What plays the part in this deployment.", examples=["SQLite"])


class WorkersHealth(ServiceHealth):
    """The machines that do the work."""

    active_workers: int = Field(description="Nodes of the Ray cluster that are alive.", examples=[1])
    num_cpus: float = Field(description="CPUs of these nodes.", examples=[8.0])
    num_gpus: float = Field(description="GPUs of these nodes.", examples=[0.0])


class SupervisionHealth(ServiceHealth):
    """The threads that start, watch and stop jobs and exports."""

    heartbeat_age_s: dict[str, float] = Field(
        description="Seconds since jobs, and exports, were last looked after.",
        examples=[{"jobs": 1.2, "exports": 0.8}],
    )


class EngineHealth(ResponseBody):
    """The engine of one base model."""

    base_model: str = Field(description="Hub id of the base model.", examples=[CATALOG[0].id])
    state: EngineStateName = Field(
        description="Where the engine stands; one that is idle has no replica until it is asked again.",
        examples=["running"],
    )
    num_replicas: int = Field(description="Replicas that answer.", examples=[1])
    detail: str | None = Field(None, description="What is wrong; null when nothing is.", examples=[None])


class EnginesHealth(ServiceHealth):
    """The engines that have been asked for so far."""

    engines: list[EngineHealth] = Field(
        description="One entry for each base model; none before the first request to a model.",
        examples=[[{"base_model": CATALOG[0].id, "state": "running", "num_replicas": 1, "detail": None}]],
    )


def _example(role: str, implementation: str, **more: float) -> dict[str, object]:
    return {
        "status": "healthy",
        "detail": None,
        "response_time_ms": 2.1,
        "role": role,
        "implementation": implementation,
        **more,
    }


class Services(ResponseBody):
    """Every service by its key; the first four keys are historical, so that existing dashboards go on working."""

    database: ServiceHealth = Field(
        description="The job database, asked by the tracker.",
        examples=[_example("records of datasets and jobs", "SQLite")],
    )
    redis: ServiceHealth = Field(
        description="Ray's cluster state, in GCS or the Redis behind it.",
        examples=[_example("state of the cluster", "Ray GCS")],
    )
    minio: ServiceHealth = Field(
        description="The file system of SIENN_STORAGE_URL: a small object is written, read back and deleted.",
        examples=[_example("datasets, checkpoints and adapters", "local files")],
    )
    celery: WorkersHealth = Field(
        description="The Ray cluster, which trains and generates.",
        examples=[_example("training and generation", "Ray cluster", active_workers=1, num_cpus=8.0, num_gpus=0.0)],
    )
    tracker: ServiceHealth = Field(
        description="The job tracker, there and back.",
        examples=[_example("queue and progress of jobs", "Ray actor")],
    )
    engines: EnginesHealth = Field(
        description="The engines of base models, as Ray Serve sees them.",
        examples=[{**_example("text generation", "Ray Serve"), "engines": []}],
    )
    supervision: SupervisionHealth = Field(
        description="The threads of the job tracker that start, watch and stop jobs and exports. Unhealthy when the "
        "last look is longer ago than any look takes.",
        examples=[
            {
                **_example("starts, watches and stops jobs and exports", "threads of the job tracker"),
                "heartbeat_age_s": {"jobs": 1.2, "exports": 0.8, "deletions": 0.8, "logs": 0.9, "leftovers": 1.0},
            }
        ],
    )


class ServicesHealthResponse(ResponseBody):
    """Health of the services."""

    status: HealthStatus = Field(description="The worst of all services.", examples=["healthy"])
    timestamp: Timestamp
    services: Services = Field(
        description="Each service.",
        examples=[{"database": {"status": "healthy", "response_time_ms": 2.1}}],
    )
