"""Entries of the audit log by themselves."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import TypeAdapter

from sienn_ray.access.audit import MAX_TEXT_CHARS, AuditEntry, AuditOrigin, AuditReport, PrincipalKind, recorded
from sienn_ray.access.audit_trail import Trail, followed, note_hidden, origin_of_change

MOMENT = datetime(2025, 3, 4, 5, 6, 7, 890_123, tzinfo=UTC)
ORIGIN = AuditOrigin(
    PrincipalKind.API_KEY, "key-1", "Ada's laptop", "ada", "203.0.113.7", "r", "cancel_job", "POST /x", 200
)
REPORT = AuditReport("id-1", MOMENT, ORIGIN, "job", "job-1")


def test_an_entry_has_what_was_reported() -> None:
    entry = AuditEntry.of(REPORT, "before")
    assert vars(ORIGIN).items() <= vars(entry).items()
    assert (entry.target_kind, entry.target_id, entry.previous_hash) == ("job", "job-1", "before")
    assert entry.created_at == MOMENT.replace(microsecond=890_000)
    assert entry.hash == entry.computed_hash()


@pytest.mark.parametrize("name", [each.name for each in fields(AuditEntry) if each.name not in {"seq", "hash"}])
def test_every_field_counts_for_the_hash(name: str) -> None:
    entry = AuditEntry.of(REPORT, "before")
    others: dict[str, Any] = {
        "created_at": MOMENT + timedelta(seconds=1),
        "principal_kind": PrincipalKind.NOBODY,
        "status": 201,
        "num_requests": 2,
    }
    changed = replace(entry, **{name: others.get(name, "something else")})
    assert changed.computed_hash() != entry.hash


def test_the_hash_can_be_computed_from_what_the_api_shows() -> None:
    entry = AuditEntry.of(REPORT, "before")
    shown = entry.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    answered = json.loads(json.dumps({**vars(entry), "created_at": shown, "seq": 7}))
    read = TypeAdapter(AuditEntry).validate_python(answered)
    assert read.computed_hash() == entry.hash
    elsewhere = replace(entry, created_at=entry.created_at.astimezone(timezone(timedelta(hours=9))))
    assert elsewhere.computed_hash() == entry.hash


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("POST /api/jobs", "POST /api/jobs"),
        ("Fähre ⛴", "Fähre ⛴"),
        ("a\nb\r\n", "a\\nb\\r\\n"),
        ("\x1b[31mred\x07\x00", "\\x1b[31mred\\x07\\x00"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\u2028b\u0085c", "a\\u2028b\\x85c"),
        ("\ud800", "\\ud800"),
        ("x" * 300, "x" * MAX_TEXT_CHARS + "…"),
    ],
)
def test_texts_of_clients_are_one_harmless_line(text: str | None, expected: str | None) -> None:
    assert recorded(text) == expected


def test_all_texts_that_a_client_may_choose_are_made_harmless() -> None:
    hostile = "a\nb\x1b[2J"
    names = {each.name for each in fields(AuditOrigin)} - {"principal_kind", "status"}
    chosen: dict[str, Any] = dict.fromkeys(names, hostile)
    report = replace(REPORT, origin=replace(ORIGIN, **chosen), target_id=hostile)
    entry = AuditEntry.of(report, "")
    assert {getattr(entry, name) for name in (*names, "target_id")} == {"a\\nb\\x1b[2J"}


def test_a_trail_is_that_of_its_block() -> None:
    trail = Trail(lambda: ORIGIN)
    assert origin_of_change() is None
    with followed(trail):
        assert not trail.has_asked
        assert origin_of_change() == ORIGIN
        note_hidden("Job", "job-1")
    assert (trail.has_asked, trail.hidden) == (True, ("Job", "job-1"))
    assert origin_of_change() is None
    note_hidden("Job", "job-2")
    assert trail.hidden == ("Job", "job-1")
