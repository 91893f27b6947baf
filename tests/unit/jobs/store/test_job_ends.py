from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from sienn_ray.errors import ConflictError, FailureReason, NotFoundError, TooManyRequestsError
from sienn_ray.jobs import job_facts
from sienn_ray.jobs.schema import JobPhase, JobQuery, JobRecord, JobStatus
from sienn_ray.jobs.store import tables
from sienn_ray.jobs.store.store import Store
from sienn_ray.training.reporting import Phase, Progress, RunProgress
from tests.support.fakes_jobs import Clock, all_jobs, dataset_record, job_record, stored_job


def kinds(store: Store, job_id: str = "job-1") -> list[str]:
    return [event.kind for event in store.jobs.events(job_id, 0, 1000)]


def counted(store: Store) -> dict[str, float]:
    """Jobs that have ever entered each status."""
    return {dict(s.labels)["status"]: s.value for s in store.metrics.samples() if s.name == "sienn_jobs_total"}


def run(store: Store, job_id: str = "job-1", attempt: int = 1) -> None:
    """Have a job that waits run."""
    store.jobs.update(job_id, status=JobStatus.RUNNING, attempt=attempt)
    store.jobs.note_start(job_id, attempt, f"sienn-{job_id}-{attempt}")


def end(store: Store, status: JobStatus, job_id: str = "job-1") -> None:
    """Have a job that was just added end like this."""
    if status is JobStatus.CANCELLED:
        store.jobs.cancel(job_id)
    else:
        run(store, job_id)
        store.jobs.update(job_id, status=status)


# Cancel


def test_cancelled_while_it_waits(store: Store, clock: Clock) -> None:
    store.jobs.add(job_record())
    job = store.jobs.cancel("job-1")
    assert job == stored_job(store)
    assert (job.status, job.ended_at, job.started_at) == (JobStatus.CANCELLED, clock.now, None)
    assert (job.phase, job.message, job.failure_reason) == ("cancelled", "Cancelled while it waited", None)
    assert store.jobs.stopping() == []
    assert kinds(store) == ["created", "cancelled"]


def test_cancelled_while_it_runs(store: Store, clock: Clock) -> None:
    store.jobs.add(job_record())
    run(store)
    job = store.jobs.cancel("job-1")
    assert (job.status, job.ended_at, job.phase) == (JobStatus.CANCELLED, None, "stopping")
    assert [job.id for job in store.jobs.stopping()] == ["job-1"]
    clock.advance(3)
    store.jobs.note_stop("job-1")
    clock.advance(3)
    store.jobs.note_stop("job-1")
    job = stored_job(store)
    assert (job.status, job.phase) == (JobStatus.CANCELLED, "cancelled")
    assert job.ended_at == job.updated_at
    assert (clock.now - job.updated_at).total_seconds() == 3
    assert store.jobs.stopping() == []
    assert kinds(store) == ["created", "started", "cancelled"]
    assert counted(store)["cancelled"] == 1


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED])
def test_ended_job_can_not_be_cancelled(store: Store, status: JobStatus) -> None:
    store.jobs.add(job_record())
    end(store, status)
    before = stored_job(store)
    with pytest.raises(ConflictError, match=f"^Job job-1 is already '{status}'; only pending, running and paused"):
        store.jobs.cancel("job-1")
    assert stored_job(store) == before
    store.jobs.note_stop("job-1")
    assert stored_job(store) == before


def test_job_that_is_stopping_is_not_cancelled_twice(store: Store) -> None:
    store.jobs.add(job_record())
    run(store)
    store.jobs.cancel("job-1")
    with pytest.raises(ConflictError):
        store.jobs.cancel("job-1")
    assert counted(store)["cancelled"] == 1


def test_cancelled_and_completed_never_overwrite_each_other(store: Store) -> None:
    for number in range(12):
        job_id = f"job-{number}"
        store.jobs.add(job_record(job_id))
        run(store, job_id)

        def cancel(job_id: str = job_id) -> str | None:
            try:
                return str(store.jobs.cancel(job_id).status)
            except ConflictError:
                return None

        def complete(job_id: str = job_id) -> str | None:
            job = store.jobs.update(job_id, running_attempt=1, status=JobStatus.COMPLETED)
            return "completed" if job.status is JobStatus.COMPLETED else None

        with ThreadPoolExecutor(2) as pool:
            ends = [future.result() for future in (pool.submit(cancel), pool.submit(complete))]
        assert [status for status in ends if status] == [store.jobs.get(job_id).status]
    assert counted(store)["cancelled"] + counted(store)["completed"] == 12


def test_report_of_a_cancelled_job_is_dropped(store: Store) -> None:
    store.jobs.add(job_record())
    run(store)
    before = store.jobs.cancel("job-1")
    store.jobs.report("job-1", 1, Progress(Phase.TRAINING, "Training", 50, current_step=5, current_loss=1.0))
    assert stored_job(store) == before
    assert store.jobs.metric_points("job-1", 10) == []


# Retry


def test_retry_needs_the_adapter_to_start_from_or_a_checkpoint(store: Store) -> None:
    store.jobs.add(job_record())
    run(store)
    store.jobs.update("job-1", status=JobStatus.COMPLETED)
    store.jobs.add(job_record("job-2", from_job="job-1"))
    store.jobs.cancel("job-2")
    assert store.jobs.retry("job-2", has_checkpoint=False).status is JobStatus.PENDING
    store.jobs.cancel("job-2")
    store.jobs.delete("job-1")
    with pytest.raises(ConflictError, match="starts from the adapter of job job-1, which was deleted, and"):
        store.jobs.retry("job-2", has_checkpoint=False)
    assert store.jobs.get("job-2").status is JobStatus.CANCELLED
    assert store.jobs.retry("job-2", has_checkpoint=True).status is JobStatus.PENDING


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED])
def test_retry_starts_anew(store: Store, clock: Clock, status: JobStatus) -> None:
    store.jobs.add(job_record(labels={"a": "b"}, name="n"))
    run(store)
    run_progress = RunProgress(current_step=7, current_loss=0.5, num_tokens=70, train_seconds=7.5)
    store.jobs.update("job-1", progress=60, phase=JobPhase.TRAINING, run=run_progress)
    first_start = clock.now
    clock.advance(60)
    if status is JobStatus.FAILED:
        reason = FailureReason.OUT_OF_MEMORY
        store.jobs.update("job-1", status=status, failure_reason=reason, message="out of memory")
    else:
        store.jobs.cancel("job-1")
        store.jobs.note_stop("job-1")
    clock.advance(60)
    job = store.jobs.retry("job-1")
    assert job == stored_job(store)
    assert (job.status, job.progress, job.failure_reason, job.ended_at) == (JobStatus.PENDING, 60, None, None)
    assert (job.attempt, job.attempt_base, job.submission_id) == (1, 1, None)
    assert (job.started_at, job.created_at, job.labels, job.name) == (first_start, job.created_at, {"a": "b"}, "n")
    assert job_facts.to_flat(job) == {"num_tokens": 70, "train_seconds": 7.5}
    assert kinds(store)[-2:] == ["retried", "queued"]
    assert counted(store)["pending"] == 1

    run(store, attempt=2)
    store.jobs.report("job-1", 2, Progress(Phase.LOADING_MODEL, "Loading", 3))
    assert store.jobs.get("job-1").progress == 60
    store.jobs.report("job-1", 2, Progress(Phase.TRAINING, "Training", 30, current_step=4))
    assert store.jobs.get("job-1").progress == 30
    store.jobs.update("job-1", status=JobStatus.COMPLETED)
    assert counted(store) == {"pending": 1, "running": 1, "completed": 1, **counted_ends(status)}


def counted_ends(status: JobStatus) -> dict[str, float]:
    return {
        "paused": 0.0,
        "failed": float(status is JobStatus.FAILED),
        "cancelled": float(status is JobStatus.CANCELLED),
    }


def test_retried_job_has_its_old_place(store: Store) -> None:
    for number in (1, 2, 3):
        store.jobs.add(job_record(f"job-{number}"))
    store.jobs.cancel("job-2")
    store.jobs.retry("job-2")
    assert [job.id for job in store.jobs.waiting(9)] == ["job-1", "job-2", "job-3"]


@pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.RUNNING, JobStatus.COMPLETED])
def test_only_failed_and_cancelled_jobs_are_retried(store: Store, status: JobStatus) -> None:
    store.jobs.add(job_record())
    if status is not JobStatus.PENDING:
        run(store)
    if status is JobStatus.COMPLETED:
        store.jobs.update("job-1", status=status)
    before = stored_job(store)
    with pytest.raises(ConflictError, match=f"^Job job-1 is '{status}'; only failed and cancelled jobs"):
        store.jobs.retry("job-1")
    assert stored_job(store) == before
    assert "retried" not in kinds(store)


@pytest.mark.parametrize("ask", [lambda store: store.jobs.retry("job-1"), lambda store: store.jobs.delete("job-1")])
def test_job_that_is_stopping_must_stop_first(store: Store, ask: Any) -> None:
    store.jobs.add(job_record())
    run(store)
    store.jobs.cancel("job-1")
    with pytest.raises(ConflictError, match=r"is still (being )?stopp"):
        ask(store)
    store.jobs.note_stop("job-1")
    ask(store)


# Delete


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED])
def test_deleted_job_leaves_nothing(store: Store, status: JobStatus) -> None:
    for job_id in ("job-1", "job-2"):
        store.jobs.add(job_record(job_id, labels={"team": "a"}))
        run(store, job_id)
        store.jobs.report(job_id, 1, Progress(Phase.TRAINING, "Training", 50, current_step=5, current_loss=1.0))
    if status is JobStatus.CANCELLED:
        store.jobs.cancel("job-1")
        store.jobs.note_stop("job-1")
    else:
        store.jobs.update("job-1", status=status)
    total = counted(store)
    before = stored_job(store)
    assert store.jobs.delete("job-1") == before
    with pytest.raises(NotFoundError):
        store.jobs.delete("job-1")
    assert [job.id for job in store.jobs.page(JobQuery(labels={"team": "a"})).jobs] == ["job-2"]
    for table in (tables.job_labels, tables.job_events, tables.job_metric_points):
        with store.database.reading() as connection:
            assert set(connection.scalars(sa.select(table.c.job_id))) == {"job-2"}
    assert counted(store) == total, "what was counted stays"


@pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.RUNNING])
def test_job_that_goes_on_is_not_deleted(store: Store, status: JobStatus) -> None:
    store.jobs.add(job_record())
    if status is JobStatus.RUNNING:
        run(store)
    with pytest.raises(ConflictError, match=f"^Job status is '{status}', and only jobs that have ended can be deleted"):
        store.jobs.delete("job-1")
    assert store.jobs.get("job-1").status is status


def test_events_of_a_deleted_job_do_not_give_their_numbers_away(store: Store) -> None:
    store.jobs.add(job_record())
    store.jobs.cancel("job-1")
    last = store.jobs.events("job-1", 0, 10)[-1].seq
    store.jobs.delete("job-1")
    store.jobs.add(job_record("job-2"))
    assert store.jobs.events("job-2", 0, 10)[0].seq > last


# Datasets in use


def jobs_on(store: Store, number: int, **fields: Any) -> None:
    for index in range(1, number + 1):
        store.jobs.add(job_record(f"job-{index}", **fields))


def test_dataset_is_deleted(store: Store) -> None:
    assert store.datasets.delete("dataset-1") == dataset_record()
    with pytest.raises(NotFoundError, match=r"^Dataset dataset-1 not found$"):
        store.datasets.delete("dataset-1")
    assert store.datasets.page().records == []


@pytest.mark.parametrize(
    ("number", "named"),
    [(1, "1 job uses"), (2, "2 jobs use"), (3, "3 jobs use"), (5, "5 jobs use")],
)
@pytest.mark.parametrize("role", ["dataset_id", "validation_dataset_id"])
def test_dataset_in_use_is_kept(store: Store, number: int, named: str, role: str) -> None:
    store.datasets.add(dataset_record("dataset-2"))
    jobs_on(store, number, **{role: "dataset-2"})
    store.jobs.cancel("job-1")  # one that has ended refers to it all the same
    with pytest.raises(ConflictError) as raised:
        store.datasets.delete("dataset-2")
    message = raised.value.message
    ids = ", ".join(f"job-{index}" for index in range(number, max(0, number - 3), -1))
    assert message.startswith(f"{named} dataset dataset-2: {ids}{', ...' if number > 3 else ''}; delete")
    assert "GET /api/jobs?dataset_id=dataset-2" in message
    assert store.jobs.page(JobQuery(dataset_id="dataset-2")).count == number
    assert store.datasets.get("dataset-2").id == "dataset-2"


def test_dataset_is_free_once_its_jobs_are_deleted(store: Store) -> None:
    jobs_on(store, 1)
    store.jobs.cancel("job-1")
    store.jobs.delete("job-1")
    store.datasets.delete("dataset-1")


def test_dataset_and_a_job_on_it_at_the_same_time(store: Store) -> None:
    """Either the dataset goes and the job is refused, or the job comes and the dataset stays."""
    for number in range(8):
        store.datasets.add(dataset_record(f"dataset-x{number}"))

        def add(number: int = number) -> None:
            store.jobs.add(job_record(f"job-x{number}", dataset_id=f"dataset-x{number}"))

        def delete(number: int = number) -> None:
            store.datasets.delete(f"dataset-x{number}")

        with ThreadPoolExecutor(2) as pool:
            errors = [future.exception() for future in (pool.submit(add), pool.submit(delete))]
        assert [type(error) for error in errors if error] in ([NotFoundError], [ConflictError])


# The same bytes


def test_same_bytes_are_noticed(store: Store) -> None:
    assert store.datasets.get("dataset-1").duplicate_of is None
    assert store.datasets.add(dataset_record("dataset-2")).duplicate_of == "dataset-1"
    assert store.datasets.add(dataset_record("dataset-3")).duplicate_of == "dataset-1"
    assert store.datasets.add(dataset_record("dataset-4", sha256="1" * 64)).duplicate_of is None
    assert [record.duplicate_of for record in store.datasets.page().records] == [None, "dataset-1", "dataset-1", None]
    assert store.datasets.add(dataset_record("dataset-1", filename="again.csv")).duplicate_of is None
    store.datasets.delete("dataset-1")
    assert store.datasets.add(dataset_record("dataset-5")).duplicate_of == "dataset-2"


# Repeated requests


def keyed(job_id: str, key: str = "key", request_hash: str = "a") -> JobRecord:
    return job_record(job_id, idempotency_key=key, request_hash=request_hash)


def test_same_key_gives_the_same_job(store: Store) -> None:
    first = store.jobs.add(keyed("job-1"))
    run(store)
    again = store.jobs.add(keyed("job-2"))
    assert (again.id, again.status, first.status) == ("job-1", JobStatus.RUNNING, JobStatus.PENDING)
    assert [job.id for job in all_jobs(store)] == ["job-1"]
    assert store.jobs.of_key("key") == again
    assert store.jobs.of_key("other") is None
    assert counted(store)["pending"] == 1


def test_same_key_with_another_request_is_refused(store: Store) -> None:
    store.jobs.add(keyed("job-1"))
    with pytest.raises(ConflictError, match=r"^Idempotency-Key 'key' came with another request before, .* job job-1;"):
        store.jobs.add(keyed("job-2", request_hash="b"))
    assert len(all_jobs(store)) == 1


def test_repeat_is_answered_whatever_has_changed_since(store: Store) -> None:
    store.jobs.add(keyed("job-1"), 1)
    assert store.jobs.add(keyed("job-2"), 1).id == "job-1", "the queue is full"
    assert store.jobs.add(keyed("job-3").model_copy(update={"dataset_id": "nope"}), 1).id == "job-1"


def test_key_of_a_deleted_job_is_free(store: Store) -> None:
    store.jobs.add(keyed("job-1"))
    store.jobs.cancel("job-1")
    store.jobs.delete("job-1")
    assert store.jobs.of_key("key") is None
    assert store.jobs.add(keyed("job-2", request_hash="b")).id == "job-2"


def test_jobs_without_a_key_are_all_different(store: Store) -> None:
    for number in (1, 2):
        store.jobs.add(job_record(f"job-{number}", request_hash="a"))
    assert len(all_jobs(store)) == 2


def test_race_of_two_equal_requests_makes_one_job(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = {job.id for job in pool.map(lambda number: store.jobs.add(keyed(f"job-{number}")), range(8))}
    assert len(ids) == len(all_jobs(store)) == 1


def test_race_of_two_trackers_is_settled_by_the_database(store: Store, database_url: str) -> None:
    other = Store(database_url)
    with ThreadPoolExecutor(8) as pool:
        adding = [pool.submit((store, other)[number % 2].jobs.add, keyed(f"job-{number}")) for number in range(8)]
    assert len({future.result().id for future in adding}) == len(all_jobs(store)) == 1
    other.close()


# A full queue


def test_full_queue_takes_no_more(store: Store) -> None:
    store.jobs.add(job_record("job-1"), 2)
    store.jobs.add(job_record("job-2"), 2)
    with pytest.raises(TooManyRequestsError, match=r"^2 jobs wait already and SIENN_MAX_PENDING_JOBS is 2; ") as raised:
        store.jobs.add(job_record("job-3"), 2)
    assert raised.value.retry_after_s == 60
    assert store.jobs.add(job_record("job-2"), 2).id == "job-2"
    store.jobs.add(job_record("by-hand", status=JobStatus.RUNNING, attempt=1, submission_id="raysubmit_1"), 2)
    run(store)
    store.jobs.add(job_record("job-3"), 2)
    assert counted(store)["pending"] == 4
