"""Runs of cancelled jobs are stopped until Ray says that they have ended."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from sienn_ray.jobs.schema import JobRecord, JobStatus
from sienn_ray.jobs.store.job_store import JobStore
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.supervision.job_supervisor import Supervisor
from sienn_ray.jobs.supervision.ray_jobs import RayJobState
from tests.support.fakes_jobs import Clock, FakeRayJobs, job_record
from tests.unit.jobs.supervision.supervising import add_jobs, lose, statuses, supervisor, void


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
    keeper.step()
    assert statuses(store) == {"job-1": "pending"}
    store.jobs.cancel("job-1")
    keeper.step()
    assert ray_jobs.stopped == ["sienn-job-1-1"]


class _LateCancel(JobStore):
    """A waiting job is cancelled right after it was read as waiting."""

    def waiting(self, limit: int, without: Collection[str] = ()) -> list[JobRecord]:
        records = super().waiting(limit, without)
        for record in records:
            self.cancel(record.id)
        return records


@pytest.mark.parametrize("is_deleted", [False, True])
def test_cancel_just_before_the_start_stands(store: Store, ray_jobs: FakeRayJobs, is_deleted: bool) -> None:
    class Jobs(_LateCancel):
        def waiting(self, limit: int, without: Collection[str] = ()) -> list[JobRecord]:
            records = super().waiting(limit, without)
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
