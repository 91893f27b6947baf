"""Checks of the service and everything beneath it: real ones, all at once, each with a deadline."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

from sienn_ray.api.cluster import Cluster, EngineState, Nodes
from sienn_ray.api.monitoring import machine
from sienn_ray.api.monitoring.check_runner import CheckRunner, Outcome, in_own_thread
from sienn_ray.api.schemas.health import (
    ComponentHealth,
    Components,
    DetailedHealthResponse,
    DiskHealth,
    EngineHealth,
    EnginesHealth,
    HealthStatus,
    MemoryHealth,
    ServiceHealth,
    Services,
    ServicesHealthResponse,
    SupervisionHealth,
    WorkersHealth,
)
from sienn_ray.errors import ArtifactError
from sienn_ray.jobs.schema import TrackerHealth, utc_now
from sienn_ray.storage import Storage

# A fine-tune writes its checkpoints and its adapter, and a full disk loses them.
DEGRADED_FREE_DISK_PERCENT = 10.0
UNHEALTHY_FREE_DISK_PERCENT = 2.0
# Ray's memory monitor kills workers from 95% on.
DEGRADED_USED_MEMORY_PERCENT = 90.0
UNHEALTHY_USED_MEMORY_PERCENT = 97.0

_SEVERITY: tuple[HealthStatus, ...] = get_args(HealthStatus)
_PROBE_BYTES = 64

T = TypeVar("T")


class HealthChecks:
    """The checks of one process; what hangs is remembered between requests.

    Args:
        tracker_health: Asks the tracker how it is.
        storage: Where a small object is written, read back and deleted.
        cluster: The Ray cluster.
        home: SIENN_HOME, whose disk counts.
        timeout_s: Deadline of each check.
    """

    def __init__(
        self,
        tracker_health: Callable[[], Any],
        storage: Storage,
        cluster: Cluster,
        *,
        home: Path,
        timeout_s: float,
    ) -> None:
        self._tracker_health = tracker_health
        self._storage = storage
        self._cluster = cluster
        self._folders = machine_folders(home, storage)
        self._runner = CheckRunner(timeout_s)

    async def detailed(self) -> DetailedHealthResponse:
        """Database, disk and memory."""
        tracker, disk, memory = await asyncio.gather(
            self._run_tracker(),
            self._run("disk", lambda: machine.fullest_disk(self._folders)),
            self._run("memory", machine.memory),
        )
        components = Components(
            database=_component(*_database_state(tracker)),
            disk=disk_health(disk),
            memory=memory_health(memory),
            supervision=_component(*_supervision_state(tracker)),
        )
        worst = _worst(*(getattr(components, name) for name in Components.model_fields))
        return DetailedHealthResponse(status=worst, timestamp=utc_now(), components=components)

    async def services(self) -> ServicesHealthResponse:
        """Everything that other processes or machines do for this one."""
        tracker, gcs, storage, nodes, engines = await asyncio.gather(
            self._run_tracker(),
            self._run("Ray's GCS", self._cluster.ask_gcs),
            self._run("storage", lambda: probe(self._storage)),
            self._run("the Ray cluster", self._cluster.nodes),
            self._run("engines", self._cluster.engines),
        )
        services = Services(
            database=_database(tracker),
            redis=_gcs(gcs, tracker),
            minio=_service(storage, "datasets, checkpoints and adapters", file_system_name(self._storage)),
            celery=_workers(nodes),
            tracker=_service(tracker, "queue and progress of jobs", "Ray actor"),
            engines=_engines(engines),
            supervision=_supervision(tracker),
        )
        worst = _worst(*(getattr(services, name) for name in Services.model_fields))
        return ServicesHealthResponse(status=worst, timestamp=utc_now(), services=services)

    async def _run(self, name: str, function: Callable[[], T]) -> Outcome[T]:
        return await self._runner.run(name, lambda: in_own_thread(function))

    async def _run_tracker(self) -> Outcome[TrackerHealth]:
        return await self._runner.run("the job tracker", self._tracker_health)


def machine_folders(home: Path, storage: Storage) -> list[Path]:
    """Folders of this machine that must not run full."""
    return [home, Path(storage.root)] if storage.is_local else [home]


def file_system_name(storage: Storage) -> str:
    """Return the kind of storage. The URL itself stays inside, since it may hold credentials."""
    protocol = storage.fs.protocol
    return "local files" if storage.is_local else str(protocol if isinstance(protocol, str) else protocol[0])


def probe(storage: Storage) -> None:
    """Write, read back and delete a small object.

    Raises:
        ArtifactError: It came back altered.
    """
    key, data = f"health-probe-{uuid.uuid4().hex}", uuid.uuid4().bytes * (_PROBE_BYTES // 16)
    storage.write_bytes(key, data)
    try:
        if storage.read_bytes(key) != data:
            raise ArtifactError("what was written came back altered")
    finally:
        storage.delete(key)


def _worst(*parts: ComponentHealth) -> HealthStatus:
    return max((part.status for part in parts), key=_SEVERITY.index)


def _component(status: HealthStatus, detail: str | None) -> ComponentHealth:
    return ComponentHealth(status=status, detail=detail)


def _database_state(tracker: Outcome[TrackerHealth]) -> tuple[HealthStatus, str | None]:
    if tracker.value is None:
        return "unhealthy", f"unknown: only the job tracker reaches it, and that failed: {tracker.error}"
    if tracker.value.database_response_s is None:
        return "unhealthy", tracker.value.database_error or "a trivial query failed"
    return "healthy", None


def disk_health(outcome: Outcome[machine.Disk]) -> DiskHealth:
    """Judge a disk by its free space."""
    if outcome.value is None:
        return DiskHealth(status="unhealthy", detail=outcome.error, free_percent=None)
    free = outcome.value.free_percent
    status, limit = _level(-free, -DEGRADED_FREE_DISK_PERCENT, -UNHEALTHY_FREE_DISK_PERCENT)
    detail = f"{free:.1f}% of the disk are free, fewer than {-limit:g}%; delete datasets or jobs" if limit else None
    return DiskHealth(status=status, detail=detail, free_percent=round(free, 1))


def memory_health(outcome: Outcome[machine.Memory]) -> MemoryHealth:
    """Judge memory by the share in use."""
    if outcome.value is None:
        return MemoryHealth(status="unhealthy", detail=outcome.error, used_percent=None)
    used = outcome.value.used_percent
    status, limit = _level(used, DEGRADED_USED_MEMORY_PERCENT, UNHEALTHY_USED_MEMORY_PERCENT)
    detail = f"{used:.1f}% of the memory are in use, more than {limit:g}%" if limit else None
    return MemoryHealth(status=status, detail=detail, used_percent=round(used, 1))


def _level(value: float, degraded: float, unhealthy: float) -> tuple[HealthStatus, float | None]:
    """The status of a value, and the limit that it is over."""
    if value > unhealthy:
        return "unhealthy", unhealthy
    return ("degraded", degraded) if value > degraded else ("healthy", None)


def _base(outcome: Outcome[Any], role: str, implementation: str, failed: HealthStatus = "unhealthy") -> dict[str, Any]:
    """The fields of every service."""
    return {
        "status": "healthy" if outcome.error is None else failed,
        "detail": outcome.error,
        "response_time_ms": _milliseconds(outcome.took_s),
        "role": role,
        "implementation": implementation,
    }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _service(outcome: Outcome[Any], role: str, implementation: str) -> ServiceHealth:
    return ServiceHealth(**_base(outcome, role, implementation))


def _database(tracker: Outcome[TrackerHealth]) -> ServiceHealth:
    status, detail = _database_state(tracker)
    health = tracker.value
    took_s = tracker.took_s if health is None or health.database_response_s is None else health.database_response_s
    return ServiceHealth(
        status=status,
        detail=detail,
        response_time_ms=_milliseconds(took_s),
        role="records of datasets and jobs",
        implementation="unknown" if health is None else health.database,
    )


def _supervision_state(tracker: Outcome[TrackerHealth]) -> tuple[HealthStatus, str | None]:
    """Judge the threads that look after jobs and exports by their heartbeats."""
    if tracker.value is None:
        return "unhealthy", tracker.error
    stuck = [beat for beat in tracker.value.heartbeats if beat.is_stuck]
    if not stuck:
        return "healthy", None
    words = " and ".join(f"{beat.what} for {beat.age_s:.0f} s (limit {beat.limit_s:.0f} s)" for beat in stuck)
    return "unhealthy", f"nobody has looked after {words}; see the job tracker's log, and restart the service"


def _supervision(tracker: Outcome[TrackerHealth]) -> SupervisionHealth:
    status, detail = _supervision_state(tracker)
    beats = () if tracker.value is None else tracker.value.heartbeats
    return SupervisionHealth(
        status=status,
        detail=detail,
        response_time_ms=_milliseconds(tracker.took_s),
        role="starts, watches and stops jobs and exports",
        implementation="threads of the job tracker",
        heartbeat_age_s={beat.what: round(beat.age_s, 1) for beat in beats},
    )


def _gcs(outcome: Outcome[None], tracker: Outcome[TrackerHealth]) -> ServiceHealth:
    return _service(outcome, "state of the cluster", "Ray GCS" if tracker.value is None else tracker.value.gcs)


def _workers(outcome: Outcome[Nodes]) -> WorkersHealth:
    nodes = outcome.value or Nodes(0, 0.0, 0.0)
    return WorkersHealth(
        **_base(outcome, "training and generation", "Ray cluster"),
        active_workers=nodes.num_nodes,
        num_cpus=nodes.num_cpus,
        num_gpus=nodes.num_gpus,
    )


def _engines(outcome: Outcome[list[EngineState]]) -> EnginesHealth:
    """Failing engines degrade the service: datasets and fine-tunes go on without them."""
    states = outcome.value or []
    fields = _base(outcome, "text generation", "Ray Serve", failed="degraded")
    failed = [state.base_model for state in states if state.state == "failed"]
    if failed:
        fields |= {"status": "degraded", "detail": f"failed: {', '.join(failed)}"}
    engines = [
        EngineHealth(
            base_model=state.base_model, state=state.state, num_replicas=state.num_replicas, detail=state.message
        )
        for state in states
    ]
    return EnginesHealth(**fields, engines=engines)
