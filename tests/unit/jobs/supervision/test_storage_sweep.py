from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sienn_ray.errors import CapacityError, ConflictError
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.supervision.deleter import Deleter
from sienn_ray.jobs.supervision.storage_sweep import StorageSweep
from sienn_ray.storage import Storage
from tests.support.fakes_exports import export_record
from tests.support.fakes_jobs import Clock, dataset_record, job_record

DAY_S = 86400.0
KNOWN, GONE, YOUNG = (f"00000000-0000-4000-8000-00000000000{number}" for number in range(3))
KINDS = ("adapters", "checkpoints", "exports", "logs")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}/storage")


class Swept:
    """A database with one job, and storage that is swept; an hour passes between two sweeps."""

    def __init__(self, store: Store, storage: Storage, clock: Clock) -> None:
        self.store, self.storage, self.clock = store, storage, clock
        store.jobs.add(job_record(KNOWN))
        store.jobs.update(KNOWN, status=JobStatus.RUNNING, attempt=1)
        self._hours = 0.0
        self.sweep = StorageSweep(
            store.sweep,
            storage,
            leftover_age_s=7 * DAY_S,
            checkpoint_lifetime_s=30 * DAY_S,
            clock=clock,
            clock_s=lambda: 3600 * self._hours,
        )

    def write(self, key: str, days_ago: float = 0.0) -> None:
        self.storage.write_bytes(key, b"x")
        moment = self.clock.now.timestamp() - days_ago * DAY_S
        os.utime(self.storage.path(key), (moment, moment))

    def step(self) -> None:
        self._hours += 1
        self.sweep.step()
        Deleter(self.store.deletions, self.storage).step()

    def there(self, *keys: str) -> list[bool]:
        return [self.storage.exists(key) for key in keys]


@pytest.fixture
def swept(store: Store, storage: Storage, clock: Clock) -> Swept:
    return Swept(store, storage, clock)


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_jobs_that_nobody_knows_go_once_they_are_old(swept: Swept, kind: str) -> None:
    for job_id in (KNOWN, GONE):
        swept.write(f"{kind}/{job_id}/a/file", days_ago=8)
    swept.write(f"{kind}/{YOUNG}/a/file", days_ago=6)
    swept.write(f"{kind}/somebody-elses/file", days_ago=1000)
    swept.step()
    known_stays = kind != "exports"  # there is no such export
    assert swept.there(*(f"{kind}/{name}" for name in (GONE, YOUNG, "somebody-elses"))) == [False, True, True]
    assert swept.there(f"{kind}/{KNOWN}/a/file") == [True] or not known_stays


def test_worker_that_still_writes_after_a_deletion_leaves_nothing_for_good(swept: Swept) -> None:
    swept.store.jobs.update(KNOWN, status=JobStatus.FAILED)
    swept.store.jobs.add(job_record(YOUNG))
    swept.store.jobs.delete(KNOWN)
    swept.step()
    swept.write(f"checkpoints/{KNOWN}/late/state")
    swept.step()
    assert swept.there(f"checkpoints/{KNOWN}") == [True], "it may be written to still"
    swept.clock.advance(8 * DAY_S)
    swept.step()
    assert swept.there(f"checkpoints/{KNOWN}") == [False]


def test_one_young_file_keeps_all_of_a_job(swept: Swept) -> None:
    swept.write(f"adapters/{GONE}/file", days_ago=100)
    swept.write(f"logs/{GONE}/1/program.log", days_ago=1)
    swept.step()
    assert swept.there(f"adapters/{GONE}") == [True]


def test_empty_database_sweeps_nothing(store: Store, storage: Storage, clock: Clock) -> None:
    swept = Swept(store, storage, clock)
    store.jobs.update(KNOWN, status=JobStatus.FAILED)
    store.jobs.delete(KNOWN)
    swept.write(f"adapters/{GONE}/file", days_ago=1000)
    swept.step()
    assert swept.there(f"adapters/{GONE}") == [True]


def test_storage_of_another_database_is_not_swept(swept: Swept, tmp_path: Path) -> None:
    """With a wrong database URL, other jobs than its own are in storage."""
    other = Store(f"sqlite:///{tmp_path}/other/sienn.db", swept.clock)
    other.datasets.add(dataset_record())
    theirs = Swept(other, swept.storage, swept.clock)
    theirs.step()
    swept.write(f"adapters/{GONE}/file", days_ago=1000)
    for each in (swept, theirs, swept):
        each.step()
    assert swept.there(f"adapters/{GONE}") == [True]
    swept.storage.delete(f"owners/{other.sweep.owner_id()}")
    swept.step()
    assert swept.there(f"adapters/{GONE}") == [False]
    other.close()


def test_database_that_is_away_sweeps_nothing(swept: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    swept.write(f"adapters/{GONE}/file", days_ago=1000)
    swept.store.close()

    def away() -> set[str]:
        raise CapacityError("the job database can't be used")

    monkeypatch.setattr(swept.store.sweep, "job_ids", away)
    with pytest.raises(CapacityError):
        swept.sweep.step()
    assert swept.there(f"adapters/{GONE}") == [True]


@pytest.mark.parametrize(
    ("status", "days", "stays"),
    [
        (JobStatus.COMPLETED, 0.01, True),
        (JobStatus.COMPLETED, 0.1, False),
        (JobStatus.FAILED, 29, True),
        (JobStatus.FAILED, 31, False),
        (JobStatus.PAUSED, 29, True),
        (JobStatus.PAUSED, 31, False),
        (JobStatus.RUNNING, 100, True),
    ],
)
def test_checkpoints_expire(swept: Swept, status: JobStatus, days: float, stays: bool) -> None:
    swept.write(f"checkpoints/{KNOWN}/a/state")
    swept.write(f"adapters/{KNOWN}/file")
    if status is not JobStatus.RUNNING:
        swept.store.jobs.update(KNOWN, status=status)
    swept.clock.advance(days * DAY_S)
    swept.step()
    assert swept.there(f"checkpoints/{KNOWN}", f"adapters/{KNOWN}") == [stays, True]


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.PAUSED])
def test_job_does_not_go_on_while_its_checkpoints_are_deleted(swept: Swept, status: JobStatus) -> None:
    go_on = swept.store.jobs.retry if status is JobStatus.FAILED else swept.store.jobs.resume
    swept.write(f"checkpoints/{KNOWN}/a/state")
    swept.store.jobs.update(KNOWN, status=status)
    swept.clock.advance(31 * DAY_S)
    swept.sweep.step()
    with pytest.raises(ConflictError, match="have expired and are being deleted; try again in a moment"):
        go_on(KNOWN)
    Deleter(swept.store.deletions, swept.storage).step()
    assert go_on(KNOWN).status is JobStatus.PENDING


def test_files_of_exports_that_nobody_wants_go(swept: Swept) -> None:
    swept.store.jobs.update(KNOWN, status=JobStatus.COMPLETED)
    wanted = swept.store.exports.request(export_record(KNOWN))
    unknown, young = (f"exports/{KNOWN}/{letter * 32}" for letter in "ab")
    for key, days_ago in ((wanted.key, 1000), (unknown, 8), (young, 6), (f"exports/{KNOWN}/notes", 1000)):
        swept.write(f"{key}/parts/first", days_ago=days_ago)
    swept.step()
    assert swept.there(wanted.key, unknown, young, f"exports/{KNOWN}/notes") == [True, False, True, True]


def test_sweeps_are_an_hour_apart(swept: Swept) -> None:
    swept.step()
    swept.write(f"adapters/{GONE}/file", days_ago=1000)
    swept.sweep.step()
    assert swept.store.deletions.due() == []


def test_moments_of_storage_have_a_zone(storage: Storage) -> None:
    storage.write_bytes("adapters/x", b"x")
    [(_, moment)] = storage.changes("adapters")
    assert (datetime.now(UTC) - moment).total_seconds() < 60
