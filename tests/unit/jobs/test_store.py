from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from sienn_ray.errors import FailureReason, NotFoundError, TransitionError
from sienn_ray.jobs import store as store_module
from sienn_ray.jobs.schema import TRANSITIONS, DatasetRecord, JobRecord, JobStatus
from sienn_ray.jobs.store import Store
from sienn_ray.training.config import LoraSettings, TrainingConfig
from tests.fakes_jobs import MOMENT, dataset_record, job_record

# How a job gets from being added to each status.
WAY_TO: dict[JobStatus, list[JobStatus]] = {
    JobStatus.PENDING: [],
    JobStatus.RUNNING: [JobStatus.RUNNING],
    JobStatus.COMPLETED: [JobStatus.RUNNING, JobStatus.COMPLETED],
    JobStatus.FAILED: [JobStatus.FAILED],
}


@pytest.fixture
def inspector(store: Store, database_url: str) -> Iterator[sa.Inspector]:
    """Sees the tables as the migrations made them."""
    engine = sa.create_engine(database_url, poolclass=NullPool)
    yield sa.inspect(engine)
    engine.dispose()


# Schema


@pytest.mark.parametrize("name", ["datasets", "jobs"])
def test_migrations_make_the_tables_that_queries_use(inspector: sa.Inspector, name: str) -> None:
    described = store_module._metadata.tables[name]
    made = {column["name"]: column["type"] for column in inspector.get_columns(name)}
    assert list(made) == [column.name for column in described.columns]
    assert {name: kind._type_affinity for name, kind in made.items()} == {
        column.name: column.type._type_affinity for column in described.columns
    }


@pytest.mark.parametrize(("name", "record"), [("datasets", DatasetRecord), ("jobs", JobRecord)])
def test_every_field_of_a_record_has_its_column(inspector: sa.Inspector, name: str, record: Any) -> None:
    assert {column["name"] for column in inspector.get_columns(name)} == {"seq", *record.model_fields}
    optional = {"failure_reason", "submission_id"}
    assert {column["name"] for column in inspector.get_columns(name) if column["nullable"]} <= optional


def test_tables_and_keys(inspector: sa.Inspector) -> None:
    assert set(inspector.get_table_names()) == {"datasets", "jobs", "alembic_version"}
    for name in ("datasets", "jobs"):
        assert inspector.get_pk_constraint(name)["constrained_columns"] == ["seq"]
        assert [key["column_names"] for key in inspector.get_unique_constraints(name)] == [["id"]]
    (foreign_key,) = inspector.get_foreign_keys("jobs")
    assert (foreign_key["constrained_columns"], foreign_key["referred_table"]) == (["dataset_id"], "datasets")


# Adding and reading


def test_records_come_back_as_they_were_added(store: Store) -> None:
    job = job_record(
        config=TrainingConfig(base_model="owner/model", learning_rate=3e-5, seed=7, lora=LoraSettings(r=8)),
        status=JobStatus.RUNNING,
        attempt=2,
        submission_id="sienn-job-1-2",
        failure_reason=FailureReason.WORKER_LOST,
        facts={"current_loss": 0.25, "history": [{"epoch": 1}], "note": "größer"},
    )
    assert store.add_job(job) == job
    assert store.job("job-1") == job
    assert store.dataset("dataset-1") == dataset_record()


def test_adding_again_changes_nothing(store: Store) -> None:
    store.add_job(job_record())
    store.update_job("job-1", status=JobStatus.RUNNING, message="running")
    assert store.add_job(job_record(message="added again")).message == "running"
    assert store.add_dataset(dataset_record(filename="other.csv")) == dataset_record()
    assert (len(store.jobs()), len(store.datasets())) == (1, 1)


def test_concurrent_adding_keeps_one(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.add_job(job_record()), range(8)))
    assert len(store.jobs()) == 1


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda store: store.dataset("nope"), "Dataset nope not found"),
        (lambda store: store.job("nope"), "Job nope not found"),
        (lambda store: store.update_job("nope", progress=1), "Job nope not found"),
        (lambda store: store.add_job(job_record(dataset_id="nope")), "Dataset nope not found"),
    ],
)
def test_unknown_ids(store: Store, ask: Any, message: str) -> None:
    with pytest.raises(NotFoundError, match=f"^{message}$"):
        ask(store)
    assert store.jobs() == []


def test_id_is_data_and_not_sql(store: Store) -> None:
    with pytest.raises(NotFoundError):
        store.job("' OR '1'='1")
    store.add_job(job_record("'; DROP TABLE jobs; --"))
    assert [job.id for job in store.jobs()] == ["'; DROP TABLE jobs; --"]


def test_lists_are_newest_first_by_arrival(store: Store) -> None:
    for number, days in [(1, 5), (2, 9), (3, 1)]:  # clocks differ between machines; arrival counts
        store.add_job(job_record(f"job-{number}", created_at=MOMENT - timedelta(days=days)))
    store.add_dataset(dataset_record("dataset-2"))
    assert [job.id for job in store.jobs()] == ["job-3", "job-2", "job-1"]
    assert [dataset.id for dataset in store.datasets()] == ["dataset-2", "dataset-1"]


def test_jobs_of_one_status(store: Store) -> None:
    for number in (1, 2, 3):
        store.add_job(job_record(f"job-{number}"))
    store.update_job("job-2", status=JobStatus.RUNNING)
    assert [job.id for job in store.jobs(JobStatus.PENDING)] == ["job-3", "job-1"]
    assert [job.id for job in store.jobs(JobStatus.RUNNING)] == ["job-2"]
    assert store.jobs(JobStatus.COMPLETED) == []


# Changing


@pytest.mark.parametrize(("current", "new"), list(itertools.product(JobStatus, repeat=2)))
def test_status_changes_follow_the_table(store: Store, current: JobStatus, new: JobStatus) -> None:
    store.add_job(job_record())
    for status in WAY_TO[current]:
        store.update_job("job-1", status=status)
    before = store.job("job-1")
    if new in TRANSITIONS[current]:
        store.update_job("job-1", status=new, message="changed", facts={"phase": "new"})
        assert (store.job("job-1").status, store.job("job-1").message) == (new, "changed")
        return
    with pytest.raises(TransitionError, match="job-1"):
        store.update_job("job-1", status=new, message="changed", facts={"phase": "new"})
    assert store.job("job-1") == before


def test_only_named_fields_change(store: Store) -> None:
    store.add_job(job_record("job-1"))
    store.add_job(job_record("job-2"))
    updated = store.update_job("job-1", progress=40, failure_reason=FailureReason.DIVERGED)
    assert store.job("job-1") == updated
    changed = {"progress": 40, "failure_reason": FailureReason.DIVERGED, "updated_at": updated.updated_at}
    assert updated == job_record("job-1").model_copy(update=changed)
    assert updated.updated_at > MOMENT
    assert store.job("job-2") == job_record("job-2")


def test_a_field_can_be_emptied(store: Store) -> None:
    store.add_job(job_record(submission_id="sienn-job-1-1"))
    assert store.update_job("job-1", submission_id=None).submission_id is None
    assert store.job("job-1").submission_id is None


def test_facts_are_merged(store: Store) -> None:
    store.add_job(job_record(facts={"phase": "starting", "total_epochs": 3}))
    store.update_job("job-1", facts={"phase": "training", "current_loss": 0.5})
    store.update_job("job-1", progress=10)
    store.update_job("job-1", facts={})
    assert store.job("job-1").facts == {"phase": "training", "total_epochs": 3, "current_loss": 0.5}


def test_concurrent_changes_are_all_kept(store: Store) -> None:
    store.add_job(job_record())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.update_job("job-1", facts={f"fact-{number}": number}), range(24)))
    assert store.job("job-1").facts == {f"fact-{number}": number for number in range(24)}


def test_only_one_of_two_ends_counts(store: Store) -> None:
    store.add_job(job_record(status=JobStatus.RUNNING))

    def end(status: JobStatus) -> JobStatus | None:
        try:
            return store.update_job("job-1", status=status).status
        except TransitionError:
            return None

    with ThreadPoolExecutor(8) as pool:
        ends = [status for status in pool.map(end, [JobStatus.COMPLETED, JobStatus.FAILED] * 4) if status]
    assert ends == [store.job("job-1").status]


# Time and files


def test_times_keep_their_moment_and_come_back_in_utc(store: Store) -> None:
    local = datetime(2025, 7, 1, 1, 30, 0, 123_456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    store.add_job(job_record(created_at=local, updated_at=local))
    store.add_dataset(dataset_record("dataset-2", created_at=local))
    for moment in (store.job("job-1").created_at, store.job("job-1").updated_at, store.dataset("dataset-2").created_at):
        assert moment == local
        assert moment.tzinfo == UTC
    assert store.update_job("job-1", progress=1).created_at == local
    assert store.job("job-1").created_at == local


def test_reopening_keeps_everything(store: Store, database_url: str) -> None:
    store.add_job(job_record("job-1", facts={"current_loss": 0.5}))
    store.add_job(job_record("job-2"))
    store.update_job("job-1", status=JobStatus.RUNNING)
    jobs, datasets = store.jobs(), store.datasets()
    store.close()
    reopened = Store(database_url)  # migrations run again, and find nothing to do
    assert reopened.jobs() == jobs
    assert reopened.datasets() == datasets
    reopened.add_job(job_record("job-3"))
    assert [job.id for job in reopened.jobs()] == ["job-3", "job-2", "job-1"]
    reopened.close()


def test_killed_writer_leaves_what_it_committed(store: Store, database_url: str) -> None:
    store.add_job(job_record())
    store.update_job("job-1", status=JobStatus.RUNNING)
    successor = Store(database_url)  # the first one was never closed
    assert successor.job("job-1").status is JobStatus.RUNNING
    successor.close()


@pytest.mark.parametrize("folder", ["with space", "100%", "ünïcode"])
def test_database_may_be_in_any_folder(tmp_path: Path, folder: str) -> None:
    store = Store(f"sqlite:///{tmp_path / folder / 'sienn.db'}")
    store.add_dataset(dataset_record())
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
    store.add_dataset(dataset_record())
    before = store.add_job(job_record(status=status, attempt=attempt, message="before"))
    returned = store.update_job("job-1", running_attempt=2, message="after")
    assert returned == store.job("job-1")
    assert returned.message == ("after" if is_changed else "before")
    assert (returned == before) is not is_changed


def test_progress_never_goes_back(store: Store) -> None:
    store.add_dataset(dataset_record())
    store.add_job(job_record(status=JobStatus.RUNNING))
    assert [store.update_job("job-1", progress=percent).progress for percent in (5, 40, 7, 41)] == [5, 40, 40, 41]
