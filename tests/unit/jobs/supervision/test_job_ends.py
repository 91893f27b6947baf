"""Ends of runs: reported, silent or lost, and what follows."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sienn_ray.errors import FailureReason
from sienn_ray.jobs.schema import JobRecord, JobStatus
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.job_store import JobStore
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.supervision.job_supervisor import Supervisor
from sienn_ray.jobs.supervision.ray_jobs import RayJobState
from sienn_ray.training.reporting import RunProgress
from tests.support.fakes_jobs import FakeRayJobs
from tests.unit.jobs.supervision.supervising import add_jobs, lose, statuses, supervisor, void

LOST = [RayJobState.MISSING, RayJobState.FAILED]


@pytest.mark.parametrize("state", LOST)
def test_lost_run_starts_again_ahead_of_later_jobs(store: Store, ray_jobs: FakeRayJobs, state: RayJobState) -> None:
    add_jobs(store, 2)
    keeper = supervisor(store, ray_jobs)
    keeper.step()
    store.jobs.update("job-1", progress=40, run=RunProgress(current_loss=0.5))
    lose(ray_jobs, store.jobs.get("job-1"), state)
    keeper.step()
    job = store.jobs.get("job-1")
    assert (job.status, job.attempt, job.submission_id) == (JobStatus.RUNNING, 2, "sienn-job-1-2")
    assert (job.progress, job.run.current_loss) == (40, 0.5)
    assert ray_jobs.submitted == ["sienn-job-1-1", "sienn-job-1-2"]
    assert statuses(store)["job-2"] == "pending"


@pytest.mark.parametrize("max_attempts", [1, 2, 4])
def test_job_fails_after_its_last_attempt(store: Store, ray_jobs: FakeRayJobs, max_attempts: int) -> None:
    add_jobs(store, 1)
    keeper = supervisor(store, ray_jobs, max_attempts=max_attempts)
    for attempt in range(1, max_attempts + 1):
        keeper.step()
        assert (store.jobs.get("job-1").status, store.jobs.get("job-1").attempt) == (JobStatus.RUNNING, attempt)
        lose(ray_jobs, store.jobs.get("job-1"), RayJobState.FAILED)
    keeper.step()
    job = store.jobs.get("job-1")
    assert (job.status, job.failure_reason) == (JobStatus.FAILED, FailureReason.INTERRUPTED)
    assert job.message == (
        f"Training was lost {max_attempts} time(s) in a row without a newer step, and SIENN_MAX_ATTEMPTS is "
        f"{max_attempts}; last: worker process was killed. Retry the job once the cause is gone, and it goes on from "
        "its last checkpoint"
    )
    assert len(ray_jobs.submitted) == max_attempts


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        (RayJobState.STOPPED, FailureReason.STOPPED, "stopped by hand"),
        (RayJobState.SUCCEEDED, FailureReason.INTERNAL, "ended without a result"),
    ],
)
def test_silent_end_fails_the_job_at_once(
    store: Store, ray_jobs: FakeRayJobs, state: RayJobState, reason: FailureReason, words: str
) -> None:
    add_jobs(store, 1)
    keeper = supervisor(store, ray_jobs)
    keeper.step()
    ray_jobs.end("sienn-job-1-1", state)
    keeper.step()
    job = store.jobs.get("job-1")
    assert (job.status, job.failure_reason) == (JobStatus.FAILED, reason)
    assert words in job.message
    assert ray_jobs.submitted == ["sienn-job-1-1"]


def test_every_lost_job_of_a_cluster_starts_again(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 3)
    keeper = supervisor(store, ray_jobs, max_running=2)
    keeper.step()
    ray_jobs.forget_all()
    keeper.step()
    assert statuses(store) == {"job-1": "running", "job-2": "running", "job-3": "pending"}
    assert sorted(ray_jobs.submitted[2:]) == ["sienn-job-1-2", "sienn-job-2-2"]


@pytest.mark.parametrize("end", [JobStatus.COMPLETED, JobStatus.FAILED])
@pytest.mark.parametrize("state", [state for state in RayJobState if state is not RayJobState.ACTIVE])
def test_end_reported_during_the_look_stands(
    store: Store, ray_jobs: FakeRayJobs, state: RayJobState, end: JobStatus
) -> None:
    add_jobs(store, 1)
    keeper = supervisor(store, ray_jobs)
    keeper.step()
    ray_jobs.end("sienn-job-1-1", state)
    ray_jobs.on_look = lambda _: void(store.jobs.update("job-1", status=end, message="its own words"))
    keeper.step()
    assert (store.jobs.get("job-1").status, store.jobs.get("job-1").message) == (end, "its own words")
    assert ray_jobs.submitted == ["sienn-job-1-1"]


class _LateJobs(JobStore):
    """The job changes right after it was read as running."""

    def __init__(self, database: Database, change: Callable[[str], object]) -> None:
        super().__init__(database)
        self.change = change
        self.is_late = False

    def running(self) -> list[JobRecord]:
        records = super().running()
        if self.is_late:
            self.is_late = False
            for record in records:
                self.change(record.id)
        return records


@pytest.mark.parametrize("state", [state for state in RayJobState if state is not RayJobState.ACTIVE])
@pytest.mark.parametrize("end", [JobStatus.COMPLETED, JobStatus.FAILED])
def test_end_reported_just_before_the_write_stands(
    store: Store, ray_jobs: FakeRayJobs, state: RayJobState, end: JobStatus
) -> None:
    add_jobs(store, 1)
    late = _LateJobs(store.database, lambda job_id: store.jobs.update(job_id, status=end, message="its own words"))
    keeper = Supervisor(late, ray_jobs, max_running=1, max_attempts=3)
    keeper.step()
    ray_jobs.end("sienn-job-1-1", state)
    late.is_late = True
    keeper.step()
    assert not late.is_late
    assert (store.jobs.get("job-1").status, store.jobs.get("job-1").message) == (end, "its own words")


def test_retry_just_before_the_write_stands(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 1)

    def fail_and_retry(job_id: str) -> None:
        store.jobs.update(job_id, status=JobStatus.FAILED)
        store.jobs.retry(job_id)

    late = _LateJobs(store.database, fail_and_retry)
    keeper = Supervisor(late, ray_jobs, max_running=1, max_attempts=1)
    keeper.step()
    ray_jobs.end("sienn-job-1-1", RayJobState.FAILED)
    late.is_late = True
    keeper.step()
    assert (store.jobs.get("job-1").status, store.jobs.get("job-1").attempt) == (JobStatus.RUNNING, 2)
    assert ray_jobs.submitted == ["sienn-job-1-1", "sienn-job-1-2"]


def test_attempts_count_anew_after_a_retry(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 1)
    keeper = supervisor(store, ray_jobs, max_attempts=2)
    for attempt in (1, 2):
        keeper.step()
        ray_jobs.end(f"sienn-job-1-{attempt}", RayJobState.FAILED)
    keeper.step()
    assert store.jobs.get("job-1").failure_reason is FailureReason.INTERRUPTED
    store.jobs.retry("job-1")
    for attempt in (3, 4):
        keeper.step()
        assert (store.jobs.get("job-1").status, store.jobs.get("job-1").attempt) == (JobStatus.RUNNING, attempt)
        ray_jobs.end(f"sienn-job-1-{attempt}", RayJobState.FAILED)
    keeper.step()
    job = store.jobs.get("job-1")
    assert (job.status, job.attempt) == (JobStatus.FAILED, 4)
    assert job.message.startswith("Training was lost 2 time(s) in a row")
    assert ray_jobs.submitted == [f"sienn-job-1-{attempt}" for attempt in (1, 2, 3, 4)]
