"""The audit log in the database, which lets nobody change it."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa

from sienn_ray.access.audit import AuditEntry, AuditOrigin, AuditReport, PrincipalKind
from sienn_ray.errors import InvalidInputError
from sienn_ray.jobs.audit_schema import AuditQuery
from sienn_ray.jobs.export_schema import ExportStatus
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.store import audit_store
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.store.tables import audit_entries, audit_horizon
from sienn_ray.jobs.supervision.audit_keeper import AuditKeeper
from sienn_ray.storage import FileEntry
from tests.support.fakes_exports import export_record
from tests.support.fakes_jobs import MOMENT, Clock, Seconds, job_record

ADA = AuditOrigin(
    PrincipalKind.API_KEY, "key-1", "laptop", "ada", "203.0.113.7", "request-1", "cancel_job", "POST /x", 200
)


def report(number: int, **fields: Any) -> AuditReport:
    values: dict[str, Any] = {"origin": ADA, "target_kind": "job", "target_id": f"job-{number}", **fields}
    return AuditReport(f"id-{number}", MOMENT + timedelta(seconds=number), **values)


def entries(store: Store, **query: Any) -> list[AuditEntry]:
    return store.audit.page(AuditQuery(**query)).entries


def targets(store: Store, **query: Any) -> list[str | None]:
    return [each.target_id for each in entries(store, **query)]


def is_chain(found: list[AuditEntry]) -> bool:
    """Whether entries, the newest first, follow each other."""
    linked = all(later.previous_hash == earlier.hash for later, earlier in pairwise(found))
    return linked and all(each.hash == each.computed_hash() for each in found)


def test_entries_are_a_chain(store: Store) -> None:
    store.audit.add([report(1), report(2)])
    store.audit.note(ADA, "job", "job-3")
    store.audit.add([report(4)])
    found = entries(store)
    assert [each.target_id for each in found] == ["job-4", "job-3", "job-2", "job-1"]
    assert is_chain(found)
    assert found[-1].previous_hash == ""


def test_a_repeat_is_written_once(store: Store) -> None:
    store.audit.add([report(1), report(2), report(1)])
    store.audit.add([report(2), report(3)])
    assert targets(store) == ["job-3", "job-2", "job-1"]
    assert is_chain(entries(store))


def test_what_is_undone_leaves_no_entry(store: Store) -> None:
    def change_and_fail() -> None:
        with store.database.together():
            store.audit.note(ADA, "job", "job-1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        change_and_fail()
    assert entries(store) == []


@pytest.mark.parametrize(
    "statement",
    [
        sa.update(audit_entries).values(owner="nobody"),
        sa.update(audit_entries).where(audit_entries.c.id == "id-1").values(status=200),
        sa.delete(audit_entries),
        sa.delete(audit_entries).where(audit_entries.c.id == "id-2"),
    ],
    ids=["all changed", "one changed", "all deleted", "one deleted"],
)
def test_the_database_refuses_changes(store: Store, statement: sa.Executable) -> None:
    store.audit.add([report(1), report(2)])

    def change() -> None:
        with store.database.writing() as connection:
            connection.execute(statement)

    with pytest.raises(sa.exc.DatabaseError, match="entries of the audit log are never changed"):
        change()
    assert targets(store) == ["job-2", "job-1"]


def test_the_horizon_only_rises(store: Store) -> None:
    store.audit.add([report(1), report(2)])
    store.audit.prune(1e9, 1)

    def fall() -> None:
        with store.database.writing() as connection:
            connection.execute(sa.update(audit_horizon).values(seq=0))

    with pytest.raises(sa.exc.DatabaseError, match="entries of the audit log are never changed"):
        fall()


def test_the_oldest_go_by_number(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_store, "_PRUNED_AT_ONCE", 2)
    store.audit.add([report(number) for number in range(1, 9)])
    assert store.audit.prune(1e9, 3) == 5
    assert targets(store) == ["job-8", "job-7", "job-6"]
    assert store.audit.prune(1e9, 3) == 0
    assert is_chain(entries(store))


def test_the_oldest_go_by_age_and_the_chain_goes_on(store: Store, clock: Clock) -> None:
    store.audit.add([report(1), report(2), report(3)])
    clock.now = MOMENT + timedelta(seconds=63)
    last = entries(store)[0]
    assert store.audit.prune(60.5, 100) == 2
    assert targets(store) == ["job-3"]
    clock.advance(60.0)
    assert store.audit.prune(60.5, 100) == 1
    store.audit.add([report(4)])
    (entry,) = entries(store)
    assert entry.previous_hash == last.hash
    assert entry.seq > last.seq


def test_filters(store: Store) -> None:
    bob = AuditOrigin(PrincipalKind.API_KEY, "key-2", "x", "bob", "::1", "request-2", "delete_job", "DELETE /x", 403)
    store.audit.add([report(1), report(2, origin=bob), report(3, target_kind="export")])
    assert targets(store, since=MOMENT + timedelta(seconds=2)) == ["job-3", "job-2"]
    assert targets(store, until=MOMENT + timedelta(seconds=2)) == ["job-1"]
    assert targets(store, principal="key-2") == targets(store, principal="bob") == ["job-2"]
    assert targets(store, action="delete_job", status=403) == ["job-2"]
    assert targets(store, target_kind="export") == targets(store, target_id="job-3") == ["job-3"]
    assert targets(store, request_id="request-1") == ["job-3", "job-1"]
    assert targets(store, request_id="request-1", status=403) == []


def test_pages(store: Store) -> None:
    store.audit.add([report(number) for number in range(1, 6)])
    seen: list[str | None] = []
    cursor = None
    while True:
        page = store.audit.page(AuditQuery(limit=2, cursor=cursor))
        seen += [each.target_id for each in page.entries]
        cursor = page.next_cursor
        if cursor is None:
            break
        store.audit.add([report(100 + len(seen))])  # what comes meanwhile isn't on later pages
    assert seen == [f"job-{number}" for number in (5, 4, 3, 2, 1)]
    with pytest.raises(InvalidInputError, match="isn't one"):
        store.audit.page(AuditQuery(cursor="x"))


def test_hostile_text_is_kept_harmless(store: Store) -> None:
    store.audit.add([report(1, target_id="a\nb\x00\ud800")])
    (entry,) = entries(store)
    assert entry.target_id == "a\\nb\\x00\\ud800"
    assert is_chain([entry])


# What the service does by itself


def test_exports_that_expire_are_told(store: Store, clock: Clock) -> None:
    store.jobs.add(job_record())
    store.jobs.update("job-1", status=JobStatus.RUNNING, attempt=1)
    store.jobs.end("job-1", 1, status=JobStatus.COMPLETED)
    store.exports.request(export_record("job-1", id="export-1"))
    store.exports.start("export-1")
    store.exports.complete("export-1", 1, FileEntry("a", 1, "0" * 64))
    assert entries(store) == []
    clock.advance(8 * 86400.0)
    assert [each.status for each in store.exports.delete_expired()] == [ExportStatus.COMPLETED]
    (entry,) = entries(store)
    assert (entry.principal_kind, entry.action) == (PrincipalKind.SERVICE, "export_expired")
    assert (entry.target_kind, entry.target_id) == ("export", "export-1")


def test_what_a_sweep_deletes_is_told_once(store: Store, clock: Clock) -> None:
    for _ in range(2):  # storage is away, and the tombstones stay
        assert store.sweep.discard_unknown_job("gone")
        assert store.sweep.discard_unwanted_export("gone", "export-1")
    store.jobs.add(job_record(status=JobStatus.FAILED))
    clock.advance(1e6)
    for _ in range(2):
        assert store.sweep.discard_checkpoints(["job-1"], 60.0) == ["job-1"]
    assert [(each.action, each.target_kind, each.target_id) for each in entries(store)] == [
        ("checkpoints_expired", "job", "job-1"),
        ("leftovers_deleted", "export", "export-1"),
        ("leftovers_deleted", "job", "gone"),
    ]


@pytest.mark.parametrize(
    ("is_auth_on", "action"), [(True, "service_started"), (False, "service_started_without_authentication")]
)
def test_the_start_is_told_once_and_bounds_are_looked_at_hourly(store: Store, is_auth_on: bool, action: str) -> None:
    seconds = Seconds()
    keeper = AuditKeeper(store.audit, is_auth_on=is_auth_on, lifetime_s=1e9, max_rows=2, clock_s=seconds)
    keeper.step()
    assert [each.action for each in entries(store)] == [action]
    store.audit.add([report(number) for number in range(3)])
    keeper.step()
    assert len(entries(store)) == 4
    seconds.advance(3600.0)
    keeper.step()
    assert len(entries(store)) == 2
    assert not keeper.needs_close_look()
