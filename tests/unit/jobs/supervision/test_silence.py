"""Every wait of supervision ends: for reports, for stops, and for programs to exit."""

from __future__ import annotations

import pytest

from sienn_ray.errors import FailureReason
from sienn_ray.jobs.schema import JobRecord, JobStatus
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.supervision.job_supervisor import Supervisor
from sienn_ray.jobs.supervision.ray_jobs import RayJobReport, RayJobState
from sienn_ray.training.reporting import Phase, Progress, RunCommand
from tests.support.fakes_jobs import Clock, FakeRayJobs, Seconds, job_record, run_summary

RUN = "sienn-job-1-1"


class Watched:
    """A job that runs, and its supervisor with a silence timeout of 100 s."""

    def __init__(self, store: Store, ray_jobs: FakeRayJobs, clock: Clock, max_attempts: int = 3) -> None:
        self.store, self.ray_jobs, self.clock, self.seconds = store, ray_jobs, clock, Seconds()
        self.max_attempts = max_attempts
        self.restart()
        self.store.jobs.add(job_record())
        self.supervisor.step()
        self.supervisor.step()

    def restart(self) -> None:
        self.supervisor = Supervisor(
            self.store.jobs,
            self.ray_jobs,
            max_running=1,
            max_attempts=self.max_attempts,
            silence_timeout_s=100,
            start_timeout_s=50,
            clock=self.clock,
            clock_s=self.seconds,
        )

    def after(self, seconds: float) -> JobRecord:
        """The job after a look at it so many seconds later."""
        self.clock.advance(seconds)
        self.seconds.advance(seconds)
        self.supervisor.step()
        return self.store.jobs.get("job-1")

    def report(self, step: int = 1, phase: Phase = Phase.TRAINING, attempt: int = 1) -> RunCommand:
        progress = Progress(phase, "Training in progress", 50, current_step=step)
        return self.store.jobs.report("job-1", attempt, progress)


@pytest.fixture
def watched(store: Store, ray_jobs: FakeRayJobs, clock: Clock) -> Watched:
    return Watched(store, ray_jobs, clock)


def test_silent_run_is_stopped_and_goes_on_with_its_next_attempt(watched: Watched, ray_jobs: FakeRayJobs) -> None:
    for _ in range(2):
        watched.report()
        assert watched.after(0).phase == "training"
        assert watched.after(99).phase == "training"
    job = watched.after(1)
    assert (job.status, job.phase, ray_jobs.stopped) == (JobStatus.RUNNING, "stopping", [RUN])
    assert job.message == "Its run has reported nothing for 100 s and is being stopped"
    assert watched.report() is RunCommand.STOP
    job = watched.after(1)
    assert (job.attempt, job.num_losses, ray_jobs.submitted) == (2, 1, [RUN, "sienn-job-1-2"])
    assert watched.report() is RunCommand.STOP
    assert watched.report(attempt=2) is RunCommand.GO_ON


def test_silence_fails_a_job_in_the_end(store: Store, ray_jobs: FakeRayJobs, clock: Clock) -> None:
    watched = Watched(store, ray_jobs, clock, max_attempts=1)
    watched.after(100)
    job = watched.after(1)
    assert (job.status, job.failure_reason) == (JobStatus.FAILED, FailureReason.INTERRUPTED)
    assert "last: it reported nothing for SIENN_RUN_SILENCE_TIMEOUT_S=100 and was stopped." in job.message


def test_run_may_wait_longer_for_its_workers(watched: Watched) -> None:
    watched.report(phase=Phase.WAITING_FOR_RESOURCES)
    assert watched.after(0).phase == "waiting_for_resources"
    assert watched.after(149).phase == "waiting_for_resources"
    assert watched.after(1).phase == "stopping"


def test_restart_of_the_tracker_grants_the_whole_time_again(watched: Watched) -> None:
    watched.after(99)
    watched.restart()
    assert watched.after(1).phase == "starting"
    assert watched.after(99).phase == "starting"
    assert watched.after(1).phase == "stopping"


def test_restart_knows_that_a_silent_run_was_not_stopped_by_hand(watched: Watched) -> None:
    watched.after(100)
    watched.restart()
    assert watched.after(1).attempt == 2


def test_silent_run_that_does_not_end_is_given_up(watched: Watched, ray_jobs: FakeRayJobs) -> None:
    ray_jobs.stops_at_once = False
    watched.after(100)
    assert watched.after(1).attempt == 1
    assert watched.after(599).attempt == 1
    job = watched.after(1)
    assert (job.attempt, job.num_losses) == (2, 1)
    assert watched.report() is RunCommand.STOP, "should it live, it is fenced off"


def test_cancelled_run_that_does_not_end_gives_its_place_up(
    watched: Watched, store: Store, ray_jobs: FakeRayJobs
) -> None:
    ray_jobs.stops_at_once = False
    store.jobs.cancel("job-1")
    assert watched.after(1).phase == "stopping"
    assert watched.after(599).phase == "stopping"
    assert watched.after(1).phase == "cancelled"


def test_run_that_neither_pauses_nor_ends_is_given_up(watched: Watched, store: Store, ray_jobs: FakeRayJobs) -> None:
    ray_jobs.stops_at_once = False
    store.jobs.pause("job-1")
    assert watched.after(120).phase == "stopping"
    assert watched.after(599).status is JobStatus.RUNNING
    assert watched.after(1).status is JobStatus.PAUSED


def complete(store: Store) -> None:
    store.jobs.end("job-1", 1, status=JobStatus.COMPLETED, summary=run_summary())


def test_program_that_does_not_exit_is_stopped(watched: Watched, store: Store, ray_jobs: FakeRayJobs) -> None:
    complete(store)
    watched.after(1)
    watched.after(299)
    assert ray_jobs.stopped == []
    watched.after(1)
    assert ray_jobs.stopped == [RUN]
    assert store.jobs.get("job-1").status is JobStatus.COMPLETED


def test_program_that_is_gone_is_looked_at_no_more(watched: Watched, store: Store, ray_jobs: FakeRayJobs) -> None:
    complete(store)
    ray_jobs.end(RUN, RayJobState.SUCCEEDED)
    watched.after(1)
    ray_jobs.looked.clear()
    watched.after(1)
    assert (ray_jobs.looked, ray_jobs.stopped) == ([], [])


def test_end_of_the_log_of_a_failed_run_is_kept(watched: Watched, store: Store, ray_jobs: FakeRayJobs) -> None:
    store.jobs.end("job-1", 1, status=JobStatus.FAILED, message="the loss became nan")
    ray_jobs.reports[RUN] = RayJobReport(RayJobState.FAILED, "its program ended with exit code 1", "step 7\nnan")
    job = watched.after(1)
    assert (job.message, job.log_tail) == ("the loss became nan", "step 7\nnan")
