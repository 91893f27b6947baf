"""The supervisor starts jobs in their order, each once, whatever is lost on the way."""

from __future__ import annotations

import pytest

from sienn_ray.errors import FailureReason
from sienn_ray.jobs import job_facts
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.supervision.ray_jobs import RayJobState, submission_id_of
from tests.support.fakes_jobs import Clock, FakeRayJobs, all_jobs, job_record
from tests.unit.jobs.supervision.supervising import add_jobs, statuses, supervisor


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
    assert len(all_jobs(store, JobStatus.RUNNING)) == min(max_running, 4)


def test_started_job_says_so(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 1)
    supervisor(store, ray_jobs).step()
    job = store.jobs.get("job-1")
    assert (job.status, job.attempt, job.submission_id) == (JobStatus.RUNNING, 1, submission_id_of("job-1", 1))
    assert job_facts.to_flat(job) == {"phase": "starting"}
    assert ray_jobs.metadata["sienn-job-1-1"] == {
        "job_id": "job-1",
        "dataset_id": "dataset-1",
        "base_model": "owner/model",
    }


def test_end_of_a_job_makes_room_for_the_next(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 3)
    keeper = supervisor(store, ray_jobs)
    keeper.step()
    store.jobs.update("job-1", status=JobStatus.COMPLETED)
    keeper.step()
    ray_jobs.end("sienn-job-2-1", RayJobState.STOPPED)
    keeper.step()
    assert statuses(store) == {"job-1": "completed", "job-2": "failed", "job-3": "running"}
    assert ray_jobs.submitted == ["sienn-job-1-1", "sienn-job-2-1", "sienn-job-3-1"]


def test_job_started_by_hand_takes_a_place(store: Store, ray_jobs: FakeRayJobs) -> None:
    ray_jobs.end("raysubmit_abc", RayJobState.ACTIVE)
    store.jobs.add(job_record("by-hand", status=JobStatus.RUNNING, attempt=1, submission_id="raysubmit_abc"))
    add_jobs(store, 1)
    supervisor(store, ray_jobs).step()
    assert statuses(store) == {"by-hand": "running", "job-1": "pending"}


def test_start_is_told_and_counted_once(store: Store, ray_jobs: FakeRayJobs, clock: Clock) -> None:
    add_jobs(store, 1)
    keeper = supervisor(store, ray_jobs)
    keeper.step()
    first_start = clock.now
    keeper.step()
    clock.advance(60)
    ray_jobs.forget_all()
    keeper.step()
    job = store.jobs.get("job-1")
    assert (job.attempt, job.started_at) == (2, first_start)
    assert [event.kind for event in store.jobs.events("job-1", 0, 100)] == [
        "created",
        "started",
        "interrupted",
        "queued",
        "started",
    ]
    counters = {(sample.name, sample.labels): sample.value for sample in store.metrics.samples()}
    assert counters["sienn_jobs_total", (("status", "pending"),)] == 1
    assert counters["sienn_jobs_total", (("status", "running"),)] == 1
    # From `MOMENT` to the clock's beginning.
    assert counters["sienn_queue_wait_seconds_count", ()] == 1
    assert counters["sienn_queue_wait_seconds_sum", ()] == 3600
    assert counters["sienn_queue_wait_seconds_bucket", (("le", "3600.0"),)] == 1


def test_start_is_noted_after_a_crash_right_behind_the_submission(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 1)
    store.jobs.update("job-1", status=JobStatus.RUNNING, attempt=1)
    ray_jobs.submit("job-1", 1, {})
    keeper = supervisor(store, ray_jobs)
    keeper.step()
    keeper.step()
    job = store.jobs.get("job-1")
    assert job.submission_id == "sienn-job-1-1"
    assert job.started_at is not None
    assert [event.kind for event in store.jobs.events("job-1", 0, 100)] == ["created", "started"]


def test_refused_submissions_are_no_starts(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 1)
    keeper = supervisor(store, ray_jobs)
    ray_jobs.submit_errors["job-1"] = ConnectionError("No available agent to submit job")
    for _ in range(5):
        keeper.step()
    assert store.jobs.get("job-1").started_at is None
    assert [event.kind for event in store.jobs.events("job-1", 0, 100)] == ["created"]
    counters = {(sample.name, sample.labels): sample.value for sample in store.metrics.samples()}
    assert counters["sienn_jobs_total", (("status", "running"),)] == 0


def test_crash_between_write_and_submit_costs_no_attempt(
    store: Store, database_url: str, ray_jobs: FakeRayJobs
) -> None:
    add_jobs(store, 2)
    ray_jobs.submit_errors["job-1"] = MemoryError()
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
    before = all_jobs(store)
    reopened = Store(database_url)
    supervisor(reopened, ray_jobs).step()
    assert all_jobs(reopened) == before
    assert ray_jobs.submitted == ["sienn-job-1-1"]
    reopened.close()


def test_unreachable_job_api_leaves_everything_alone(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 2)
    keeper = supervisor(store, ray_jobs, max_running=1, max_attempts=1)
    store.jobs.update("job-1", status=JobStatus.RUNNING, attempt=1, submission_id="sienn-job-1-1")
    before = all_jobs(store)
    ray_jobs.is_reachable = False
    for _ in range(5):
        keeper.step()
    assert all_jobs(store) == before


def test_refused_connection_at_submit_costs_no_attempt(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 2)
    keeper = supervisor(store, ray_jobs, max_running=2, max_attempts=1)
    ray_jobs.is_reachable = False
    for _ in range(5):
        keeper.step()
    waiting = store.jobs.get("job-1")
    assert (waiting.status, waiting.attempt, waiting.started_at) == (JobStatus.PENDING, 0, None)
    assert "5 submissions in a row have failed, since Ray's job API is out of reach" in waiting.message

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
    keeper.step()
    assert (store.jobs.get("job-1").status, store.jobs.get("job-1").attempt) == (JobStatus.PENDING, 1)
    ray_jobs.submit_errors.clear()
    keeper.step()
    assert ray_jobs.submitted == ["sienn-job-1-1", "sienn-job-1-2"]


def test_lost_answer_to_a_submission_starts_no_second_run(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 1)
    keeper = supervisor(store, ray_jobs)
    ray_jobs.answer_is_lost = True
    keeper.step()
    ray_jobs.answer_is_lost = False
    keeper.step()
    keeper.step()
    assert ray_jobs.submitted == ["sienn-job-1-1"]
    assert (store.jobs.get("job-1").status, store.jobs.get("job-1").attempt) == (JobStatus.RUNNING, 1)


def test_job_that_can_not_be_submitted_does_not_block_the_queue(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 2)
    keeper = supervisor(store, ray_jobs, max_attempts=2)
    ray_jobs.submit_errors["job-1"] = ValueError("metadata is too long")
    for _ in range(2):
        keeper.step()
    keeper.step()
    assert statuses(store) == {"job-1": "failed", "job-2": "running"}
    assert store.jobs.get("job-1").failure_reason is FailureReason.INTERRUPTED
