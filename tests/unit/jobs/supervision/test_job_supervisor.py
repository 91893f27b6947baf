from __future__ import annotations

from collections.abc import Callable

import pytest

from sienn_ray.errors import FailureReason
from sienn_ray.jobs import job_facts
from sienn_ray.jobs.schema import JobRecord, JobStatus
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.job_store import JobStore
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.supervision.job_supervisor import Supervisor
from sienn_ray.jobs.supervision.ray_jobs import RayJobState, submission_id_of
from sienn_ray.training.reporting import RunProgress
from tests.support.fakes_jobs import Clock, FakeRayJobs, all_jobs, job_record

LOST = [RayJobState.MISSING, RayJobState.FAILED]


@pytest.fixture
def ray_jobs() -> FakeRayJobs:
    """Ray's job API, with no job yet."""
    return FakeRayJobs()


def supervisor(store: Store, ray_jobs: FakeRayJobs, *, max_running: int = 1, max_attempts: int = 3) -> Supervisor:
    return Supervisor(store.jobs, ray_jobs, max_running=max_running, max_attempts=max_attempts)


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


# Ends without a word


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


@pytest.mark.parametrize("state", LOST)
@pytest.mark.parametrize("max_attempts", [1, 2, 4])
def test_job_fails_after_its_last_attempt(
    store: Store, ray_jobs: FakeRayJobs, state: RayJobState, max_attempts: int
) -> None:
    add_jobs(store, 1)
    keeper = supervisor(store, ray_jobs, max_attempts=max_attempts)
    for attempt in range(1, max_attempts + 1):
        keeper.step()
        assert (store.jobs.get("job-1").status, store.jobs.get("job-1").attempt) == (JobStatus.RUNNING, attempt)
        lose(ray_jobs, store.jobs.get("job-1"), state)
    keeper.step()
    job = store.jobs.get("job-1")
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
    ray_jobs.on_look = lambda _: void(store.jobs.update("job-1", status=end, message="its own words"))
    keeper.step()
    assert (store.jobs.get("job-1").status, store.jobs.get("job-1").message) == (end, "its own words")
    assert ray_jobs.submitted == ["sienn-job-1-1"]


def void(_: object) -> None:
    """Drop a value, where a lambda must return none."""


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


# Cancelled jobs


def cancel_running(store: Store, keeper: Supervisor, number: int = 1) -> None:
    add_jobs(store, number)
    keeper.step()
    store.jobs.cancel("job-1")


def test_cancelled_run_is_stopped_until_ray_says_so(store: Store, ray_jobs: FakeRayJobs, clock: Clock) -> None:
    ray_jobs.stops_at_once = False
    keeper = supervisor(store, ray_jobs)
    cancel_running(store, keeper, 2)
    for number in (1, 2, 3):
        keeper.step()
        assert ray_jobs.stopped == ["sienn-job-1-1"] * number
        job = store.jobs.get("job-1")
        assert (job.status, job.phase, job.ended_at) == (JobStatus.CANCELLED, "stopping", None)
        assert statuses(store)["job-2"] == "pending", "a run that is being stopped still takes its place"
    ray_jobs.end("sienn-job-1-1", RayJobState.STOPPED)
    clock.advance(5)
    keeper.step()
    job = store.jobs.get("job-1")
    assert (job.status, job.phase, job.message) == (JobStatus.CANCELLED, "cancelled", "Cancelled")
    assert (job.ended_at, job.failure_reason) == (clock.now, None)
    assert statuses(store)["job-2"] == "running"
    keeper.step()
    assert len(ray_jobs.stopped) == 3


@pytest.mark.parametrize("state", [state for state in RayJobState if state is not RayJobState.ACTIVE])
def test_cancelled_run_that_has_ended_needs_no_stop(store: Store, ray_jobs: FakeRayJobs, state: RayJobState) -> None:
    keeper = supervisor(store, ray_jobs)
    cancel_running(store, keeper)
    lose(ray_jobs, store.jobs.get("job-1"), state)
    keeper.step()
    assert ray_jobs.stopped == []
    assert (store.jobs.get("job-1").status, store.jobs.get("job-1").phase) == ("cancelled", "cancelled")
    keeper.step()
    assert ray_jobs.submitted == ["sienn-job-1-1"]


def test_cancelled_job_started_by_hand_is_stopped_by_its_own_id(store: Store, ray_jobs: FakeRayJobs) -> None:
    ray_jobs.end("raysubmit_abc", RayJobState.ACTIVE)
    store.jobs.add(job_record("by-hand", status=JobStatus.RUNNING, attempt=1, submission_id="raysubmit_abc"))
    store.jobs.cancel("by-hand")
    supervisor(store, ray_jobs).step()
    assert ray_jobs.stopped == ["raysubmit_abc"]


def test_waiting_job_that_is_cancelled_never_starts(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 1)
    store.jobs.cancel("job-1")
    supervisor(store, ray_jobs).step()
    assert (ray_jobs.submitted, ray_jobs.stopped) == ([], [])


def test_cancel_during_the_submission_stops_the_run_at_once(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 1)
    ray_jobs.on_submit = lambda _: void(store.jobs.cancel("job-1"))
    keeper = supervisor(store, ray_jobs)
    keeper.step()
    assert ray_jobs.stopped == ["sienn-job-1-1"]
    assert store.jobs.get("job-1").submission_id == "sienn-job-1-1"
    keeper.step()
    job = store.jobs.get("job-1")
    assert (job.status, job.phase) == (JobStatus.CANCELLED, "cancelled")


def test_cancel_during_a_submission_whose_answer_is_lost(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 1)
    ray_jobs.on_submit = lambda _: void(store.jobs.cancel("job-1"))
    ray_jobs.answer_is_lost = True
    keeper = supervisor(store, ray_jobs)
    with pytest.raises(ConnectionError):
        keeper.step()
    assert statuses(store) == {"job-1": "cancelled"}
    keeper.step()
    keeper.step()
    assert ray_jobs.stopped == ["sienn-job-1-1"]
    assert store.jobs.get("job-1").phase == "cancelled"


def test_cancel_after_a_submission_whose_answer_is_lost(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 1)
    ray_jobs.answer_is_lost = True
    keeper = supervisor(store, ray_jobs)
    with pytest.raises(ConnectionError):
        keeper.step()
    assert statuses(store) == {"job-1": "pending"}
    store.jobs.cancel("job-1")
    keeper.step()
    assert ray_jobs.stopped == ["sienn-job-1-1"]


class _LateCancel(JobStore):
    """A waiting job is cancelled right after it was read as waiting."""

    def waiting(self, limit: int) -> list[JobRecord]:
        records = super().waiting(limit)
        for record in records:
            self.cancel(record.id)
        return records


@pytest.mark.parametrize("is_deleted", [False, True])
def test_cancel_just_before_the_start_stands(store: Store, ray_jobs: FakeRayJobs, is_deleted: bool) -> None:
    class Jobs(_LateCancel):
        def waiting(self, limit: int) -> list[JobRecord]:
            records = super().waiting(limit)
            for record in records if is_deleted else []:
                self.delete(record.id)
            return records

    add_jobs(store, 1)
    Supervisor(Jobs(store.database), ray_jobs, max_running=1, max_attempts=3).step()
    assert ray_jobs.submitted == []
    assert statuses(store) == ({} if is_deleted else {"job-1": "cancelled"})


def test_run_that_can_not_be_stopped_holds_up_nothing_else(store: Store, ray_jobs: FakeRayJobs) -> None:
    keeper = supervisor(store, ray_jobs, max_running=2)
    cancel_running(store, keeper, 3)
    ray_jobs.stop_errors["sienn-job-1-1"] = ConnectionError("500 Internal Server Error")
    store.jobs.update("job-2", status=JobStatus.COMPLETED)
    with pytest.raises(ConnectionError, match="500"):
        keeper.step()
    assert statuses(store) == {"job-1": "cancelled", "job-2": "completed", "job-3": "running"}
    ray_jobs.stop_errors.clear()
    keeper.step()
    keeper.step()
    assert store.jobs.get("job-1").phase == "cancelled"


def test_restart_goes_on_stopping(store: Store, database_url: str, ray_jobs: FakeRayJobs) -> None:
    cancel_running(store, supervisor(store, ray_jobs))
    reopened = Store(database_url)
    keeper = supervisor(reopened, ray_jobs)
    keeper.step()
    keeper.step()
    assert ray_jobs.stopped == ["sienn-job-1-1"]
    assert reopened.jobs.get("job-1").phase == "cancelled"
    reopened.close()


# Retries


def test_attempts_count_anew_after_a_retry(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 1)
    keeper = supervisor(store, ray_jobs, max_attempts=2)
    for _ in range(3):
        keeper.step()
        ray_jobs.forget_all()
    assert store.jobs.get("job-1").failure_reason is FailureReason.INTERRUPTED
    store.jobs.retry("job-1")
    for attempt in (3, 4):
        keeper.step()
        assert (store.jobs.get("job-1").status, store.jobs.get("job-1").attempt) == (JobStatus.RUNNING, attempt)
        ray_jobs.forget_all()
    keeper.step()
    job = store.jobs.get("job-1")
    assert (job.status, job.attempt) == (JobStatus.FAILED, 4)
    assert job.message.startswith("Training was lost 2 times")
    assert ray_jobs.submitted == [f"sienn-job-1-{attempt}" for attempt in (1, 2, 3, 4)]


# What starts leave behind


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
        with pytest.raises(ConnectionError):
            keeper.step()
    assert store.jobs.get("job-1").started_at is None
    assert [event.kind for event in store.jobs.events("job-1", 0, 100)] == ["created"]
    counters = {(sample.name, sample.labels): sample.value for sample in store.metrics.samples()}
    assert counters["sienn_jobs_total", (("status", "running"),)] == 0


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
    before = all_jobs(store)
    reopened = Store(database_url)
    supervisor(reopened, ray_jobs).step()
    assert all_jobs(reopened) == before
    assert ray_jobs.submitted == ["sienn-job-1-1"]
    reopened.close()


def test_unreachable_job_api_leaves_everything_alone(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 2)
    keeper = supervisor(store, ray_jobs, max_running=2, max_attempts=1)
    store.jobs.update("job-1", status=JobStatus.RUNNING, attempt=1, submission_id="sienn-job-1-1")
    before = all_jobs(store)
    ray_jobs.is_reachable = False
    for _ in range(5):
        with pytest.raises(ConnectionError):
            keeper.step()
    assert all_jobs(store) == before


def test_refused_connection_at_submit_costs_no_attempt(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 2)
    keeper = supervisor(store, ray_jobs, max_running=2, max_attempts=1)
    ray_jobs.is_reachable = False
    for _ in range(5):
        with pytest.raises(ConnectionError):
            keeper.step()
    waiting = store.jobs.get("job-1")
    assert (waiting.status, waiting.attempt, waiting.started_at) == (JobStatus.PENDING, 0, None)
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
    assert (store.jobs.get("job-1").status, store.jobs.get("job-1").attempt) == (JobStatus.PENDING, 1)
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
    assert (store.jobs.get("job-1").status, store.jobs.get("job-1").attempt) == (JobStatus.RUNNING, 1)


def test_job_that_can_not_be_submitted_does_not_block_the_queue(store: Store, ray_jobs: FakeRayJobs) -> None:
    add_jobs(store, 2)
    keeper = supervisor(store, ray_jobs, max_attempts=2)
    ray_jobs.submit_errors["job-1"] = ValueError("metadata is too long")
    for _ in range(2):
        with pytest.raises(ValueError, match="metadata is too long"):
            keeper.step()
    keeper.step()
    assert statuses(store) == {"job-1": "failed", "job-2": "running"}
    assert store.jobs.get("job-1").failure_reason is FailureReason.INTERRUPTED
