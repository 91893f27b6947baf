from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any

import pytest

from sienn_ray.errors import ConflictError, FailureReason, FencedError
from sienn_ray.jobs import job_facts
from sienn_ray.jobs.schema import JobRecord, JobStatus
from sienn_ray.jobs.store.job_store import JobStore
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.supervision.job_supervisor import Supervisor
from sienn_ray.jobs.supervision.ray_jobs import RayJobState
from sienn_ray.training.reporting import Phase, Progress, RunCommand
from tests.support.fakes_jobs import Clock, FakeRayJobs, PatientSupervisor, job_record, stored_job

TIMEOUT_S = 60.0


@pytest.fixture
def keeper(store: Store, ray_jobs: FakeRayJobs, clock: Clock) -> Supervisor:
    """A supervisor that lets one job run, once."""
    return PatientSupervisor(
        store.jobs, ray_jobs, max_running=1, max_attempts=1, pause_timeout_s=TIMEOUT_S, clock=clock
    )


@pytest.fixture
def running(store: Store, keeper: Supervisor) -> str:
    """A job that runs, with another one behind it."""
    for number in (1, 2):
        store.jobs.add(job_record(f"job-{number}"))
    keeper.step()
    report(store)
    return "job-1"


def report(store: Store, step: int = 5, attempt: int = 1) -> RunCommand:
    progress = Progress(
        Phase.TRAINING,
        "Training",
        40,
        current_step=step,
        current_loss=0.5,
        time_left_s=9.0,
        num_tokens=100 * step,
        train_seconds=float(step),
    )
    return store.jobs.report("job-1", attempt, progress)


def kinds(store: Store) -> list[str]:
    return [event.kind for event in store.jobs.events("job-1", 0, 1000)]


def counted(store: Store, status: JobStatus) -> float:
    found = {s.labels: s.value for s in store.metrics.samples() if s.name == "sienn_jobs_total"}
    return found[("status", status.value),]


def facts_of(job: JobRecord, *names: str) -> list[Any]:
    return [job_facts.to_flat(job).get(name) for name in names]


# Waiting jobs


def test_waiting_job_is_paused_at_once(store: Store, keeper: Supervisor, ray_jobs: FakeRayJobs) -> None:
    store.jobs.add(job_record())
    job = store.jobs.pause("job-1")
    assert job == stored_job(store)
    assert (job.status, job.message, job.ended_at) == (JobStatus.PAUSED, "Paused while it waited", None)
    assert (job.phase, job.is_pausing) == ("paused", False)
    keeper.step()
    assert ray_jobs.submitted == []
    assert kinds(store) == ["created", "paused"]
    assert counted(store, JobStatus.PAUSED) == store.overview().num_jobs[JobStatus.PAUSED] == 1


def test_a_job_that_never_ran_waits_to_start_once_it_is_resumed(store: Store) -> None:
    store.jobs.add(job_record())
    store.jobs.pause("job-1")
    assert store.jobs.resume("job-1").message == "Waiting to start"


def test_resumed_job_has_its_old_place(store: Store) -> None:
    for number in (1, 2, 3):
        store.jobs.add(job_record(f"job-{number}"))
    store.jobs.pause("job-2")
    assert [job.id for job in store.jobs.waiting(9)] == ["job-1", "job-3"]
    store.jobs.resume("job-2")
    assert [job.id for job in store.jobs.waiting(9)] == ["job-1", "job-2", "job-3"]
    assert store.jobs.get("job-2").queue_position == 2


class _LateJobs(JobStore):
    """A waiting job is paused right after it was read as waiting."""

    def waiting(self, limit: int, without: Collection[str] = ()) -> list[JobRecord]:
        records = super().waiting(limit, without)
        for record in records:
            self.pause(record.id)
        return records


def test_pause_just_before_the_start_stands(store: Store, ray_jobs: FakeRayJobs) -> None:
    store.jobs.add(job_record())
    Supervisor(_LateJobs(store.database), ray_jobs, max_running=1, max_attempts=1).step()
    assert (store.jobs.get("job-1").status, ray_jobs.submitted) == (JobStatus.PAUSED, [])


# Running jobs


def test_running_job_pauses_once_its_run_has_ended(
    store: Store, keeper: Supervisor, ray_jobs: FakeRayJobs, running: str
) -> None:
    assert report(store) is RunCommand.GO_ON
    job = store.jobs.pause(running)
    assert job == stored_job(store)
    assert (job.status, job.phase, job.is_pausing) == (JobStatus.RUNNING, "pausing", True)
    assert report(store, 6) is RunCommand.PAUSE
    keeper.step()
    job = stored_job(store)
    assert (job.status, job.phase, job.run.current_step) == (JobStatus.RUNNING, "pausing", 6)
    assert job.message.startswith("Pausing; its run writes a checkpoint")
    assert store.jobs.get("job-2").status is JobStatus.PENDING, "its place is still taken"
    report(store, 7)
    job = store.jobs.note_pause(running, 1)
    assert job == stored_job(store)
    assert (job.status, job.progress, job.ended_at, job.pause_requested_at) == (JobStatus.PAUSED, 40, None, None)
    assert facts_of(job, "phase", "num_tokens", "train_seconds", "time_left_s") == ["paused", 700, 7.0, 0.0]
    keeper.step()
    assert store.jobs.get("job-2").status is JobStatus.RUNNING, "its place is free"
    assert ray_jobs.stopped == []
    assert kinds(store) == ["created", "started", "phase", "phase", "paused"]
    assert counted(store, JobStatus.PAUSED) == 1
    tokens = {s.name: s.value for s in store.metrics.samples()}["sienn_training_tokens_total"]
    assert tokens == 700


def test_resumed_job_goes_on(store: Store, keeper: Supervisor, ray_jobs: FakeRayJobs, running: str) -> None:
    store.jobs.cancel("job-2")
    store.jobs.pause(running)
    store.jobs.note_pause(running, 1)
    job = store.jobs.resume(running)
    assert job == stored_job(store)
    assert (job.status, job.progress, job.submission_id) == (JobStatus.PENDING, 40, None)
    assert job.message == "Waiting to go on from the last checkpoint"
    assert (job.attempt, job.attempt_base) == (1, 1)
    assert facts_of(job, "num_tokens", "phase") == [500, "starting"]
    assert kinds(store)[-3:] == ["paused", "resumed", "queued"]
    keeper.step()
    assert ray_jobs.submitted == ["sienn-job-1-1", "sienn-job-1-2"]
    assert report(store, 6, attempt=2) is RunCommand.GO_ON
    assert (counted(store, JobStatus.PENDING), counted(store, JobStatus.RUNNING)) == (2, 1), "it is the same job"


def test_report_of_another_attempt_is_told_to_stop(store: Store, running: str) -> None:
    store.jobs.pause(running)
    assert report(store, attempt=2) is RunCommand.STOP


@pytest.mark.parametrize("state", [state for state in RayJobState if state is not RayJobState.ACTIVE])
def test_run_that_is_lost_while_it_pauses_is_paused(
    store: Store, keeper: Supervisor, ray_jobs: FakeRayJobs, running: str, state: RayJobState
) -> None:
    store.jobs.pause(running)
    ray_jobs.forget_all()
    ray_jobs.end("sienn-job-1-1", state)
    keeper.step()
    job = store.jobs.get(running)
    assert (job.status, job.failure_reason, job.progress) == (JobStatus.PAUSED, None, 40)
    assert job.message.startswith("Paused, after its run had ended")


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED])
def test_run_that_ends_otherwise_while_it_pauses_has_ended(store: Store, running: str, status: JobStatus) -> None:
    store.jobs.pause(running)
    reason = FailureReason.DIVERGED if status is JobStatus.FAILED else None
    store.jobs.update(running, running_attempt=1, status=status, failure_reason=reason)
    with pytest.raises(FencedError):
        store.jobs.note_pause(running, 1)
    job = store.jobs.get(running)
    assert (job.is_pausing, job.pause_requested_at) == (False, None)
    if status is JobStatus.FAILED:
        assert not store.jobs.retry(running).is_pausing


def test_job_can_be_cancelled_while_it_pauses(
    store: Store, keeper: Supervisor, ray_jobs: FakeRayJobs, running: str
) -> None:
    store.jobs.pause(running)
    assert store.jobs.cancel(running).phase == "stopping"
    assert report(store) is RunCommand.STOP
    with pytest.raises(FencedError):
        store.jobs.note_pause(running, 1)
    keeper.step()
    keeper.step()
    assert ray_jobs.stopped == ["sienn-job-1-1"]
    assert store.jobs.get(running).ended_at is not None
    assert not store.jobs.retry(running).is_pausing


def test_restart_keeps_the_wish(store: Store, database_url: str, running: str) -> None:
    store.jobs.pause(running)
    reopened = Store(database_url)
    assert report(reopened, 6) is RunCommand.PAUSE
    reopened.close()


# Runs that don't obey


def test_run_that_does_not_pause_in_time_is_stopped(
    store: Store, keeper: Supervisor, ray_jobs: FakeRayJobs, clock: Clock, running: str
) -> None:
    ray_jobs.stops_at_once = False
    store.jobs.pause(running)
    clock.advance(TIMEOUT_S - 1)
    keeper.step()
    assert (ray_jobs.stopped, keeper.needs_close_look()) == ([], False)
    clock.advance(1)
    keeper.step()
    assert (ray_jobs.stopped, keeper.needs_close_look()) == (["sienn-job-1-1"], True)
    job = store.jobs.get(running)
    assert (job.status, job.phase) == (JobStatus.RUNNING, "stopping")
    assert store.jobs.get("job-2").status is JobStatus.PENDING
    with pytest.raises(ConflictError, match="its run is being stopped; try again in a moment"):
        store.jobs.resume(running)
    clock.advance(60)
    keeper.step()
    assert not keeper.needs_close_look(), "a run that can't be stopped isn't looked at ever so often"
    ray_jobs.end("sienn-job-1-1", RayJobState.STOPPED)
    keeper.step()
    job = store.jobs.get(running)
    assert (job.status, job.failure_reason, job.phase) == (JobStatus.PAUSED, None, "paused")
    assert store.jobs.get("job-2").status is JobStatus.RUNNING
    assert store.jobs.resume(running).status is JobStatus.PENDING


def test_run_that_pauses_while_it_is_being_stopped(
    store: Store, keeper: Supervisor, ray_jobs: FakeRayJobs, clock: Clock, running: str
) -> None:
    ray_jobs.stops_at_once = False
    store.jobs.pause(running)
    clock.advance(TIMEOUT_S)
    keeper.step()
    assert store.jobs.note_pause(running, 1).status is JobStatus.PAUSED


def test_trouble_with_a_stop_holds_up_nothing_else(
    store: Store, ray_jobs: FakeRayJobs, clock: Clock, running: str
) -> None:
    keeper = Supervisor(store.jobs, ray_jobs, max_running=2, max_attempts=1, pause_timeout_s=TIMEOUT_S, clock=clock)
    store.jobs.pause(running)
    clock.advance(TIMEOUT_S)
    ray_jobs.stop_errors["sienn-job-1-1"] = ConnectionError("500 Internal Server Error")
    keeper.step()
    assert store.jobs.get("job-2").status is JobStatus.RUNNING


# Wishes that are withdrawn


def test_resume_withdraws_a_pause(store: Store, keeper: Supervisor, ray_jobs: FakeRayJobs, running: str) -> None:
    store.jobs.pause(running)
    job = store.jobs.resume(running)
    assert job == stored_job(store)
    assert (job.status, job.attempt, job.is_pausing) == (JobStatus.RUNNING, 1, False)
    assert report(store, 6) is RunCommand.GO_ON
    keeper.step()
    job = store.jobs.get(running)
    assert (job.phase, job.message, ray_jobs.stopped) == ("training", "Training", [])
    assert kinds(store)[-2:] == ["resumed", "phase"]
    with pytest.raises(ConflictError, match="'running'; only paused jobs can be resumed"):
        store.jobs.resume(running)


def test_pause_that_is_withdrawn_too_late_goes_on_at_once(
    store: Store, keeper: Supervisor, ray_jobs: FakeRayJobs, running: str
) -> None:
    store.jobs.pause(running)
    store.jobs.resume(running)
    report(store, 7)
    job = store.jobs.note_pause(running, 1)
    assert (job.status, job.attempt, job.attempt_base, job.run.num_tokens) == (JobStatus.PENDING, 1, 1, 700)
    keeper.step()
    assert ray_jobs.submitted == ["sienn-job-1-1", "sienn-job-1-2"]
    assert counted(store, JobStatus.PAUSED) == 0


# What is refused


def test_second_pause_is_refused(store: Store, running: str) -> None:
    before = store.jobs.pause(running)
    with pytest.raises(ConflictError, match=r"^Job job-1 is being paused already; resume it to have it go on"):
        store.jobs.pause(running)
    assert stored_job(store) == before
    store.jobs.note_pause(running, 1)
    with pytest.raises(ConflictError, match=r"^Job job-1 is 'paused'; only pending and running jobs"):
        store.jobs.pause(running)


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED])
def test_ended_job_is_neither_paused_nor_resumed(store: Store, running: str, status: JobStatus) -> None:
    store.jobs.update(running, status=status)
    before = stored_job(store)
    with pytest.raises(ConflictError, match=f"^Job job-1 is '{status}'; only pending and running jobs can be paused"):
        store.jobs.pause(running)
    with pytest.raises(ConflictError, match=f"^Job job-1 is '{status}'; only paused jobs can be resumed"):
        store.jobs.resume(running)
    assert stored_job(store) == before


def test_paused_job_is_cancelled_before_it_is_deleted(store: Store, clock: Clock, running: str) -> None:
    store.jobs.pause(running)
    store.jobs.note_pause(running, 1)
    with pytest.raises(ConflictError, match="'paused'; only failed and cancelled jobs can be retried"):
        store.jobs.retry(running)
    with pytest.raises(ConflictError, match="'paused', and only jobs that have ended can be deleted; cancel it first"):
        store.jobs.delete(running)
    job = store.jobs.cancel(running)
    assert (job.status, job.ended_at, job.message) == (JobStatus.CANCELLED, clock.now, "Cancelled while it was paused")
    assert store.jobs.stopping() == []
    store.jobs.delete(running)


# Around a submission whose answer is lost


def lose_answer(store: Store, keeper: Supervisor, ray_jobs: FakeRayJobs, *, arrives: bool) -> None:
    """Have a submission fail without a word on whether Ray has taken it."""
    store.jobs.add(job_record())
    if arrives:
        ray_jobs.answer_is_lost = True
    else:
        ray_jobs.submit_errors["job-1"] = ConnectionError("read timed out")
    keeper.step()
    ray_jobs.answer_is_lost = False
    ray_jobs.submit_errors.clear()


def test_pause_after_it_waits_for_the_run_that_may_be_there(
    store: Store, keeper: Supervisor, ray_jobs: FakeRayJobs
) -> None:
    lose_answer(store, keeper, ray_jobs, arrives=True)
    job = store.jobs.pause("job-1")
    assert (job.status, job.attempt, job.phase) == (JobStatus.RUNNING, 1, "pausing")
    keeper.step()
    assert report(store) is RunCommand.PAUSE
    assert store.jobs.note_pause("job-1", 1).status is JobStatus.PAUSED
    store.jobs.resume("job-1")
    keeper.step()
    assert ray_jobs.submitted == ["sienn-job-1-1", "sienn-job-1-2"]


def test_pause_after_it_finds_that_there_is_no_run(store: Store, keeper: Supervisor, ray_jobs: FakeRayJobs) -> None:
    lose_answer(store, keeper, ray_jobs, arrives=False)
    store.jobs.pause("job-1")
    keeper.step()
    assert store.jobs.get("job-1").status is JobStatus.PAUSED


@pytest.mark.parametrize("arrives", [True, False])
def test_pause_during_it(store: Store, keeper: Supervisor, ray_jobs: FakeRayJobs, arrives: bool) -> None:
    store.jobs.add(job_record())

    def pause(_: str) -> None:
        store.jobs.pause("job-1")

    ray_jobs.on_submit = pause
    ray_jobs.answer_is_lost = True
    keeper.step()
    assert store.jobs.get("job-1").is_pausing
    if not arrives:
        ray_jobs.forget_all()
    keeper.step()
    assert store.jobs.get("job-1").status is (JobStatus.RUNNING if arrives else JobStatus.PAUSED)


def test_retry_after_a_cancel_after_it_has_a_ray_job_of_its_own(
    store: Store, keeper: Supervisor, ray_jobs: FakeRayJobs
) -> None:
    lose_answer(store, keeper, ray_jobs, arrives=True)
    store.jobs.cancel("job-1")
    keeper.step()
    keeper.step()
    store.jobs.retry("job-1")
    keeper.step()
    keeper.step()
    assert ray_jobs.submitted == ["sienn-job-1-1", "sienn-job-1-2"]
    assert store.jobs.get("job-1").status is JobStatus.RUNNING


def test_wish_has_a_zone(store: Store, clock: Clock, running: str) -> None:
    requested_at = store.jobs.pause(running).pause_requested_at
    assert requested_at == clock.now
    assert requested_at.utcoffset() == timedelta(0)
