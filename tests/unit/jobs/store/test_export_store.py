from __future__ import annotations

import pytest

from sienn_ray.errors import ConflictError, InvalidInputError, NotFoundError, TransitionError
from sienn_ray.export.options import ExportFormat, ExportOptions
from sienn_ray.jobs.export_schema import ExportFailure, ExportRecord, ExportStatus
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.store import export_records
from sienn_ray.jobs.store.store import Store
from sienn_ray.storage import FileEntry
from tests.support.fakes_exports import export_record
from tests.support.fakes_jobs import Clock, job_record

FILE = FileEntry("model-Q8_0.gguf", 5_000_000_000, "ab" * 32)


@pytest.fixture(autouse=True)
def _completed_job(store: Store) -> None:
    store.jobs.add(job_record())
    store.jobs.update("job-1", status=JobStatus.RUNNING, attempt=1)
    store.jobs.update("job-1", status=JobStatus.COMPLETED)


def running(store: Store) -> ExportRecord:
    record = store.exports.start(store.exports.request(export_record()).id)
    assert record is not None
    return record


def completed(store: Store) -> ExportRecord:
    record = running(store)
    assert store.exports.complete(record.id, record.attempt, FILE)
    return store.exports.get(record.id)


def test_the_same_choices_are_one_export(store: Store) -> None:
    assert store.exports.request(export_record()) == store.exports.request(export_record())
    other = export_record(options=ExportOptions(format=ExportFormat.GGUF, quantization="Q4_K_M"))
    store.exports.request(other)
    assert [export.id for export in store.exports.of_job("job-1").records] == [other.id, export_record().id]


def test_only_a_completed_job_has_exports(store: Store) -> None:
    store.jobs.add(job_record("job-2"))
    with pytest.raises(ConflictError, match="isn't completed any more"):
        store.exports.request(export_record("job-2"))
    with pytest.raises(NotFoundError):
        store.exports.request(export_record("job-3"))


def test_way_to_the_end(store: Store, clock: Clock) -> None:
    record = running(store)
    assert (record.status, record.attempt) == (ExportStatus.RUNNING, 1)
    assert store.exports.report(record.id, 1, 40, "Writing")
    assert store.exports.report(record.id, 1, 30, "Writing again")  # an attempt that goes on from what there is
    assert store.exports.get(record.id).progress == 40
    assert store.exports.complete(record.id, 1, FILE)
    done = store.exports.get(record.id)
    assert (done.status, done.progress, done.size_bytes, done.sha256) == (
        ExportStatus.COMPLETED,
        100,
        FILE.size_bytes,
        FILE.sha256,
    )
    assert done.ended_at == clock.now
    assert done.expires_at is not None


def test_status_changes_follow_the_table(store: Store) -> None:
    done = completed(store)
    with (
        pytest.raises(TransitionError, match=f"export {done.id} is 'completed' and can't become 'running'"),
        store.database.writing() as connection,
    ):
        export_records.write(connection, done, status=ExportStatus.RUNNING, progress=0)
    assert store.exports.get(done.id) == done


def test_words_of_an_earlier_attempt_are_dropped(store: Store) -> None:
    record = running(store)
    store.exports.requeue(record.id, 1, "lost")
    again = store.exports.start(record.id)
    assert again is not None
    assert again.attempt == 2
    assert not store.exports.report(record.id, 1, 90, "late")
    assert not store.exports.complete(record.id, 1, FILE)
    assert not store.exports.fail(record.id, 1, ExportFailure.INTERNAL, "late")
    assert store.exports.get(record.id).status is ExportStatus.RUNNING


def test_a_cancelled_export_ends_and_may_be_asked_for_again(store: Store) -> None:
    record = running(store)
    assert store.exports.cancel(record.id).status is ExportStatus.CANCELLED
    assert not store.exports.report(record.id, 1, 50, "Writing")
    assert [each.id for each in store.deletions.due()] == [record.id]
    with pytest.raises(ConflictError, match="is 'cancelled' and can't be cancelled"):
        store.exports.cancel(record.id)
    again = store.exports.request(export_record())
    assert (again.status, again.progress, again.attempt, again.ended_at) == (ExportStatus.PENDING, 0, 0, None)


def test_a_failed_export_starts_anew(store: Store) -> None:
    record = running(store)
    store.exports.fail(record.id, 1, ExportFailure.STORAGE_FULL, "full")
    assert store.exports.get(record.id).failure_reason is ExportFailure.STORAGE_FULL
    again = store.exports.request(export_record())
    assert (again.status, again.failure_reason) == (ExportStatus.PENDING, None)


def test_asking_again_keeps_a_completed_export_longer(store: Store, clock: Clock) -> None:
    first = completed(store)
    clock.advance(6 * 86400)
    assert store.exports.request(export_record()).status is ExportStatus.COMPLETED
    clock.advance(2 * 86400)
    assert store.exports.delete_expired() == []
    clock.advance(6 * 86400)
    assert [export.id for export in store.exports.delete_expired()] == [first.id]
    assert store.exports.delete_expired() == []
    assert store.exports.of_job("job-1").records == []
    assert [each.keys for each in store.deletions.due()] == [(first.key,)]


def test_one_whose_file_is_gone_is_made_again(store: Store) -> None:
    record = completed(store)
    assert store.exports.redo(record.id, "gone").status is ExportStatus.PENDING
    assert store.exports.redo(record.id, "gone").message == "gone"
    with pytest.raises(NotFoundError, match="Export nothing not found"):
        store.exports.redo("nothing", "gone")


def test_deleted_export_is_forgotten(store: Store) -> None:
    record = running(store)
    assert store.exports.delete(record.id).id == record.id
    assert store.sweep.wanted_exports() == set()
    with pytest.raises(NotFoundError):
        store.exports.get(record.id)
    assert store.exports.start(record.id) is None
    assert [each.keys for each in store.deletions.due()] == [(record.key,)]


@pytest.mark.parametrize("how", ["cancel", "fail", "delete"])
def test_one_that_is_asked_for_again_waits_until_its_old_files_are_gone(store: Store, how: str) -> None:
    record = running(store)
    if how == "fail":
        store.exports.fail(record.id, 1, ExportFailure.INTERNAL, "broken")
    else:
        getattr(store.exports, how)(record.id)
    assert store.exports.request(export_record()).status is ExportStatus.PENDING
    assert store.exports.start(record.id) is None
    [deletion] = store.deletions.due()
    store.deletions.finish(deletion)
    assert store.exports.start(record.id) is not None


def test_files_of_a_run_that_ended_are_deleted_unless_they_are_wanted(store: Store) -> None:
    record = running(store)
    store.exports.discard_unwanted(record)
    assert store.deletions.due() == []
    store.exports.delete(record.id)
    store.deletions.finish(store.deletions.due()[0])
    store.exports.discard_unwanted(record)
    assert [each.keys for each in store.deletions.due()] == [(record.key,)]


def test_signing_key_is_made_once(store: Store) -> None:
    key = store.signing_key()
    assert len(key) == 32
    assert store.signing_key() == key


@pytest.mark.parametrize("status", [ExportStatus.FAILED, ExportStatus.CANCELLED])
def test_failed_and_cancelled_exports_expire_too(store: Store, clock: Clock, status: ExportStatus) -> None:
    record = running(store)
    if status is ExportStatus.FAILED:
        store.exports.fail(record.id, 1, ExportFailure.INTERNAL, "broken")
    else:
        store.exports.cancel(record.id)
    clock.advance(6 * 86400)
    assert store.exports.delete_expired() == []
    clock.advance(2 * 86400)
    assert [export.id for export in store.exports.delete_expired()] == [record.id]


def test_pages_of_a_job_s_exports(store: Store) -> None:
    for number in range(3):
        store.exports.request(export_record(id=f"x{number}"))
    first = store.exports.of_job("job-1", 2)
    second = store.exports.of_job("job-1", 2, first.next_cursor)
    assert [export.id for export in (*first.records, *second.records)] == ["x2", "x1", "x0"]
    assert (first.count, second.count, second.next_cursor) == (3, 3, None)
    with pytest.raises(InvalidInputError, match="cursor 'x' isn't one"):
        store.exports.of_job("job-1", 2, "x")
