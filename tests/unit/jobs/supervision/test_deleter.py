from __future__ import annotations

from pathlib import Path

import pytest

from sienn_ray.errors import ConflictError, NotFoundError
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.supervision.deleter import Deleter
from sienn_ray.storage import Storage
from tests.support.fakes_exports import export_record
from tests.support.fakes_jobs import Clock, job_record

OF_A_JOB = ("adapters/job-1/manifest.json", "checkpoints/job-1/a/state", "exports/job-1/x/parts/1", "logs/job-1/1/log")


class BrokenStorage(Storage):
    """Refuses to delete what is below `broken_key`."""

    broken_key: str | None = None

    def delete(self, key: str) -> None:
        if self.broken_key is not None and key.startswith(self.broken_key):
            raise OSError("the disk is away")
        super().delete(key)


@pytest.fixture
def storage(tmp_path: Path) -> BrokenStorage:
    return BrokenStorage(f"file://{tmp_path}/storage")


def completed_job(store: Store, storage: Storage) -> None:
    store.jobs.add(job_record())
    store.jobs.update("job-1", status=JobStatus.RUNNING, attempt=1)
    store.jobs.update("job-1", status=JobStatus.COMPLETED)
    for key in OF_A_JOB:
        storage.write_bytes(key, b"x")


def test_deleted_job_is_gone_at_once_and_its_files_with_the_next_step(store: Store, storage: BrokenStorage) -> None:
    completed_job(store, storage)
    store.jobs.delete("job-1")
    for change in (store.jobs.get, store.jobs.retry, store.jobs.delete):
        with pytest.raises(NotFoundError):
            change("job-1")
    assert all(storage.exists(key) for key in OF_A_JOB)
    Deleter(store.deletions, storage).step()
    assert [key for key in OF_A_JOB if storage.exists(key)] == []
    assert store.deletions.due() == []


def test_deletion_survives_an_outage_of_storage_and_a_restart(
    store: Store, storage: BrokenStorage, clock: Clock
) -> None:
    storage.write_bytes("datasets/dataset-1/file", b"personal")
    storage.broken_key = "datasets"
    store.datasets.delete("dataset-1")
    for wait_s in (2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600):
        Deleter(store.deletions, storage).step()  # each of another process
        clock.advance(wait_s - 1)
        assert store.deletions.due() == []
        clock.advance(1)
        assert [each.error for each in store.deletions.due()] == ["OSError: the disk is away"]
    storage.broken_key = None
    clock.advance(600)
    Deleter(store.deletions, storage).step()
    assert not storage.exists("datasets/dataset-1")
    assert store.deletions.due() == []


def test_what_cannot_be_deleted_holds_up_nothing_else(store: Store, storage: BrokenStorage) -> None:
    completed_job(store, storage)
    storage.write_bytes("datasets/dataset-1/file", b"personal")
    storage.broken_key = "adapters"
    store.jobs.delete("job-1")
    store.datasets.delete("dataset-1")
    Deleter(store.deletions, storage).step()
    assert not storage.exists("datasets/dataset-1")


def test_job_waits_for_the_runs_of_its_exports(store: Store, storage: BrokenStorage) -> None:
    completed_job(store, storage)
    record = store.exports.request(export_record())
    store.exports.start(record.id)
    storage.write_bytes(f"{record.key}/parts/1", b"x")
    store.jobs.delete("job-1")
    active = {record.id}
    deleter = Deleter(store.deletions, storage, lambda: active)
    deleter.step()
    assert storage.exists(record.key)
    assert deleter.needs_close_look()
    active.clear()
    deleter.step()
    assert [key for key in OF_A_JOB if storage.exists(key)] == []
    assert not deleter.needs_close_look()


def test_export_cannot_be_asked_for_once_its_job_is_deleted(store: Store, storage: BrokenStorage) -> None:
    completed_job(store, storage)
    store.exports.request(export_record())
    store.jobs.delete("job-1")
    with pytest.raises(NotFoundError):
        store.exports.request(export_record())
    assert store.sweep.wanted_exports() == set()


def test_job_that_was_retried_meanwhile_keeps_its_files(store: Store, storage: BrokenStorage) -> None:
    store.jobs.add(job_record())
    store.jobs.update("job-1", status=JobStatus.RUNNING, attempt=1)
    store.jobs.update("job-1", status=JobStatus.FAILED)
    store.jobs.retry("job-1")
    with pytest.raises(ConflictError):
        store.jobs.delete("job-1")
    assert store.deletions.due() == []
