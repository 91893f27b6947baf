"""Jobs in a store, a supervisor over them, and runs that are lost."""

from __future__ import annotations

from sienn_ray.jobs.schema import JobRecord
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.supervision.job_supervisor import Supervisor
from sienn_ray.jobs.supervision.ray_jobs import RayJobState
from tests.support.fakes_jobs import FakeRayJobs, PatientSupervisor, all_jobs, job_record


def supervisor(store: Store, ray_jobs: FakeRayJobs, *, max_running: int = 1, max_attempts: int = 3) -> Supervisor:
    return PatientSupervisor(store.jobs, ray_jobs, max_running=max_running, max_attempts=max_attempts)


def add_jobs(store: Store, number: int) -> None:
    for index in range(1, number + 1):
        store.jobs.add(job_record(f"job-{index}"))


def statuses(store: Store) -> dict[str, str]:
    return {job.id: job.status.value for job in reversed(all_jobs(store))}


def lose(ray_jobs: FakeRayJobs, job: JobRecord, state: RayJobState) -> None:
    if state is RayJobState.MISSING:
        ray_jobs.forget_all()
    else:
        ray_jobs.end(str(job.submission_id), state, "worker process was killed")


def void(_: object) -> None:
    """Drop a value, where a lambda must return none."""
