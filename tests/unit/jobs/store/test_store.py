from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sienn_ray.errors import FailureReason, NotFoundError, TransitionError
from sienn_ray.jobs.schema import JobPhase, JobStatus
from sienn_ray.jobs.store import tables
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.transitions import JOB_TRANSITIONS
from sienn_ray.training.config import LoraSettings, TrainingConfig
from sienn_ray.training.reporting import RunProgress
from tests.support.fakes_jobs import MOMENT, all_jobs, dataset_record, job_record, stored_job

# How a job gets from being added to each status.
WAY_TO: dict[JobStatus, list[JobStatus]] = {
    JobStatus.PENDING: [],
    JobStatus.RUNNING: [JobStatus.RUNNING],
    JobStatus.PAUSED: [JobStatus.PAUSED],
    JobStatus.COMPLETED: [JobStatus.RUNNING, JobStatus.COMPLETED],
    JobStatus.FAILED: [JobStatus.FAILED],
    JobStatus.CANCELLED: [JobStatus.CANCELLED],
}


# Adding and reading


def test_records_come_back_as_they_were_added(store: Store) -> None:
    job = job_record(
        config=TrainingConfig(base_model="owner/model", learning_rate=3e-5, seed=7, lora=LoraSettings(r=8)),
        status=JobStatus.RUNNING,
        attempt=2,
        submission_id="sienn-job-1-2",
        failure_reason=FailureReason.WORKER_LOST,
        facts={"current_loss": 0.25, "history": [{"epoch": 1}], "note": "größer"},
        validation_dataset_id="dataset-1",
        name="Fähre ⛴",
        labels={"team": "kestrel", "größe": ""},
        idempotency_key="key-1",
        request_hash="f" * 64,
        attempt_base=1,
        started_at=MOMENT,
        ended_at=MOMENT + timedelta(minutes=1),
    )
    assert store.jobs.add(job) == job
    assert stored_job(store) == job
    assert store.jobs.get("job-1") == job
    assert store.datasets.get("dataset-1") == dataset_record()


def test_job_of_a_version_with_fewer_hyperparameters_is_read(store: Store) -> None:
    store.jobs.add(job_record())
    config = {"base_model": "owner/model", "num_epochs": 2, "lora": {"r": 8, "lora_alpha": 16}}
    with store.database.writing() as connection:
        connection.execute(sa.update(tables.jobs).values(config=config))
    job = store.jobs.get("job-1")
    assert (job.config.num_epochs, job.config.lora.r, job.config.lora.use_dora) == (2, 8, False)
    assert (job.config.min_workers, job.config.precision, job.config.sharding) == (None, "auto", "auto")


def test_adding_again_changes_nothing(store: Store) -> None:
    store.jobs.add(job_record())
    store.jobs.update("job-1", status=JobStatus.RUNNING, message="running")
    assert store.jobs.add(job_record(message="added again")).message == "running"
    assert store.datasets.add(dataset_record(filename="other.csv")) == dataset_record()
    assert (len(all_jobs(store)), len(store.datasets.page().records)) == (1, 1)


def test_concurrent_adding_keeps_one(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.jobs.add(job_record()), range(8)))
    assert len(all_jobs(store)) == 1


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda store: store.datasets.get("nope"), "Dataset nope not found"),
        (lambda store: store.jobs.get("nope"), "Job nope not found"),
        (lambda store: store.jobs.update("nope", progress=1), "Job nope not found"),
        (lambda store: store.jobs.add(job_record(dataset_id="nope")), "Dataset nope not found"),
        (lambda store: store.jobs.add(job_record(validation_dataset_id="nope")), "Dataset nope not found"),
        (lambda store: store.datasets.delete("nope"), "Dataset nope not found"),
        (lambda store: store.jobs.cancel("nope"), "Job nope not found"),
        (lambda store: store.jobs.retry("nope"), "Job nope not found"),
        (lambda store: store.jobs.delete("nope"), "Job nope not found"),
        (lambda store: store.jobs.events("nope", 0, 10), "Job nope not found"),
        (lambda store: store.jobs.metric_points("nope", 10), "Job nope not found"),
    ],
)
def test_unknown_ids(store: Store, ask: Any, message: str) -> None:
    with pytest.raises(NotFoundError, match=f"^{message}$"):
        ask(store)
    assert all_jobs(store) == []


def test_lists_are_newest_first_by_arrival(store: Store) -> None:
    for number, days in [(1, 5), (2, 9), (3, 1)]:  # clocks differ between machines; arrival counts
        store.jobs.add(job_record(f"job-{number}", created_at=MOMENT - timedelta(days=days)))
    store.datasets.add(dataset_record("dataset-2"))
    assert [job.id for job in all_jobs(store)] == ["job-3", "job-2", "job-1"]
    assert [dataset.id for dataset in store.datasets.page().records] == ["dataset-2", "dataset-1"]


def test_jobs_of_one_status(store: Store) -> None:
    for number in (1, 2, 3):
        store.jobs.add(job_record(f"job-{number}"))
    store.jobs.update("job-2", status=JobStatus.RUNNING)
    assert [job.id for job in all_jobs(store, JobStatus.PENDING)] == ["job-3", "job-1"]
    assert [job.id for job in all_jobs(store, JobStatus.RUNNING)] == ["job-2"]
    assert all_jobs(store, JobStatus.COMPLETED) == []


# Changing


@pytest.mark.parametrize(("current", "new"), list(itertools.product(JobStatus, repeat=2)))
def test_status_changes_follow_the_table(store: Store, current: JobStatus, new: JobStatus) -> None:
    store.jobs.add(job_record())
    for status in WAY_TO[current]:
        store.jobs.update("job-1", status=status)
    before = stored_job(store, "job-1")
    if new in JOB_TRANSITIONS[current]:
        store.jobs.update("job-1", status=new, message="changed", phase=JobPhase.TRAINING)
        assert (stored_job(store, "job-1").status, stored_job(store, "job-1").message) == (new, "changed")
        return
    with pytest.raises(TransitionError, match="job-1"):
        store.jobs.update("job-1", status=new, message="changed", phase=JobPhase.TRAINING)
    assert stored_job(store, "job-1") == before


def test_only_named_fields_change(store: Store) -> None:
    store.jobs.add(job_record("job-1"))
    store.jobs.add(job_record("job-2"))
    updated = store.jobs.update("job-1", progress=40, failure_reason=FailureReason.DIVERGED)
    assert stored_job(store, "job-1") == updated
    changed = {"progress": 40, "failure_reason": FailureReason.DIVERGED, "updated_at": updated.updated_at}
    assert updated == job_record("job-1").model_copy(update=changed)
    assert updated.updated_at > MOMENT
    assert stored_job(store, "job-2") == job_record("job-2")


def test_a_field_can_be_emptied(store: Store) -> None:
    store.jobs.add(job_record(submission_id="sienn-job-1-1"))
    assert store.jobs.update("job-1", submission_id=None).submission_id is None
    assert stored_job(store, "job-1").submission_id is None


def test_facts_are_merged(store: Store) -> None:
    store.jobs.add(job_record(phase=JobPhase.STARTING, run=RunProgress(total_epochs=3)))
    store.jobs.update("job-1", phase=JobPhase.TRAINING, run=RunProgress(current_loss=0.5))
    store.jobs.update("job-1", progress=10)
    store.jobs.update("job-1", run=RunProgress())
    job = stored_job(store, "job-1")
    assert (job.phase, job.run) == (JobPhase.TRAINING, RunProgress(total_epochs=3, current_loss=0.5))


def test_concurrent_changes_are_all_kept(store: Store) -> None:
    store.jobs.add(job_record())
    names = [field.name for field in fields(RunProgress) if "dict" not in str(field.type)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.jobs.update("job-1", run=RunProgress(**dict[str, Any]({name: 1}))), names))
    assert stored_job(store, "job-1").run.known() == dict.fromkeys(names, 1)


def test_only_one_of_two_ends_counts(store: Store) -> None:
    store.jobs.add(job_record(status=JobStatus.RUNNING))

    def end(status: JobStatus) -> JobStatus | None:
        try:
            return store.jobs.update("job-1", status=status).status
        except TransitionError:
            return None

    with ThreadPoolExecutor(8) as pool:
        ends = [status for status in pool.map(end, [JobStatus.COMPLETED, JobStatus.FAILED] * 4) if status]
    assert ends == [stored_job(store, "job-1").status]


# Time and files


def test_times_keep_their_moment_and_come_back_in_utc(store: Store) -> None:
    local = datetime(2025, 7, 1, 1, 30, 0, 123_456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    store.jobs.add(job_record(created_at=local, updated_at=local))
    store.datasets.add(dataset_record("dataset-2", created_at=local))
    for moment in (
        stored_job(store, "job-1").created_at,
        stored_job(store, "job-1").updated_at,
        store.datasets.get("dataset-2").created_at,
    ):
        assert moment == local
        assert moment.tzinfo == UTC
    assert store.jobs.update("job-1", progress=1).created_at == local
    assert stored_job(store, "job-1").created_at == local


def test_reopening_keeps_everything(store: Store, database_url: str) -> None:
    store.jobs.add(job_record("job-1", run=RunProgress(current_loss=0.5)))
    store.jobs.add(job_record("job-2"))
    store.jobs.update("job-1", status=JobStatus.RUNNING)
    jobs, datasets = all_jobs(store), store.datasets.page().records
    store.close()
    reopened = Store(database_url)  # migrations run again, and find nothing to do
    assert all_jobs(reopened) == jobs
    assert reopened.datasets.page().records == datasets
    reopened.jobs.add(job_record("job-3"))
    assert [job.id for job in all_jobs(reopened)] == ["job-3", "job-2", "job-1"]
    reopened.close()


def test_killed_writer_leaves_what_it_committed(store: Store, database_url: str) -> None:
    store.jobs.add(job_record())
    store.jobs.update("job-1", status=JobStatus.RUNNING)
    successor = Store(database_url)  # the first one was never closed
    assert successor.jobs.get("job-1").status is JobStatus.RUNNING
    successor.close()


@pytest.mark.parametrize("folder", ["with space", "100%", "ünïcode"])
def test_database_may_be_in_any_folder(tmp_path: Path, folder: str) -> None:
    store = Store(f"sqlite:///{tmp_path / folder / 'sienn.db'}")
    store.datasets.add(dataset_record())
    assert (tmp_path / folder / "sienn.db").is_file()
    store.close()


# What a running attempt may change


@pytest.mark.parametrize(
    ("status", "attempt", "is_changed"),
    [
        (JobStatus.RUNNING, 2, True),
        (JobStatus.RUNNING, 3, False),
        (JobStatus.PENDING, 2, False),
        (JobStatus.COMPLETED, 2, False),
    ],
)
def test_only_the_running_attempt_changes_a_job(
    store: Store, status: JobStatus, attempt: int, is_changed: bool
) -> None:
    store.datasets.add(dataset_record())
    before = store.jobs.add(job_record(status=status, attempt=attempt, message="before"))
    returned = store.jobs.update("job-1", running_attempt=2, message="after")
    assert returned == stored_job(store, "job-1")
    assert returned.message == ("after" if is_changed else "before")
    assert (returned == before) is not is_changed


def test_progress_never_goes_back(store: Store) -> None:
    store.datasets.add(dataset_record())
    store.jobs.add(job_record(status=JobStatus.RUNNING))
    assert [store.jobs.update("job-1", progress=percent).progress for percent in (5, 40, 7, 41)] == [5, 40, 40, 41]
