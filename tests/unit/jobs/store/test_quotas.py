"""Quotas of owners: each bound at its edge, under writers that come at the same time, and apart from other owners."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sienn_ray.access.quotas import Quotas, QuotaUse
from sienn_ray.errors import QuotaExceededError, SiennError, TooManyRequestsError
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.store.store import Store
from sienn_ray.storage import FileEntry
from tests.support.fakes_exports import export_record
from tests.support.fakes_jobs import Clock, all_jobs, dataset_record, job_record, run_summary

NUM_WRITERS = 8


@pytest.fixture
def two_stores(store: Store, database_url: str, clock: Clock) -> Iterator[tuple[Store, Store]]:
    """Two trackers over one database, as while one is being replaced."""
    other = Store(database_url, clock)
    yield store, other
    other.close()


def outcomes(works: list[Callable[[], Any]]) -> list[type[SiennError] | None]:
    """Have works done at the same time; gives the kinds of their errors."""

    def outcome(work: Callable[[], Any]) -> type[SiennError] | None:
        try:
            work()
        except SiennError as error:
            return type(error)
        return None

    with ThreadPoolExecutor(len(works)) as threads:
        return list(threads.map(outcome, works))


def completed(store: Store, job_id: str, owner: str, adapter_bytes: int = 0) -> None:
    summary = run_summary(adapter_size_bytes=adapter_bytes)
    store.jobs.add(job_record(job_id, owner=owner, status=JobStatus.RUNNING, submission_id="ray", attempt=1))
    store.jobs.end(job_id, 1, status=JobStatus.COMPLETED, summary=summary)


class TestPendingJobs:
    def test_the_edge_and_the_way_out(self, store: Store) -> None:
        store.quotas.set_own("ada", Quotas(max_pending_jobs=2))
        for number in (1, 2):
            store.jobs.add(job_record(f"a{number}", owner="ada"))
        with pytest.raises(TooManyRequestsError, match="2 of your jobs wait already, and you may have 2") as raised:
            store.jobs.add(job_record("a3", owner="ada"))
        assert raised.value.retry_after_s == 60
        store.jobs.add(job_record("b1", owner="bob"))
        store.jobs.add(job_record("a1", owner="ada"))  # a repeat of one that is there
        store.jobs.update("a1", status=JobStatus.RUNNING)
        store.jobs.add(job_record("a3", owner="ada"))
        assert len(all_jobs(store)) == 4

    def test_no_way_around_it_by_cancelling_and_retrying(self, store: Store) -> None:
        store.quotas.set_own("ada", Quotas(max_pending_jobs=1))
        store.jobs.add(job_record("a1", owner="ada"))
        store.jobs.cancel("a1")
        store.jobs.add(job_record("a2", owner="ada"))
        with pytest.raises(TooManyRequestsError):
            store.jobs.retry("a1")
        store.jobs.pause("a2")
        store.jobs.retry("a1")
        with pytest.raises(TooManyRequestsError):
            store.jobs.resume("a2")
        assert [job.status.value for job in all_jobs(store)] == ["paused", "pending"]

    def test_a_run_that_is_lost_waits_whatever_the_bound(self, store: Store) -> None:
        store.jobs.add(job_record("a1", owner="ada"))
        store.jobs.update("a1", status=JobStatus.RUNNING, attempt=1)
        store.quotas.set_own("ada", Quotas(max_pending_jobs=0))
        assert store.jobs.requeue("a1", 1, "lost").status is JobStatus.PENDING

    def test_writers_at_the_same_time(self, two_stores: tuple[Store, Store]) -> None:
        two_stores[0].quotas.set_own("ada", Quotas(max_pending_jobs=3))

        def adding(number: int) -> Callable[[], Any]:
            return lambda: two_stores[number % 2].jobs.add(job_record(f"a{number}", owner="ada"))

        found = outcomes([adding(number) for number in range(NUM_WRITERS)])
        assert sorted(map(str, found)).count("None") == 3
        assert set(found) == {None, TooManyRequestsError}
        assert len(all_jobs(two_stores[1])) == 3


class TestStoredBytes:
    def test_the_edge_and_the_way_out(self, store: Store) -> None:
        store.quotas.set_own("ada", Quotas(max_stored_bytes=100))
        store.datasets.add(dataset_record("d1", owner="ada", size_bytes=60))
        with pytest.raises(QuotaExceededError, match=r"you store 60 bytes and may store 100 .* this file has 41"):
            store.datasets.add(dataset_record("d2", owner="ada", size_bytes=41))
        store.datasets.add(dataset_record("d2", owner="ada", size_bytes=40))
        store.datasets.add(dataset_record("d2", owner="ada", size_bytes=40))  # a repeat
        store.datasets.add(dataset_record("d3", owner="bob", size_bytes=4000))
        with pytest.raises(QuotaExceededError, match="a fine-tune would add an adapter"):
            store.jobs.add(job_record("a1", owner="ada", dataset_id="d1"))
        store.datasets.delete("d2")
        store.jobs.add(job_record("a1", owner="ada", dataset_id="d1"))

    def test_adapters_and_exports_count(self, store: Store) -> None:
        completed(store, "a1", "ada", adapter_bytes=30)
        store.exports.request(export_record("a1", id="x1"))
        store.exports.request(export_record("a1", id="x2"))
        store.exports.start("x1")
        store.exports.complete("x1", 1, FileEntry("x.zip", 12, "0" * 64))
        assert store.quotas.state("ada").use == QuotaUse(
            stored_bytes=42, pending_jobs=0, running_jobs=0, open_exports=1, exports=2
        )
        assert store.quotas.state("bob").use.stored_bytes == 0
        store.quotas.set_own("ada", Quotas(max_stored_bytes=42))
        assert store.quotas.state("ada").room_bytes == 0
        with pytest.raises(QuotaExceededError, match="an export would add to them"):
            store.exports.request(export_record("a1", id="x3"))
        assert store.exports.request(export_record("a1", id="x1")).id == "x1", "it is there already"
        store.jobs.delete("a1")
        assert store.quotas.state("ada").use.stored_bytes == 0

    def test_writers_at_the_same_time(self, two_stores: tuple[Store, Store]) -> None:
        two_stores[0].quotas.set_own("ada", Quotas(max_stored_bytes=50))

        def adding(number: int) -> Callable[[], Any]:
            record = dataset_record(f"d{number}", owner="ada", size_bytes=20)
            return lambda: two_stores[number % 2].datasets.add(record)

        found = outcomes([adding(number) for number in range(NUM_WRITERS)])
        assert sorted(map(str, found)).count("None") == 2
        assert two_stores[1].quotas.state("ada").use.stored_bytes == 40


class TestExports:
    def test_waiting_and_running(self, store: Store) -> None:
        completed(store, "a1", "ada")
        completed(store, "b1", "bob")
        store.quotas.set_own("ada", Quotas(max_open_exports=1))
        store.exports.request(export_record("a1", id="x1"))
        store.exports.request(export_record("a1", id="x1"))  # a repeat
        with pytest.raises(TooManyRequestsError, match="1 of your exports wait or run already") as raised:
            store.exports.request(export_record("a1", id="x2"))
        assert raised.value.retry_after_s == 30
        store.exports.request(export_record("b1", id="y1"))
        store.exports.cancel("x1")
        store.exports.request(export_record("a1", id="x2"))
        with pytest.raises(TooManyRequestsError):
            store.exports.request(export_record("a1", id="x1"))  # a cancelled one that would wait again

    def test_kept(self, store: Store) -> None:
        completed(store, "a1", "ada")
        store.quotas.set_own("ada", Quotas(max_exports=1))
        store.exports.request(export_record("a1", id="x1"))
        store.exports.start("x1")
        store.exports.complete("x1", 1, FileEntry("x.zip", 1, "0" * 64))
        with pytest.raises(QuotaExceededError, match="you have 1 exports, and may have 1"):
            store.exports.request(export_record("a1", id="x2"))
        store.exports.delete("x1")
        store.exports.request(export_record("a1", id="x2"))

    def test_writers_at_the_same_time(self, two_stores: tuple[Store, Store]) -> None:
        completed(two_stores[0], "a1", "ada")
        two_stores[0].quotas.set_own("ada", Quotas(max_open_exports=2, max_exports=5))

        def asking(number: int) -> Callable[[], Any]:
            return lambda: two_stores[number % 2].exports.request(export_record("a1", id=f"x{number}"))

        found = outcomes([asking(number) for number in range(NUM_WRITERS)])
        assert sorted(map(str, found)).count("None") == 2


class TestBounds:
    def test_own_ones_stand_before_the_settings(self, store: Store, database_url: str, clock: Clock) -> None:
        set_up = Store(database_url, clock, quotas=Quotas(max_pending_jobs=1, max_exports=7))
        set_up.quotas.set_own("ada", Quotas(max_pending_jobs=2))
        state = set_up.quotas.state("ada")
        assert state.quotas == Quotas(max_pending_jobs=2, max_exports=7)
        assert state.own == Quotas(max_pending_jobs=2)
        for name in ("a1", "a2"):
            set_up.jobs.add(job_record(name, owner="ada"))
        set_up.jobs.add(job_record("b1", owner="bob"))
        with pytest.raises(TooManyRequestsError):
            set_up.jobs.add(job_record("b2", owner="bob"))
        assert set_up.quotas.set_own("ada", Quotas()).quotas.max_pending_jobs == 1
        set_up.close()

    def test_running_jobs_of_one_owner(self, store: Store) -> None:
        store.quotas.set_own("ada", Quotas(max_running_jobs=1))
        for name in ("a1", "a2"):
            store.jobs.add(job_record(name, owner="ada"))
        for name in ("b1", "b2"):
            store.jobs.add(job_record(name, owner="bob"))
        store.jobs.update("a1", status=JobStatus.RUNNING)
        assert [job.id for job in store.jobs.waiting(9)] == ["b1", "b2"]
        assert store.jobs.get("a2").queue_position == 3
