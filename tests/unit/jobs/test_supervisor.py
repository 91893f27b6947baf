from __future__ import annotations

import pytest

from sienn_ray.errors import FailureReason
from sienn_ray.jobs.ray_jobs import RayJobState, submission_id_of
from sienn_ray.jobs.schema import JobRecord, JobStatus
from sienn_ray.jobs.store import Store
from sienn_ray.jobs.supervisor import Supervisor
from tests.fakes_jobs import FakeRayJobs, job_record

LOST = [RayJobState.MISSING, RayJobState.FAILED]


@pytest.fixture
def ray_jobs() -> FakeRayJobs:
    """Ray's job API, with no job yet."""
    return FakeRayJobs()


def supervisor(store: Store, ray_jobs: FakeRayJobs, *, max_running: int = 1, max_attempts: int = 3) -> Supervisor:
    return Supervisor(store, ray_jobs, max_running=max_running, max_attempts=max_attempts)


def add_jobs(store: Store, number: int) -> None:
    for index in range(1, number + 1):
        store.add_job(job_record(f"job-{index}"))


def statuses(store: Store) -> dict[str, str]:
    return {job.id: job.status.value for job in reversed(store.jobs())}


def lose(ray_jobs: FakeRayJobs, job: JobRecord, state: RayJobState) -> None:
    if state is RayJobState.MISSING:
        ray_jobs.forget_all()
    else:
        ray_jobs.end(str(job.submission_id), state, "worker process was killed")


# Admission


def test_nothing_to_do_is_fine(store: Store, ray_jobs: FakeRayJobs) -> None:
    supervisor(store, ray_jobs).step()
    assert ray_jobs.submitted == []


@pytest.mark.parametrize("max_running", [1, 2, 3, 5])
def test_jobs_start_in_order_up_to_the_limit(store: Store, ray_jobs: FakeRayJobs, max_running: int) -> None:
    add_jobs(store, 4)
    keeper = supervisor(store, ray_jobs, max_running=max_running)
    for _ in range(3):
        keeper.step()
        assert ray_jobs.submitted == [f"sienn-job-{number}-1" for number in range(1, min(max_running, 4) + 1)]
    assert len(store.jobs(JobStatus.RUNNING)) == min(max_running, 4)


def test_started_job_says_so(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 1)
    supervisor(store, ray_jobs).step()
    job = store.job("job-1")
    assert (job.status, job.attempt, job.submission_id) == (JobStatus.RUNNING, 1, submission_id_of("job-1", 1))
    assert job.facts == {"phase": "starting"}
    assert ray_jobs.metadata["sienn-job-1-1"] == {
        "job_id": "job-1",
        "dataset_id": "dataset-1",
        "base_model": "owner/model",
    }


def test_end_of_a_job_makes_room_for_the_next(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 3)
    keeper = supervisor(store, ray_jobs)
    keeper.step()
    store.update_job("job-1", status=JobStatus.COMPLETED)
    keeper.step()
    ray_jobs.end("sienn-job-2-1", RayJobState.STOPPED)
    keeper.step()
    assert statuses(store) == {"job-1": "completed", "job-2": "failed", "job-3": "running"}
    assert ray_jobs.submitted == ["sienn-job-1-1", "sienn-job-2-1", "sienn-job-3-1"]


def test_job_started_by_hand_takes_a_place(store: Store, ray_jobs: FakeRayJobs) -> None:
    ray_jobs.end("raysubmit_abc", RayJobState.ACTIVE)
    store.add_job(job_record("by-hand", status=JobStatus.RUNNING, attempt=1, submission_id="raysubmit_abc"))
    add_jobs(store, 1)
    supervisor(store, ray_jobs).step()
    assert statuses(store) == {"by-hand": "running", "job-1": "pending"}


# Ends without a word


@pytest.mark.parametrize("state", LOST)
def test_lost_run_starts_again_ahead_of_later_jobs(store: Store, ray_jobs: FakeRayJobs, state: RayJobState) -> None:
    add_jobs(store, 2)
    keeper = supervisor(store, ray_jobs)
    keeper.step()
    store.update_job("job-1", progress=40, facts={"current_loss": 0.5})
    lose(ray_jobs, store.job("job-1"), state)
    keeper.step()
    job = store.job("job-1")
    assert (job.status, job.attempt, job.submission_id) == (JobStatus.RUNNING, 2, "sienn-job-1-2")
    assert (job.progress, job.facts["current_loss"]) == (40, 0.5)
    assert ray_jobs.submitted == ["sienn-job-1-1", "sienn-job-1-2"]
    assert statuses(store)["job-2"] == "pending"


@pytest.mark.parametrize("state", LOST)
@pytest.mark.parametrize("max_attempts", [1, 2, 4])
def test_job_fails_after_its_last_attempt(
    store: Store, ray_jobs: FakeRayJobs, state: RayJobState, max_attempts: int
) -> None:
    add_jobs(store, 1)
    keeper = supervisor(store, ray_jobs, max_attempts=max_attempts)
    for attempt in range(1, max_attempts + 1):
        keeper.step()
        assert (store.job("job-1").status, store.job("job-1").attempt) == (JobStatus.RUNNING, attempt)
        lose(ray_jobs, store.job("job-1"), state)
    keeper.step()
    job = store.job("job-1")
    assert (job.status, job.failure_reason) == (JobStatus.FAILED, FailureReason.INTERRUPTED)
    assert f"SIENN_MAX_ATTEMPTS is {max_attempts}" in job.message
    assert job.message.endswith("gone" if state is RayJobState.MISSING else "worker process was killed")
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
    job = store.job("job-1")
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


# Reports that cross a look


@pytest.mark.parametrize("end", [JobStatus.COMPLETED, JobStatus.FAILED])
@pytest.mark.parametrize("state", [state for state in RayJobState if state is not RayJobState.ACTIVE])
def test_end_reported_during_the_look_stands(
    store: Store, ray_jobs: FakeRayJobs, state: RayJobState, end: JobStatus
) -> None:
    add_jobs(store, 1)
    keeper = supervisor(store, ray_jobs)
    keeper.step()
    ray_jobs.end("sienn-job-1-1", state)
    ray_jobs.on_look = lambda _: void(store.update_job("job-1", status=end, message="its own words"))
    keeper.step()
    assert (store.job("job-1").status, store.job("job-1").message) == (end, "its own words")
    assert ray_jobs.submitted == ["sienn-job-1-1"]


def void(_: object) -> None:
    """Drop a value, where a lambda must return none."""


class _LateStore(Store):
    """The job reports its end right after it was read as running."""

    is_late = False

    def jobs(self, status: JobStatus | None = None) -> list[JobRecord]:
        records = super().jobs(status)
        if self.is_late:
            self.is_late = False
            for record in records:
                self.update_job(record.id, status=JobStatus.COMPLETED, message="its own words")
        return records


@pytest.mark.parametrize("state", [state for state in RayJobState if state is not RayJobState.ACTIVE])
def test_end_reported_just_before_the_write_stands(
    store: Store, database_url: str, ray_jobs: FakeRayJobs, state: RayJobState
) -> None:
    add_jobs(store, 1)
    late_store = _LateStore(database_url)
    keeper = supervisor(late_store, ray_jobs)
    keeper.step()
    ray_jobs.end("sienn-job-1-1", state)
    late_store.is_late = True
    keeper.step()
    assert not late_store.is_late
    assert (store.job("job-1").status, store.job("job-1").message) == (JobStatus.COMPLETED, "its own words")
    late_store.close()


# Crashes and connections


def test_crash_between_write_and_submit_costs_one_attempt(
    store: Store, database_url: str, ray_jobs: FakeRayJobs
) -> None:
    add_jobs(store, 2)
    ray_jobs.submit_errors["job-1"] = MemoryError()
    with pytest.raises(MemoryError):
        supervisor(store, ray_jobs).step()
    assert statuses(store) == {"job-1": "running", "job-2": "pending"}

    ray_jobs.submit_errors.clear()
    reopened = Store(database_url)
    supervisor(reopened, ray_jobs).step()
    assert ray_jobs.submitted == ["sienn-job-1-2"]
    assert statuses(reopened) == {"job-1": "running", "job-2": "pending"}
    reopened.close()


def test_restart_finds_running_jobs_and_starts_nothing_twice(
    store: Store, database_url: str, ray_jobs: FakeRayJobs
) -> None:
    add_jobs(store, 2)
    supervisor(store, ray_jobs).step()
    before = store.jobs()
    reopened = Store(database_url)
    supervisor(reopened, ray_jobs).step()
    assert reopened.jobs() == before
    assert ray_jobs.submitted == ["sienn-job-1-1"]
    reopened.close()


def test_unreachable_job_api_leaves_everything_alone(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 2)
    keeper = supervisor(store, ray_jobs, max_running=2, max_attempts=1)
    store.update_job("job-1", status=JobStatus.RUNNING, attempt=1, submission_id="sienn-job-1-1")
    before = store.jobs()
    ray_jobs.is_reachable = False
    for _ in range(5):
        with pytest.raises(ConnectionError):
            keeper.step()
    assert store.jobs() == before


def test_refused_connection_at_submit_costs_no_attempt(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 2)
    keeper = supervisor(store, ray_jobs, max_running=2, max_attempts=1)
    ray_jobs.is_reachable = False
    for _ in range(5):
        with pytest.raises(ConnectionError):
            keeper.step()
    waiting = store.job("job-1")
    assert (waiting.status, waiting.attempt, waiting.submission_id) == (JobStatus.PENDING, 0, None)
    assert "connection refused" in waiting.message

    ray_jobs.is_reachable = True
    keeper.step()
    assert ray_jobs.submitted == ["sienn-job-1-1", "sienn-job-2-1"]
    assert statuses(store) == {"job-1": "running", "job-2": "running"}


def test_refused_connection_keeps_earlier_attempts_counted(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 1)
    keeper = supervisor(store, ray_jobs)
    keeper.step()
    ray_jobs.forget_all()
    ray_jobs.submit_errors["job-1"] = ConnectionError("connection refused")
    with pytest.raises(ConnectionError):
        keeper.step()
    assert (store.job("job-1").status, store.job("job-1").attempt) == (JobStatus.PENDING, 1)
    ray_jobs.submit_errors.clear()
    keeper.step()
    assert ray_jobs.submitted == ["sienn-job-1-1", "sienn-job-1-2"]


def test_lost_answer_to_a_submission_starts_no_second_run(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 1)
    keeper = supervisor(store, ray_jobs)
    ray_jobs.answer_is_lost = True
    with pytest.raises(ConnectionError):
        keeper.step()
    ray_jobs.answer_is_lost = False
    keeper.step()
    keeper.step()
    assert ray_jobs.submitted == ["sienn-job-1-1"]
    assert (store.job("job-1").status, store.job("job-1").attempt) == (JobStatus.RUNNING, 1)


def test_job_that_can_not_be_submitted_does_not_block_the_queue(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 2)
    keeper = supervisor(store, ray_jobs, max_attempts=2)
    ray_jobs.submit_errors["job-1"] = ValueError("metadata is too long")
    for _ in range(2):
        with pytest.raises(ValueError, match="metadata is too long"):
            keeper.step()
    keeper.step()
    assert statuses(store) == {"job-1": "failed", "job-2": "running"}
    assert store.job("job-1").failure_reason is FailureReason.INTERRUPTED
