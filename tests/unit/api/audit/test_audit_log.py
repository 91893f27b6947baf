"""What each request leaves in the audit log, made from the OpenAPI document, so that no operation is forgotten."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from starlette.testclient import TestClient, WebSocketDenialResponse

from sienn_ray.access.audit import AuditEntry, PrincipalKind
from sienn_ray.access.principals import Scope
from sienn_ray.api.access import session_lookup
from sienn_ray.api.app import create_app
from sienn_ray.api.audit.audit_trails import CHANGING_NOTHING
from sienn_ray.api.audit.recorder import MAX_OF_CALLER
from sienn_ray.errors import CapacityError
from sienn_ray.jobs.audit_schema import AuditQuery
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.tracker_protocol import AUDITED, METHODS, NOT_AUDITED, READING, audited_target
from sienn_ray.settings import Settings
from tests.support.fakes_api import dataset_record, job_record
from tests.support.fakes_backends import fake_backends
from tests.support.fakes_exports import export_record
from tests.support.fakes_webhooks import SECRET, webhook_record
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.access.test_authentication import ADMIN, ADMIN_KEY, GUARDED, IDS, key_of, request

CHANGES = [each for each in GUARDED if each.values[0] not in {"get", "head", "options"}]
CHANGING = [each for each in CHANGES if each.id not in CHANGING_NOTHING]
ALL_BUT_ADMIN = set(Scope) - {Scope.ADMIN}
# Of operations that want a job in another state than completed.
STATUSES = {
    "cancel_job": JobStatus.PENDING,
    "pause_job": JobStatus.PENDING,
    "resume_job": JobStatus.PAUSED,
    "retry_job": JobStatus.FAILED,
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(env="test", home=tmp_path / "home", auth="on", admin_key=ADMIN_KEY)


@pytest.fixture
def tracker(tracker: InProcessTracker) -> InProcessTracker:
    """Ada has one of each."""
    tracker.put(dataset_record(id="ada-data", owner="ada"))
    tracker.put(job_record(id="ada-job", owner="ada", dataset_id="ada-data", status=JobStatus.COMPLETED))
    tracker.put_export(export_record("ada-job", id="ada-export"))
    tracker.actor.add_webhook(webhook_record("ada-hook", owner="ada"), SECRET)
    return tracker


@pytest.fixture
def entries(app: FastAPI, tracker: InProcessTracker) -> Callable[..., list[AuditEntry]]:
    """Gives what is in the log, the newest first."""

    def read(**query: Any) -> list[AuditEntry]:
        asyncio.run(app.state.audit.flush())
        return tracker.actor.audit_entries(AuditQuery(**query)).entries

    return read


def test_the_tracker_s_changes_are_audited_or_known_not_to_be() -> None:
    assert METHODS.keys() > NOT_AUDITED
    assert METHODS.keys() - READING - NOT_AUDITED == AUDITED
    assert not NOT_AUDITED & READING


def test_what_changes_nothing_is_there() -> None:
    assert {each.id for each in CHANGES} > CHANGING_NOTHING
    assert len(CHANGING) >= 20


@pytest.mark.parametrize(("method", "path", "operation"), CHANGES)
def test_a_request_that_is_refused_leaves_an_entry(
    client: TestClient,
    tracker: InProcessTracker,
    entries: Callable[..., list[AuditEntry]],
    method: str,
    path: str,
    operation: dict[str, Any],
) -> None:
    needed = {Scope(scope) for each in operation["security"] for scope in each.get("Bearer", [])}
    lacking = key_of(tracker, "ada", *(set(Scope) - needed - {Scope.ADMIN}), key_id="key-of-ada")
    assert request(client, method, path, operation, "any").status_code == 401
    assert request(client, method, path, operation, lacking).status_code == 403
    refused, unknown = entries()[:2]
    assert (unknown.principal_kind, unknown.status, unknown.client) == (PrincipalKind.NOBODY, 401, "testclient")
    assert unknown.action is None
    assert unknown.request is not None
    assert unknown.request.startswith(f"{method.upper()} /")
    assert (refused.principal_kind, refused.principal_id, refused.owner) == (PrincipalKind.API_KEY, "key-of-ada", "ada")
    assert (refused.principal_name, refused.status) == ("a key", 403)
    assert (refused.action, refused.request) == (operation["operationId"], f"{method.upper()} {path}")
    if "{" in path and needed != {Scope.ADMIN}:
        others = key_of(tracker, "bob", *ALL_BUT_ADMIN, key_id="key-of-bob")
        assert request(client, method, path, operation, others).status_code == 404
        hidden = entries()[0]
        assert (hidden.status, hidden.owner, hidden.action) == (404, "bob", operation["operationId"])
        assert hidden.target_id in IDS.values()
    assert all(each.hash == each.computed_hash() for each in entries())


@pytest.mark.parametrize(("method", "path", "operation"), CHANGING)
def test_a_change_leaves_one_entry(
    client: TestClient,
    tracker: InProcessTracker,
    entries: Callable[..., list[AuditEntry]],
    method: str,
    path: str,
    operation: dict[str, Any],
) -> None:
    """Whether the tracker writes it with the change, or the replica does since there was none."""
    name = operation["operationId"]
    key_of(tracker, "ada", Scope.READ, key_id="key-of-ada")
    if name in STATUSES:
        tracker.put(job_record(id="ada-job", owner="ada", dataset_id="ada-data", status=STATUSES[name]))
    before = len(entries())
    response = request(client, method, path, operation, ADMIN_KEY)
    after = entries()
    entry = after[0]
    assert len(after) - before == 1, [each.request for each in after]
    assert (entry.action, entry.request) == (name, f"{method.upper()} {path}")
    assert entry.status == response.status_code
    assert entry.request_id == response.headers["x-request-id"]
    assert (entry.principal_kind, entry.principal_id) == (PrincipalKind.ADMIN_KEY, "SIENN_ADMIN_KEY")
    assert (entry.owner, entry.client) == ("admin", "testclient")
    if "{" in path and response.is_success:
        assert entry.target_id in IDS.values()
        assert entry.target_kind in {"job", "dataset", "export", "key", "webhook", "delivery"}


# Operations that succeed here.
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cancel_job", "job"),
        ("pause_job", "job"),
        ("resume_job", "job"),
        ("retry_job", "job"),
        ("delete_job", "job"),
        ("delete_export", "export"),
        ("cancel_export", "export"),
        ("create_key", "key"),
        ("rotate_key", "key"),
        ("revoke_key", "key"),
        ("create_webhook", "webhook"),
        ("change_webhook", "webhook"),
        ("rotate_webhook_secret", "webhook"),
        ("test_webhook", "webhook"),
        ("delete_webhook", "webhook"),
        ("upload_dataset", "dataset"),
    ],
)
def test_a_change_and_its_entry_are_written_together(
    client: TestClient,
    tracker: InProcessTracker,
    app: FastAPI,
    name: str,
    kind: str,
) -> None:
    """The replica is lost right after: nothing that it has collected is ever sent."""
    (found,) = (each for each in CHANGING if each.id == name)
    method, path, operation = found.values
    key_of(tracker, "ada", Scope.READ, key_id="key-of-ada")
    if name in STATUSES:
        tracker.put(job_record(id="ada-job", owner="ada", dataset_id="ada-data", status=STATUSES[name]))
    response = request(client, str(method), str(path), operation, ADMIN_KEY)  # type: ignore[arg-type]
    assert response.is_success, response.text
    assert app.state.audit._waiting == type(app.state.audit._waiting)()
    (entry,) = tracker.actor.audit_entries(AuditQuery(action=name)).entries
    assert (entry.status, entry.target_kind) == (response.status_code, kind)
    assert entry.target_id


def test_a_change_whose_entry_can_not_be_written_is_not_made(client: TestClient, tracker: InProcessTracker) -> None:
    tracker.put(job_record(id="ada-job", owner="ada", dataset_id="ada-data", status=JobStatus.PENDING))
    full = "CREATE TRIGGER full BEFORE INSERT ON audit_entries BEGIN SELECT RAISE(ABORT, 'no room'); END"
    with tracker.actor._store.database.writing() as connection:
        connection.execute(sa.text(full))
    assert client.post("/api/jobs/ada-job/cancel", headers=ADMIN).status_code == 500
    assert tracker.actor.job("ada-job").status is JobStatus.PENDING


def test_a_change_that_fails_leaves_the_failure(
    client: TestClient, tracker: InProcessTracker, entries: Callable[..., list[AuditEntry]]
) -> None:
    assert client.post("/api/jobs/ada-job/cancel", headers=ADMIN).status_code == 409
    assert client.post("/api/jobs/none/cancel", headers=ADMIN).status_code == 404
    assert client.post("/api/keys", headers=ADMIN, json={"name": 1}).status_code == 422
    tracker.fail_with(CapacityError("the job tracker is restarting"), 1)
    assert client.delete("/api/datasets/ada-data", headers=ADMIN).status_code == 503
    tracker.fail_with(KeyError("unforeseen"), 1)
    assert client.delete("/api/datasets/ada-data", headers=ADMIN).status_code == 500
    tracker.fail_with(None)
    found = [(each.action, each.status, each.target_id) for each in entries()]
    assert found == [
        ("delete_dataset", 500, "ada-data"),
        ("delete_dataset", 503, "ada-data"),
        ("create_key", 422, None),
        ("cancel_job", 404, "none"),
        ("cancel_job", 409, "ada-job"),
    ]


def test_what_only_looks_leaves_nothing_unless_it_is_refused(
    client: TestClient, tracker: InProcessTracker, entries: Callable[..., list[AuditEntry]]
) -> None:
    bob = {"X-API-Key": key_of(tracker, "bob", Scope.READ)}
    before = len(entries())
    for path in ("/health", "/api/jobs", "/api/jobs/ada-job", "/api/jobs/none", "/api/audit", "/nothing"):
        client.get(path, headers=ADMIN)
    client.get("/api/metrics/prometheus", headers=ADMIN)  # which sends what was counted to the tracker
    client.post("/nothing", headers=ADMIN)
    client.post("/health", headers=ADMIN)
    assert client.post("/api/test-model", headers=ADMIN, json={"job_id": "none", "prompt": "a"}).status_code == 404
    assert client.get("/api/jobs/none", headers=bob).status_code == 404
    assert len(entries()) == before
    assert client.get("/api/jobs/ada-job", headers=bob).status_code == 404
    assert client.get("/api/keys", headers=bob).status_code == 403
    asked = {"model": "ada-job", "prompt": "Hello"}
    assert (
        client.post(
            "/v1/completions", headers={"X-API-Key": key_of(tracker, "bob", Scope.INFER)}, json=asked
        ).status_code
        == 404
    )
    found = [
        (each.action, each.status, each.target_kind, each.target_id) for each in entries()[: len(entries()) - before]
    ]
    assert found == [
        ("create_completion", 404, "job", "ada-job"),
        ("list_keys", 403, None, None),
        ("get_job", 404, "job", "ada-job"),
    ]


def test_refused_websockets_are_told(client: TestClient, entries: Callable[..., list[AuditEntry]]) -> None:
    with pytest.raises(WebSocketDenialResponse), client.websocket_connect("/api/ws/events"):
        pass
    entry = entries()[0]
    assert (entry.request, entry.status) == ("WEBSOCKET /api/ws/events", 401)


def test_too_many_requests_are_told_once_and_counted(tmp_path: Path) -> None:
    settings = Settings(env="test", home=tmp_path, auth="on", admin_key=ADMIN_KEY, rate_limits="3/minute")
    tracker = InProcessTracker(settings)
    with TestClient(create_app(fake_backends(settings, tracker=tracker))) as client:
        statuses = [client.get("/api/jobs", headers=ADMIN).status_code for _ in range(30)]
    assert statuses == [200] * 3 + [429] * 27
    found = tracker.actor.audit_entries(AuditQuery(status=429)).entries
    assert len(found) == 6
    assert sum(each.num_requests for each in found) == 27


def test_pages_of_other_sites_are_told(client: TestClient, entries: Callable[..., list[AuditEntry]]) -> None:
    """Which are refused before it is known who asks."""
    headers = {**ADMIN, "Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert client.post("/api/jobs/ada-job/cancel", headers=headers).status_code == 403
    assert (entries()[0].principal_kind, entries()[0].status) == (PrincipalKind.NOBODY, 403)


def test_without_authentication_it_is_anybody(tmp_path: Path) -> None:
    settings = Settings(env="test", home=tmp_path)
    tracker = InProcessTracker(settings)
    tracker.put(job_record(status=JobStatus.PENDING))
    with TestClient(create_app(fake_backends(settings, tracker=tracker))) as client:
        client.post("/api/jobs/job-1/cancel")
    (entry,) = tracker.actor.audit_entries(AuditQuery()).entries
    assert (entry.principal_kind, entry.owner, entry.target_id) == (PrincipalKind.ANYBODY, "admin", "job-1")


def token_for(client: TestClient, **form: str) -> Any:
    return client.post("/api/auth/token", data=form)


def told(found: list[AuditEntry]) -> list[tuple[Any, ...]]:
    return [(each.principal_kind, each.principal_id, each.owner, each.action, each.status) for each in found]


def test_who_gets_a_token_is_told(
    client: TestClient, tracker: InProcessTracker, entries: Callable[..., list[AuditEntry]]
) -> None:
    key = key_of(tracker, "ada", Scope.READ, key_id="key-1")
    proof = {"client_id": "key-1", "client_secret": key}
    first = token_for(client, grant_type="client_credentials", **proof).json()["refresh_token"]
    second = token_for(client, grant_type="refresh_token", refresh_token=first).json()["refresh_token"]
    third = token_for(client, grant_type="refresh_token", refresh_token=second, **proof).json()["refresh_token"]
    assert token_for(client, grant_type="client_credentials", scope="train", **proof).status_code == 400
    tracker.actor.revoke_api_key("key-1")
    assert token_for(client, grant_type="refresh_token", refresh_token=third).status_code == 400
    kinds = told(entries())[::-1]
    ada = ("key-1", "ada", "issue_token")
    assert kinds[:4] == [
        (PrincipalKind.API_KEY, *ada, 200),
        (PrincipalKind.REFRESH_TOKEN, *ada, 200),
        (PrincipalKind.API_KEY, *ada, 200),
        # That of the family's end, which is written with it.
        (PrincipalKind.REFRESH_TOKEN, *ada, 400),
    ]
    assert sorted(kinds[4:]) == [
        (PrincipalKind.API_KEY, *ada, 400),
        (PrincipalKind.NOBODY, None, None, "issue_token", 400),
    ]


def test_nonsense_in_place_of_tokens_does_not_fill_the_log(
    client: TestClient, entries: Callable[..., list[AuditEntry]]
) -> None:
    for number in range(2 * MAX_OF_CALLER):
        token_for(client, grant_type="refresh_token", refresh_token=f"siennr_{number}")
    found = told(entries())
    assert set(found) == {(PrincipalKind.NOBODY, None, None, "issue_token", 400)}
    assert len(found) <= MAX_OF_CALLER


def test_the_use_of_a_session_is_no_change(
    app: FastAPI,
    tracker: InProcessTracker,
    entries: Callable[..., list[AuditEntry]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = TestClient(app, base_url="https://testserver")
    page.post("/api/auth/session", headers={"X-API-Key": key_of(tracker, "ada", Scope.READ)})
    before = len(entries())
    monkeypatch.setattr(session_lookup, "_NOTES_PER_TIMEOUT", 1e9)
    assert page.get("/api/jobs").status_code == 200
    assert "touch_session" in tracker.calls
    assert len(entries()) == before


def test_changes_of_programs_on_the_cluster_are_the_service_s(tracker: InProcessTracker) -> None:
    asyncio.run(tracker.cancel_export("ada-export"))
    (entry,) = tracker.actor.audit_entries(AuditQuery()).entries
    assert (entry.principal_kind, entry.action, entry.target_id) == (
        PrincipalKind.SERVICE,
        "cancel_export",
        "ada-export",
    )


def test_no_secret_is_in_the_log(
    client: TestClient, tracker: InProcessTracker, entries: Callable[..., list[AuditEntry]]
) -> None:
    """Keys, secrets, bodies, queries: none of what was sent or answered."""
    key = key_of(tracker, "ada", *ALL_BUT_ADMIN)
    made = client.post("/api/keys", headers=ADMIN, json={"name": "one more"}).json()
    hook = client.post("/api/webhooks", headers={"X-API-Key": key}, json={"url": "https://93.184.216.34/tok-en"}).json()
    client.post(f"/api/webhooks/{hook['webhook_id']}/rotate-secret", headers={"X-API-Key": key}, json={})
    client.post("/api/start-finetuning", headers={"X-API-Key": key}, json={"dataset_id": "ada-data", "hf": "tok-en"})
    client.get("/api/jobs?tok-en=tok-en", headers={"Authorization": "Bearer tok-en"})
    client.get("/api/export-files/ada-job/ada-export/x?expires=9&signature=tok-en")
    client.post("/api/jobs/ada-job/cancel?tok-en=1", headers={"X-API-Key": key})
    text = json.dumps([vars(each) for each in entries()], default=str)
    assert len(entries()) >= 6
    for secret in ("tok-en", key, made["key"], made["key"][-43:], hook["secret"], ADMIN_KEY, "Bearer"):
        assert secret not in text


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/api/jobs/a%0AFAKE%20ENTRY%1B%5B31m", "GET /api/jobs/a\\nFAKE ENTRY\\x1b[31m"),
        ("/api/%E2%80%AEjobs", "GET /api/\\u202ejobs"),
        ("/" + "x" * 1000, "GET /" + "x" * 195 + "…"),
    ],
)
def test_what_a_client_chooses_is_one_harmless_line(
    client: TestClient, entries: Callable[..., list[AuditEntry]], path: str, shown: str
) -> None:
    assert client.get(path).status_code == 401
    assert entries()[0].request == shown


def test_what_a_tracker_answers_names_the_target() -> None:
    assert audited_target("add_job", (job_record(),), job_record()) == ("job", "job-1")
    assert audited_target("redeliver", ("hook-1", "msg-1"), None) == ("delivery", "msg-1")
    assert audited_target("add_metrics", (None,), None) == (None, None)


# Reading it


def test_only_admins_read_it(client: TestClient, tracker: InProcessTracker) -> None:
    for scope in ALL_BUT_ADMIN:
        assert client.get("/api/audit", headers={"X-API-Key": key_of(tracker, "ada", scope)}).status_code == 403


def test_it_is_read_in_pages_and_filtered(client: TestClient, tracker: InProcessTracker) -> None:
    ada = {"X-API-Key": key_of(tracker, "ada", Scope.TRAIN, key_id="key-1")}
    for _ in range(3):
        client.delete("/api/jobs/ada-job", headers=ada)
    client.post("/api/keys", headers=ADMIN, json={"name": "x"})
    asyncio.run(client.app.state.audit.flush())  # type: ignore[attr-defined]

    def read(**query: Any) -> Any:
        response = client.get("/api/audit", headers=ADMIN, params=query)
        assert response.status_code == 200, response.text
        return response.json()

    first = read(limit=1)
    second = read(limit=1, cursor=first["next_cursor"])
    assert second["entries"][0]["seq"] < first["entries"][0]["seq"]
    of_ada = read(principal="key-1")["entries"]
    assert [each["status"] for each in of_ada] == [404, 404, 200]
    assert read(principal="ada")["entries"] == read(target_id="ada-job")["entries"] == of_ada
    assert read(action="delete_job", status=200)["entries"] == of_ada[-1:]
    assert read(request_id=of_ada[0]["request_id"])["entries"] == of_ada[:1]
    moment = of_ada[0]["created_at"]
    assert read(until="2000-01-01T00:00:00Z")["entries"] == []
    assert len(read(since="2000-01-01T00:00:00+09:00")["entries"]) == 4
    assert of_ada[0] in read(since=moment)["entries"]
    assert read(target_kind="key")["entries"][0]["action"] == "create_key"


@pytest.mark.parametrize(
    "query",
    [
        "since=yesterday",
        "since=0.5",
        "since=2025-01-01T00:00:00",
        "until=9999-12-31T23:59:59-23:00",
        "status=99",
        "limit=0",
        "x=1",
    ],
)
def test_other_questions_are_refused(client: TestClient, query: str) -> None:
    assert client.get(f"/api/audit?{query}", headers=ADMIN).status_code == 422
    assert client.get("/api/audit?cursor=x", headers=ADMIN).status_code == 400


def test_no_route_and_no_call_changes_an_entry() -> None:
    """The log has one way in, and its retention."""
    assert {name for name in METHODS if "audit" in name} == {"audit_entries", "add_audit_reports"}
    assert [each.id for each in GUARDED if "/audit" in str(each.values[1])] == ["read_audit_log"]
