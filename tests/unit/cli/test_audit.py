"""Commands about the audit log, against a service."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sienn_ray.access.audit import AuditEntry, AuditOrigin, AuditReport, PrincipalKind
from sienn_ray.jobs.audit_schema import AuditPage, AuditQuery
from tests.support.fakes_jobs import MOMENT
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.cli.running import done, refused

pytestmark = pytest.mark.usefixtures("service")
ADA = AuditOrigin(PrincipalKind.API_KEY, "key-1", "laptop", "ada", "203.0.113.7", "r", "cancel_job", "POST /x", 200)


@pytest.fixture
def log(tracker: InProcessTracker) -> list[AuditEntry]:
    """Three entries, the newest first."""
    nobody = AuditOrigin(PrincipalKind.NOBODY, client="::1", request="GET /api/jobs", status=401)
    tracker.actor.add_audit_reports(
        (
            AuditReport("1", MOMENT, ADA, "job", "job-1"),
            AuditReport("2", MOMENT, nobody, num_requests=7),
            AuditReport("3", MOMENT, replace(ADA, action="delete_job"), "job", "job-2"),
        )
    )
    return tracker.actor.audit_entries(AuditQuery()).entries


def test_entries_are_listed(log: list[AuditEntry]) -> None:
    listed = done("audit")
    assert listed.index("delete_job") < listed.index("GET /api/jobs") < listed.index("cancel_job")
    for words in ("laptop (ada)", "203.0.113.7", "job job-1", "nobody", "2025-03-04T05:06:07.890Z"):
        assert words in listed
    filtered = done("audit", "--action", "delete_job", "--principal", "ada", "--target", "job-2", "--status", "200")
    assert "job-2" in filtered
    assert "job-1" not in filtered
    assert "cancel_job" not in done("audit", "--limit", "2")
    assert "since" in refused("audit", "--since", "yesterday")


def test_a_log_is_as_it_was_written(log: list[AuditEntry], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sienn_ray.cli.audit._PAGE", 2)
    newest = log[0]
    said = done("audit", "verify")
    assert said == f"3 entries are as they were written; the newest is {newest.seq} with hash {newest.hash}\n"
    assert done("audit", "verify", "--contains", log[2].hash) == said
    assert f"no entry has the hash {'0' * 64}" in refused("audit", "verify", "--contains", "0" * 64)


def test_an_empty_log_is_fine() -> None:
    assert done("audit", "verify") == "0 entries are as they were written\n"


def test_a_change_shows(tracker: InProcessTracker, log: list[AuditEntry]) -> None:
    """Of somebody who can write past the database's triggers."""
    changed = replace(log[1], owner="bob")
    tracker.answers["audit_entries"] = AuditPage([log[0], changed, log[2]], None)
    assert f"entry {changed.seq} of 2025-03-04 05:06:07 UTC isn't as it was written" in refused("audit", "verify")
    rehashed = replace(changed, hash=changed.computed_hash())
    tracker.answers["audit_entries"] = AuditPage([log[0], rehashed, log[2]], None)
    expected = f"between the entries {rehashed.seq} and {log[0].seq} something was taken out or put in"
    assert expected in refused("audit", "verify")


def test_a_gap_shows(tracker: InProcessTracker, log: list[AuditEntry]) -> None:
    tracker.answers["audit_entries"] = AuditPage([log[0], log[2]], None)
    assert "something was taken out or put in" in refused("audit", "verify")
    tracker.answers["audit_entries"] = AuditPage(log[1:], None)  # the newest is gone, which a noted hash tells
    assert "the newest ones were taken out" in refused("audit", "verify", "--contains", log[0].hash)
