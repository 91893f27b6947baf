from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sienn_ray.errors import CapacityError
from sienn_ray.export.options import ExportFormat, ExportOptions
from sienn_ray.jobs.export_schema import ExportFailure, ExportRecord, ExportStatus
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.supervision.deleter import Deleter
from sienn_ray.jobs.supervision.export_runs import ExportEnd
from sienn_ray.jobs.supervision.export_supervisor import ExportSupervisor
from sienn_ray.storage import Storage
from tests.support.fakes_exports import FakeExportRuns, export_record, publish
from tests.support.fakes_jobs import Clock, Seconds, job_record

NEED_BYTES = 2_000_000_000


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}/storage")


@pytest.fixture
def runs(storage: Storage) -> FakeExportRuns:
    return FakeExportRuns(storage)


def supervisor_of(
    store: Store, runs: FakeExportRuns, storage: Storage, max_running: int = 2, seconds: Seconds | None = None
) -> ExportSupervisor:
    return ExportSupervisor(
        store.exports,
        runs,
        need_bytes=lambda _: NEED_BYTES,
        max_running=max_running,
        max_attempts=3,
        silence_timeout_s=100.0,
        clock_s=seconds or (lambda: 0.0),
    )


@pytest.fixture
def supervisor(store: Store, runs: FakeExportRuns, storage: Storage) -> ExportSupervisor:
    store.jobs.add(job_record())
    store.jobs.update("job-1", status=JobStatus.RUNNING, attempt=1)
    store.jobs.update("job-1", status=JobStatus.COMPLETED)
    return supervisor_of(store, runs, storage)


def delete_files(store: Store, runs: FakeExportRuns) -> None:
    """What the thread of deletions does."""
    Deleter(store.deletions, runs.storage, runs.active).step()


def request(store: Store, quantization: str = "Q8_0") -> str:
    options = ExportOptions(format=ExportFormat.GGUF, quantization=quantization)
    return store.exports.request(export_record(options=options)).id


def status(store: Store, export_id: str) -> ExportStatus:
    return store.exports.get(export_id).status


def test_exports_run_in_order_as_many_as_may(store: Store, runs: FakeExportRuns, supervisor: ExportSupervisor) -> None:
    runs.is_held = True
    ids = [request(store, name) for name in ("F32", "F16", "Q8_0")]
    supervisor.step()
    assert [record.id for record, _ in runs.started] == ids[:2]
    assert {need for _, need in runs.started} == {NEED_BYTES}
    assert supervisor.needs_close_look()
    runs.end(ExportEnd(runs.started[0][0], file=publish(runs.storage, runs.started[0][0])))
    supervisor.step()
    assert [status(store, each) for each in ids] == [
        ExportStatus.COMPLETED,
        ExportStatus.RUNNING,
        ExportStatus.RUNNING,
    ]


def test_a_run_that_no_node_has_the_memory_for_fails_at_once(
    store: Store, runs: FakeExportRuns, supervisor: ExportSupervisor
) -> None:
    runs.node_bytes = 1_000_000_000
    export_id = request(store)
    supervisor.step()
    failed = store.exports.get(export_id)
    assert (failed.status, failed.failure_reason) == (ExportStatus.FAILED, ExportFailure.OUT_OF_MEMORY)
    assert failed.message == ("the export needs 2.0 GB of memory and the largest node gives 1.0 GB; add a larger node")
    assert runs.started == []


def test_a_lost_run_goes_on_until_it_was_lost_too_often(
    store: Store, runs: FakeExportRuns, supervisor: ExportSupervisor, storage: Storage
) -> None:
    runs.is_held = True
    export_id = request(store)
    for attempt in (1, 2, 3):
        supervisor.step()
        record = runs.started[-1][0]
        assert (len(runs.started), record.attempt) == (attempt, attempt)
        storage.write_bytes(f"{record.key}/parts/first", b"1")
        runs.end(ExportEnd(record, words="WorkerCrashedError: it was killed"))
    supervisor.step()
    failed = store.exports.get(export_id)
    assert (failed.status, failed.failure_reason) == (ExportStatus.FAILED, ExportFailure.INTERRUPTED)
    assert "lost 3 times without progress and SIENN_MAX_ATTEMPTS is 3; last: WorkerCrashedError" in failed.message
    delete_files(store, runs)
    assert not storage.exists(failed.key)


def test_what_a_lost_run_has_finished_is_kept(
    store: Store, runs: FakeExportRuns, supervisor: ExportSupervisor, storage: Storage
) -> None:
    runs.is_held = True
    export_id = request(store)
    supervisor.step()
    record = runs.started[0][0]
    storage.write_bytes(f"{record.key}/parts/first", b"1")
    runs.end(ExportEnd(record, words="WorkerCrashedError"))
    supervisor.step()
    delete_files(store, runs)
    assert storage.exists(f"{record.key}/parts/first")
    assert status(store, export_id) is ExportStatus.RUNNING


def test_runs_of_an_earlier_tracker_begin_again(
    store: Store, runs: FakeExportRuns, supervisor: ExportSupervisor, storage: Storage
) -> None:
    runs.is_held = True
    export_id = request(store)
    supervisor.step()
    later_runs = FakeExportRuns(storage)
    later = supervisor_of(store, later_runs, storage)
    later.step()
    assert [(record.id, record.attempt) for record, _ in later_runs.started] == [(export_id, 2)]
    later.step()
    assert status(store, export_id) is ExportStatus.COMPLETED


@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_unwanted_run_is_stopped_and_leaves_nothing(
    store: Store, runs: FakeExportRuns, supervisor: ExportSupervisor, storage: Storage, how: str
) -> None:
    runs.is_held = True
    export_id = request(store)
    supervisor.step()
    key = runs.started[0][0].key
    storage.write_bytes(f"{key}/parts/first", b"1")
    getattr(store.exports, how)(export_id)
    delete_files(store, runs)
    assert storage.exists(key), "its run would write it again"
    supervisor.step()
    assert runs.stopped == [export_id]
    supervisor.step()
    assert runs.active() == set()
    delete_files(store, runs)
    assert not storage.exists(key)


def test_a_run_that_ended_well_after_it_was_deleted_leaves_nothing(
    store: Store, runs: FakeExportRuns, supervisor: ExportSupervisor, storage: Storage
) -> None:
    runs.is_held = True
    export_id = request(store)
    supervisor.step()
    record = runs.started[0][0]
    runs.end(ExportEnd(record, file=publish(storage, record)))
    store.exports.delete(export_id)
    supervisor.step()
    delete_files(store, runs)
    assert not storage.exists(record.key)


def test_cancelled_and_asked_for_again_waits_for_the_old_run(
    store: Store, runs: FakeExportRuns, supervisor: ExportSupervisor
) -> None:
    runs.is_held = True
    export_id = request(store)
    supervisor.step()
    store.exports.cancel(export_id)
    request(store)
    supervisor.step()  # the old run is told to end
    assert runs.stopped == [export_id]
    supervisor.step()
    delete_files(store, runs)
    supervisor.step()
    assert [record.attempt for record, _ in runs.started] == [1, 1]
    assert status(store, export_id) is ExportStatus.RUNNING


def test_failure_is_noted_and_leaves_nothing(
    store: Store, runs: FakeExportRuns, supervisor: ExportSupervisor, storage: Storage
) -> None:
    runs.is_held = True
    export_id = request(store)
    supervisor.step()
    record = runs.started[0][0]
    storage.write_bytes(f"{record.key}/parts/first", b"1")
    runs.end(ExportEnd(record, failure=ExportFailure.STORAGE_FULL, words="storage is full"))
    supervisor.step()
    failed = store.exports.get(export_id)
    assert (failed.failure_reason, failed.message) == (ExportFailure.STORAGE_FULL, "storage is full")
    delete_files(store, runs)
    assert not storage.exists(record.key)


def test_expired_export_is_deleted_with_its_file(
    store: Store, runs: FakeExportRuns, supervisor: ExportSupervisor, storage: Storage, clock: Clock
) -> None:
    export_id = request(store)
    supervisor.step()
    supervisor.step()
    key = store.exports.get(export_id).key
    assert storage.is_published(key)
    clock.advance(8 * 86400)
    supervisor.step()
    delete_files(store, runs)
    assert not storage.exists(key)
    assert store.exports.of_job("job-1").records == []


class Outage:
    """A database that is away while a test says so."""

    def __init__(self, store: Store) -> None:
        self._exports = store.exports
        self.is_away = False

    def __getattr__(self, name: str) -> Any:
        if self.is_away and name == "complete":
            raise CapacityError("the job database is away")
        return getattr(self._exports, name)


def test_end_is_not_lost_while_the_database_is_away(
    store: Store, runs: FakeExportRuns, supervisor: ExportSupervisor, storage: Storage
) -> None:
    seconds, outage = Seconds(), Outage(store)
    supervisor = supervisor_of(store, runs, storage, seconds=seconds)
    supervisor._store = outage  # type: ignore[assignment]
    export_id = request(store)
    supervisor.step()
    outage.is_away = True
    supervisor.step()
    assert (status(store, export_id), runs.active()) == (ExportStatus.RUNNING, {export_id})
    outage.is_away = False
    seconds.advance(1)
    supervisor.step()
    assert (status(store, export_id), runs.active(), len(runs.started)) == (ExportStatus.COMPLETED, set(), 1)


def test_one_export_in_trouble_holds_up_no_other(
    store: Store, runs: FakeExportRuns, supervisor: ExportSupervisor
) -> None:
    first, second = request(store, "F16"), request(store)

    def need_bytes(record: ExportRecord) -> int:
        if record.id == first:
            raise ValueError("config.json is no JSON")
        return NEED_BYTES

    supervisor._need_bytes = need_bytes
    supervisor.step()
    supervisor.step()
    assert status(store, second) is ExportStatus.COMPLETED
    assert "ValueError: config.json is no JSON" in store.exports.get(first).message


def test_silent_run_is_stopped_and_made_again(
    store: Store, runs: FakeExportRuns, supervisor: ExportSupervisor, storage: Storage, clock: Clock
) -> None:
    seconds = Seconds()
    supervisor = supervisor_of(store, runs, storage, seconds=seconds)
    runs.is_held = True
    export_id = request(store)
    supervisor.step()
    supervisor.step()
    seconds.advance(99)
    clock.advance(99)
    store.exports.report(export_id, 1, 5, "Merging")
    supervisor.step()
    seconds.advance(99)
    supervisor.step()
    assert runs.stopped == []
    seconds.advance(1)
    supervisor.step()
    assert runs.stopped == [export_id]
    supervisor.step()
    record = store.exports.get(export_id)
    assert (record.status, record.attempt, record.num_losses) == (ExportStatus.RUNNING, 2, 1)


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_run_that_does_not_end_is_given_up(
    store: Store, runs: FakeExportRuns, supervisor: ExportSupervisor, storage: Storage, is_cancelled: bool
) -> None:
    seconds = Seconds()
    supervisor = supervisor_of(store, runs, storage, max_running=1, seconds=seconds)
    runs.is_held = runs.is_stuck = True
    export_id = request(store)
    supervisor.step()
    supervisor.step()
    if is_cancelled:
        store.exports.cancel(export_id)
    seconds.advance(100)
    supervisor.step()
    seconds.advance(299)
    supervisor.step()
    assert runs.active() == {export_id}
    seconds.advance(1)
    supervisor.step()
    assert runs.active() == (set() if is_cancelled else {export_id})
    assert len(runs.started) == (1 if is_cancelled else 2)


def test_losses_count_since_the_last_progress_and_restarts_not_at_all(
    store: Store, runs: FakeExportRuns, supervisor: ExportSupervisor, storage: Storage
) -> None:
    runs.is_held = True
    export_id = request(store)
    for attempt, percent in ((1, 5), (2, 20), (3, 40), (4, 60)):
        supervisor.step()
        store.exports.report(export_id, attempt, percent, "Merging")
        runs.end(ExportEnd(runs.started[-1][0], words="WorkerCrashedError"))
    supervisor.step()
    assert store.exports.get(export_id).num_losses == 1
    for _ in range(4):
        supervisor = supervisor_of(store, FakeExportRuns(storage), storage)
        supervisor.step()
    record = store.exports.get(export_id)
    assert (record.status, record.num_losses) == (ExportStatus.RUNNING, 1)
