from __future__ import annotations

from pathlib import Path

import pytest

from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.supervision.log_keeper import LogKeeper
from sienn_ray.storage import Storage
from tests.support.fakes_jobs import Clock, FakeRayLogs, job_record

FIRST, SECOND = "sienn-job-1-1", "sienn-job-1-2"
KEPT = "logs/job-1/{}/program.log"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}/storage")


@pytest.fixture
def ray_logs() -> FakeRayLogs:
    return FakeRayLogs()


@pytest.fixture
def keeper(store: Store, ray_logs: FakeRayLogs, storage: Storage) -> LogKeeper:
    """With a job of which the first attempt runs."""
    store.jobs.add(job_record())
    start(store, 1)
    ray_logs.chunks[FIRST] = [b"step 1\n", b"step 2\n"]
    return LogKeeper(store.attempt_logs, ray_logs, storage, max_bytes=1024, max_tries=5, clock_s=lambda: 0.0)


def start(store: Store, attempt: int) -> None:
    store.jobs.update("job-1", status=JobStatus.RUNNING, attempt=attempt)
    store.jobs.note_start("job-1", attempt, f"sienn-job-1-{attempt}")


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED])
def test_log_of_an_attempt_is_kept_once_it_has_ended(
    store: Store, ray_logs: FakeRayLogs, storage: Storage, keeper: LogKeeper, clock: Clock, status: JobStatus
) -> None:
    ray_logs.running.add(FIRST)
    keeper.step()
    store.jobs.update("job-1", status=status)
    keeper.step()
    assert not storage.exists("logs"), "its program runs still"
    ray_logs.running.clear()
    clock.advance(5)
    keeper.step()
    assert storage.read_bytes(KEPT.format(1)) == b"step 1\nstep 2\n"
    assert store.attempt_logs.due() == []


def test_logs_of_lost_attempts_are_kept_too(
    store: Store, ray_logs: FakeRayLogs, storage: Storage, keeper: LogKeeper
) -> None:
    store.jobs.requeue("job-1", 1, "lost")
    start(store, 2)
    ray_logs.chunks[SECOND] = [b"resumed\n"]
    keeper.step()
    assert storage.read_bytes(KEPT.format(1)) == b"step 1\nstep 2\n"
    assert not storage.exists(KEPT.format(2))
    store.jobs.update("job-1", status=JobStatus.FAILED)
    keeper.step()
    assert storage.read_bytes(KEPT.format(2)) == b"resumed\n"


def test_cluster_that_is_gone_has_none(
    store: Store, ray_logs: FakeRayLogs, storage: Storage, keeper: LogKeeper
) -> None:
    ray_logs.chunks.clear()
    store.jobs.update("job-1", status=JobStatus.FAILED)
    keeper.step()
    assert store.attempt_logs.due() == []
    assert not storage.exists("logs")


def test_ray_that_does_not_answer_is_asked_again_later_and_not_for_ever(
    store: Store, ray_logs: FakeRayLogs, storage: Storage, keeper: LogKeeper, clock: Clock
) -> None:
    store.jobs.update("job-1", status=JobStatus.FAILED)
    ray_logs.error = ConnectionError("no answer")
    keeper.step()
    assert store.attempt_logs.due() == []
    clock.advance(2)
    ray_logs.error = None
    keeper.step()
    assert storage.exists(KEPT.format(1))
    store.jobs.retry("job-1")
    start(store, 2)
    store.jobs.update("job-1", status=JobStatus.FAILED)
    ray_logs.error = ConnectionError("no answer")
    for _ in range(6):
        keeper.step()
        clock.advance(600)
    assert store.attempt_logs.due() == []


def test_log_that_trickles_is_given_up(store: Store, ray_logs: FakeRayLogs, storage: Storage, clock: Clock) -> None:
    store.jobs.add(job_record())
    start(store, 1)
    store.jobs.update("job-1", status=JobStatus.FAILED)
    ray_logs.chunks[FIRST] = [b"x"] * 100
    chunks_read: list[str] = []
    ray_logs.on_read = chunks_read.append
    keeper = LogKeeper(
        store.attempt_logs, ray_logs, storage, max_bytes=1024, deadline_s=3, clock_s=lambda: float(len(chunks_read))
    )
    keeper.step()
    assert len(chunks_read) < 10
    assert not storage.exists("logs")


def test_log_of_a_job_that_is_deleted_meanwhile_is_not_kept(
    store: Store, ray_logs: FakeRayLogs, storage: Storage, keeper: LogKeeper
) -> None:
    store.jobs.update("job-1", status=JobStatus.FAILED)

    def delete(_: str) -> None:
        ray_logs.on_read = lambda _: None
        store.jobs.delete("job-1")

    ray_logs.on_read = delete
    keeper.step()
    assert not storage.exists(KEPT.format(1))
