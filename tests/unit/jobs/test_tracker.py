from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sienn_ray.errors import CapacityError, ConflictError, FailureReason, FencedError, TooManyRequestsError
from sienn_ray.jobs.schema import JobQuery, JobStatus
from sienn_ray.jobs.supervision.ray_jobs import RayJobState
from sienn_ray.jobs.tracker import JobTracker
from sienn_ray.metrics import MetricBatch, Sample
from sienn_ray.settings import Settings
from sienn_ray.training.reporting import Phase, Progress, RunCommand
from tests.support.fakes_jobs import FakeRayJobs, FakeRayLogs, dataset_record, job_record, no_mirror, run_summary

# Far more than any step takes; nothing waits for it unless a wake-up is missed.
DEADLINE_S = 30.0


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Between two looks at the Ray jobs lies an hour, so that whatever happens was asked for."""
    return Settings(env="test", home=tmp_path, database_url=database_url, job_poll_s=3600, max_pending_jobs=3)


@pytest.fixture
def tracker(settings: Settings, ray_jobs: FakeRayJobs) -> Iterator[JobTracker]:
    """A tracker with one dataset, `dataset-1`."""
    tracker = JobTracker(settings, ray_jobs, mirror=no_mirror, ray_logs=FakeRayLogs())
    tracker.add_dataset(dataset_record())
    yield tracker
    tracker.close()


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it didn't happen in time"
        time.sleep(0.01)


def start(tracker: JobTracker, job_id: str = "job-1") -> None:
    """Add a job and wait until Ray has it."""
    tracker.add_job(job_record(job_id))
    wait_until(lambda: tracker.job(job_id).started_at)


def training(step: int = 5) -> Progress:
    return Progress(Phase.TRAINING, "Training", 50, current_step=step, current_loss=0.5)


# Jobs


def test_life_of_a_job(tracker: JobTracker, ray_jobs: FakeRayJobs) -> None:
    start(tracker)
    assert ray_jobs.submitted == ["sienn-job-1-1"]
    tracker.report("job-1", 1, training())
    assert [point.loss for point in tracker.metric_points("job-1", 10)] == [0.5]
    tracker.complete("job-1", 1, run_summary())
    job = tracker.job("job-1")
    assert (job.status, job.progress, job.phase) == (JobStatus.COMPLETED, 100, "completed")
    assert [event.kind for event in tracker.events("job-1", 0, 99)] == ["created", "started", "phase", "completed"]
    assert tracker.overview().num_completed_24h == 1
    assert tracker.delete_job("job-1").id == "job-1"
    assert tracker.delete_dataset("dataset-1").id == "dataset-1"


def test_new_job_starts_at_once(tracker: JobTracker, ray_jobs: FakeRayJobs) -> None:
    start(tracker)
    tracker.add_job(job_record("job-2"))
    assert tracker.job("job-2").queue_position == 1
    assert tracker.jobs(JobQuery(limit=1)).jobs[0].queue_position == 1
    tracker.fail("job-1", 1, FailureReason.DIVERGED, "the loss is no number any more")
    wait_until(lambda: tracker.job("job-2").started_at)
    assert tracker.job("job-1").failure_reason is FailureReason.DIVERGED


def test_cancel_takes_effect_at_once(tracker: JobTracker, ray_jobs: FakeRayJobs) -> None:
    start(tracker)
    assert tracker.cancel_job("job-1").status is JobStatus.CANCELLED
    wait_until(lambda: ray_jobs.stopped == ["sienn-job-1-1"])
    with pytest.raises(ConflictError):
        tracker.cancel_job("job-1")


def test_retry_without_the_adapter_to_start_from_is_refused(tracker: JobTracker) -> None:
    start(tracker)
    tracker.complete("job-1", 1, run_summary())
    tracker.add_job(job_record("job-2", from_job="job-1"))
    wait_until(lambda: tracker.job("job-2").started_at)
    tracker.fail("job-2", 1, FailureReason.STORAGE, "the bucket is away")
    tracker.delete_job("job-1")
    with pytest.raises(ConflictError, match="was deleted, and has left no checkpoint"):
        tracker.retry_job("job-2")


def test_retry_starts_at_once(tracker: JobTracker, ray_jobs: FakeRayJobs) -> None:
    start(tracker)
    tracker.fail("job-1", 1, FailureReason.STORAGE, "the bucket is away")
    assert tracker.retry_job("job-1").status is JobStatus.PENDING
    wait_until(lambda: ray_jobs.submitted == ["sienn-job-1-1", "sienn-job-1-2"])
    assert tracker.job("job-1").attempt == 2


def test_queue_is_limited_by_its_setting(tracker: JobTracker) -> None:
    start(tracker)
    for number in (2, 3, 4):
        tracker.add_job(job_record(f"job-{number}", idempotency_key=f"key-{number}", request_hash="a"))
    with pytest.raises(TooManyRequestsError, match="SIENN_MAX_PENDING_JOBS is 3"):
        tracker.add_job(job_record("job-5"))
    repeated = job_record("job-6", idempotency_key="key-3", request_hash="a")
    assert tracker.add_job(repeated).id == "job-3"
    known = tracker.job_of_key("key-3")
    assert known is not None
    assert known.id == "job-3"
    assert tracker.job_of_key("key-9") is None


def test_pause_is_heard_and_obeyed(tracker: JobTracker, ray_jobs: FakeRayJobs) -> None:
    start(tracker)
    tracker.add_job(job_record("job-2"))
    assert tracker.report("job-1", 1, training()) is RunCommand.GO_ON
    assert tracker.pause_job("job-1").phase == "pausing"
    assert tracker.report("job-1", 1, training(6)) is RunCommand.PAUSE
    for _ in range(2):  # it may be told twice
        tracker.pause("job-1", 1)
    wait_until(lambda: tracker.job("job-2").started_at)
    job = tracker.job("job-1")
    assert (job.status, job.progress, job.run.current_step) == (JobStatus.PAUSED, 50, 6)
    assert tracker.report("job-1", 1, training(7)) is RunCommand.STOP
    assert tracker.resume_job("job-1").status is JobStatus.PENDING
    tracker.fail("job-2", 1, FailureReason.DIVERGED, "the loss is no number any more")
    wait_until(lambda: ray_jobs.submitted[-1] == "sienn-job-1-2")
    with pytest.raises(FencedError):
        tracker.pause("job-1", 1)  # of the earlier attempt
    assert tracker.job("job-1").status is JobStatus.RUNNING


def test_restart_keeps_the_wish_to_pause(tracker: JobTracker, settings: Settings, ray_jobs: FakeRayJobs) -> None:
    start(tracker)
    tracker.pause_job("job-1")
    successor = JobTracker(settings, ray_jobs, mirror=no_mirror, ray_logs=FakeRayLogs())
    assert successor.report("job-1", 1, training()) is RunCommand.PAUSE
    successor.close()


def test_run_that_does_not_pause_is_stopped(settings: Settings, ray_jobs: FakeRayJobs) -> None:
    tracker = JobTracker(
        settings.model_copy(update={"pause_timeout_s": 1e-6}), ray_jobs, mirror=no_mirror, ray_logs=FakeRayLogs()
    )
    tracker.add_dataset(dataset_record())
    start(tracker)
    tracker.pause_job("job-1")
    wait_until(lambda: tracker.job("job-1").status is JobStatus.PAUSED)
    assert ray_jobs.stopped == ["sienn-job-1-1"]
    tracker.close()


def test_end_of_a_cancelled_run_is_noticed_soon(tracker: JobTracker, ray_jobs: FakeRayJobs) -> None:
    """However long it is to the next look at the others."""
    ray_jobs.stops_at_once = False
    start(tracker)
    tracker.cancel_job("job-1")
    wait_until(lambda: ray_jobs.stopped)
    ray_jobs.end("sienn-job-1-1", RayJobState.STOPPED)
    wait_until(lambda: tracker.job("job-1").ended_at)


# Words that come too late


def refused_ends(tracker: JobTracker, job_id: str, attempt: int = 1) -> None:
    """Have an attempt tell of each end that there is, all of which are refused."""
    with pytest.raises(FencedError):
        tracker.complete(job_id, attempt, run_summary())
    with pytest.raises(FencedError):
        tracker.fail(job_id, attempt, FailureReason.INTERNAL, "SIGTERM")
    with pytest.raises(FencedError):
        tracker.pause(job_id, attempt)


def test_run_of_a_cancelled_job_is_fenced(tracker: JobTracker, ray_jobs: FakeRayJobs) -> None:
    ray_jobs.stops_at_once = False
    start(tracker)
    tracker.cancel_job("job-1")
    wait_until(lambda: ray_jobs.stopped)
    before = tracker.job("job-1")
    assert tracker.report("job-1", 1, training()) is RunCommand.STOP
    refused_ends(tracker, "job-1")
    assert tracker.job("job-1") == before


def test_run_of_a_deleted_job_is_fenced(tracker: JobTracker) -> None:
    assert tracker.report("gone", 1, training()) is RunCommand.STOP
    refused_ends(tracker, "gone")


def test_end_may_be_told_twice(tracker: JobTracker) -> None:
    start(tracker)
    for _ in range(2):
        tracker.complete("job-1", 1, run_summary())
    assert [event.kind for event in tracker.events("job-1", 0, 99)] == ["created", "started", "completed"]


def test_second_end_of_another_kind_is_refused(tracker: JobTracker) -> None:
    start(tracker)
    tracker.complete("job-1", 1, run_summary())
    with pytest.raises(FencedError, match="is 'completed' with attempt 1 and doesn't await attempt 1 any more"):
        tracker.fail("job-1", 1, FailureReason.INTERNAL, "words")
    assert tracker.job("job-1").status is JobStatus.COMPLETED


def test_earlier_attempt_is_fenced(tracker: JobTracker) -> None:
    start(tracker)
    tracker.fail("job-1", 1, FailureReason.STORAGE, "the bucket is away")
    tracker.retry_job("job-1")
    wait_until(lambda: tracker.job("job-1").attempt == 2)
    assert tracker.report("job-1", 1, training()) is RunCommand.STOP
    refused_ends(tracker, "job-1")
    assert tracker.job("job-1").status is JobStatus.RUNNING
    assert tracker.metric_points("job-1", 10) == []
    assert tracker.report("job-1", 2, training()) is RunCommand.GO_ON


def test_run_that_was_taken_for_lost_keeps_its_checkpoints(tracker: JobTracker) -> None:
    """Its program deletes them once the end is noted; the next attempt needs them."""
    start(tracker)
    tracker._store.jobs.requeue("job-1", 1, "its Ray job is gone")
    with pytest.raises(FencedError):
        tracker.complete("job-1", 1, run_summary())


@pytest.mark.parametrize("word", ["report", "complete"])
def test_first_word_of_an_attempt_confirms_its_start(tracker: JobTracker, ray_jobs: FakeRayJobs, word: str) -> None:
    """Ray's job API has taken it, and didn't say so."""
    ray_jobs.answer_is_lost = True
    tracker.add_job(job_record())
    wait_until(lambda: ray_jobs.submitted and tracker.job("job-1").submission_id)
    assert (tracker.job("job-1").status, tracker.job("job-1").attempt) == (JobStatus.PENDING, 0)
    if word == "report":
        assert tracker.report("job-1", 1, training()) is RunCommand.GO_ON
    else:
        tracker.complete("job-1", 1, run_summary())
    job = tracker.job("job-1")
    assert (job.attempt, job.submission_id) == (1, "sienn-job-1-1")
    assert job.status is (JobStatus.RUNNING if word == "report" else JobStatus.COMPLETED)
    kinds = [event.kind for event in tracker.events("job-1", 0, 99)]
    assert kinds == ["created", "started", "phase" if word == "report" else "completed"]


def test_message_is_one_plain_bounded_line(tracker: JobTracker) -> None:
    start(tracker)
    tracker.fail("job-1", 1, FailureReason.INTERNAL, "\x1b[31mValueError:\x1b[0m wrong\n  shape\n" + "x" * 20_000)
    message = tracker.job("job-1").message
    assert message.startswith("ValueError: wrong shape xxx")
    assert len(message) == 600
    assert tracker.events("job-1", 0, 99)[-1].message == message


# Around the jobs


def test_restart_loses_nothing(tracker: JobTracker, settings: Settings, ray_jobs: FakeRayJobs) -> None:
    start(tracker)
    tracker.cancel_job("job-1")
    wait_until(lambda: ray_jobs.stopped)
    successor = JobTracker(settings, ray_jobs, mirror=no_mirror, ray_logs=FakeRayLogs())
    wait_until(lambda: successor.job("job-1").ended_at)
    assert successor.job("job-1").phase == "cancelled"
    assert [dataset.id for dataset in successor.datasets().records] == ["dataset-1"]
    successor.close()


def test_supervision_goes_on_after_trouble(tracker: JobTracker, ray_jobs: FakeRayJobs) -> None:
    ray_jobs.is_reachable = False
    tracker.add_job(job_record())
    wait_until(lambda: "Waiting for Ray's job API" in tracker.job("job-1").message)
    ray_jobs.is_reachable = True
    tracker.add_job(job_record("job-2"))  # wakes it up, while the first one is in back-off
    wait_until(lambda: tracker.job("job-2").started_at)


def test_metrics_are_kept(tracker: JobTracker) -> None:
    batch = MetricBatch("source", 1, (Sample("sienn_x_total", (), 2.0),))
    for _ in range(2):
        tracker.add_metrics(batch)
    samples = {sample.name: sample.value for sample in tracker.metric_samples() if not sample.labels}
    assert (samples["sienn_x_total"], samples["sienn_datasets"]) == (2.0, 1.0)


@pytest.mark.parametrize(("address", "gcs"), [("", "Ray GCS"), ("redis:6379", "Ray GCS with Redis")])
def test_health(tracker: JobTracker, monkeypatch: pytest.MonkeyPatch, address: str, gcs: str) -> None:
    monkeypatch.setenv("RAY_REDIS_ADDRESS", address)
    health = tracker.health()
    assert health.database_response_s is not None
    assert 0 < health.database_response_s < DEADLINE_S
    assert (health.database_error, health.gcs) == (None, gcs)
    assert health.database in {"SQLite", "PostgreSQL"}


def test_database_that_is_away_at_the_start(tmp_path: Path, ray_jobs: FakeRayJobs) -> None:
    home = tmp_path / "home"
    home.write_text("no folder")
    tracker = JobTracker(
        Settings(env="test", home=home, job_poll_s=0.02), ray_jobs, mirror=no_mirror, ray_logs=FakeRayLogs()
    )
    with pytest.raises(CapacityError, match="the job database can't be used at the moment; try again in a moment"):
        tracker.add_dataset(dataset_record())
    wait_until(lambda: tracker.health().database_error == "unable to open database file")
    home.unlink()
    wait_until(lambda: tracker.health().database_response_s)  # nobody has asked for anything else
    tracker.add_dataset(dataset_record())
    start(tracker)
    tracker.close()


def test_health_of_a_lost_database(tmp_path: Path, ray_jobs: FakeRayJobs) -> None:
    home = tmp_path / "home"
    tracker = JobTracker(
        Settings(env="test", home=home, job_poll_s=3600), ray_jobs, mirror=no_mirror, ray_logs=FakeRayLogs()
    )
    tracker.close()
    shutil.rmtree(home)
    health = tracker.health()
    assert health.database_response_s is None
    assert "unable to open database file" in str(health.database_error)
