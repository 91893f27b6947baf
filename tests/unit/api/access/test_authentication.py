"""Each route with each kind of credentials, made from the OpenAPI document, so that no route is forgotten."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from starlette.testclient import TestClient, WebSocketDenialResponse

from sienn_ray.access.api_keys import ApiKey, ApiKeyRecord
from sienn_ray.access.principals import Scope
from sienn_ray.api.access.key_lookup import LIFETIME_S, KeyLookup
from sienn_ray.api.access.scopes import PrincipalDep
from sienn_ray.api.app import create_app
from sienn_ray.errors import CapacityError, UnauthorizedError
from sienn_ray.jobs.export_schema import ExportStatus
from sienn_ray.jobs.schema import JobStatus, utc_now
from sienn_ray.settings import Settings
from tests.support.fakes_api import dataset_record, job_record
from tests.support.fakes_backends import fake_backends
from tests.support.fakes_exports import export_record
from tests.support.fakes_webhooks import SECRET, webhook_record
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.access.conftest import ADMIN_KEY as ADMIN_KEY

ADMIN = {"X-API-Key": ADMIN_KEY}
OPEN = {
    "health",
    "download_export",
    "issue_token",
    "token_keys",
    "well_known_token_keys",
    "authorization_server",
}
IDS = {
    "dataset_id": "ada-data",
    "job_id": "ada-job",
    "export_id": "ada-export",
    "key_id": "key-of-ada",
    "webhook_id": "ada-hook",
    "delivery_id": "ada-delivery",
}
# Least bodies that are well-formed, where a route doesn't look at its path first.
BODIES: dict[str, Any] = {
    "start_finetuning": {"dataset_id": "ada-data", "model_name": "owner/model"},
    "test_model": {"job_id": "ada-job", "prompt": "Hello"},
    "compare_models": {"job_ids": ["ada-job"], "prompt": "Hello"},
    "ask_newest": {"prompt": "Hello"},
    "create_chat_completion": {"model": "ada-job", "messages": [{"role": "user", "content": "Hello"}]},
    "create_completion": {"model": "ada-job", "prompt": "Hello"},
    "export_model": {"format": "gguf"},
    "create_key": {"name": "one more"},
    "rotate_key": {},
    "create_webhook": {"url": "https://93.184.216.34/"},
    "change_webhook": {"is_active": True},
    "rotate_webhook_secret": {},
    "set_limits": {"owner": "ada"},
}
# Of these, those with no id in them that is another owner's.
WITHOUT_IDS = {
    "create_key",
    "rotate_key",
    "create_webhook",
    "change_webhook",
    "rotate_webhook_secret",
    "set_limits",
    "export_model",
    "ask_newest",
}


def document() -> dict[str, Any]:
    settings = Settings(env="test", auth="on")
    return create_app(fake_backends(settings)).openapi()


OPERATIONS = [
    pytest.param(method, path, operation, id=operation["operationId"])
    for path, methods in document()["paths"].items()
    for method, operation in methods.items()
]
GUARDED = [each for each in OPERATIONS if each.id not in OPEN]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(env="test", home=tmp_path / "home", auth="on", admin_key=ADMIN_KEY)


@pytest.fixture
def tracker(tracker: InProcessTracker) -> InProcessTracker:
    tracker.put(dataset_record(id="ada-data", owner="ada"))
    tracker.put(job_record(id="ada-job", owner="ada", dataset_id="ada-data", status=JobStatus.COMPLETED))
    tracker.put_export(export_record("ada-job", id="ada-export"))
    tracker.actor.add_webhook(webhook_record("ada-hook", owner="ada"), SECRET)
    return tracker


def key_of(tracker: InProcessTracker, owner: str, *scopes: Scope, key_id: str | None = None, **fields: Any) -> str:
    """Have the tracker know a key; gives its text."""
    key = ApiKey.random()
    record = ApiKeyRecord(
        id=key_id or f"key-{key.prefix}",
        prefix=key.prefix,
        sha256=key.sha256,
        name="a key",
        owner=owner,
        scopes=frozenset(scopes),
        created_at=utc_now(),
        **fields,
    )
    tracker.actor.add_api_key(record)
    return key.text


def request(client: TestClient, method: str, path: str, operation: dict[str, Any], key: str | None, **more: str) -> Any:
    """Call an operation; `more` are headers, with lower dashes."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    options: dict[str, Any] = {"json": BODIES[operation["operationId"]]} if operation["operationId"] in BODIES else {}
    if "multipart/form-data" in operation.get("requestBody", {}).get("content", {}):
        options = {"files": {"file": ("rows.jsonl", b'{"instruction": "a", "response": "b"}\n')}}
    if operation["operationId"] == "add_dataset_version":
        options["params"] = {"change": "append"}
    if operation["operationId"].startswith("follow_"):
        options = {"params": {"limit": 1}}  # it has no end of its own
    path = re.sub(r"\{(\w+)(?::path)?\}", lambda match: IDS.get(match[1], "ada-job"), path)
    return client.request(method, path, headers=headers, **options)


def is_refused(response: Any, status: int) -> None:
    assert response.status_code == status, response.text
    body = response.json()
    assert "detail" in body or "message" in body["error"]
    assert response.headers["x-request-id"]


def test_all_but_a_few_operations_say_which_scopes_they_need() -> None:
    assert {each.id for each in OPERATIONS if "security" not in each.values[2]} == OPEN  # type: ignore[operator]


@pytest.mark.parametrize(("method", "path", "operation"), GUARDED)
def test_an_operation_and_every_kind_of_key(
    client: TestClient, tracker: InProcessTracker, method: str, path: str, operation: dict[str, Any]
) -> None:
    needed = {Scope(scope) for each in operation["security"] for scope in each.get("Bearer", [])}
    assert needed
    now = utc_now()
    everything = tuple(Scope)
    invalid = {
        "none": None,
        "empty": "",
        "another form": "any",
        "unknown": ApiKey.random().text,
        "expired": key_of(tracker, "ada", *everything, expires_at=now - timedelta(seconds=1)),
        "revoked": key_of(tracker, "ada", *everything, revoked_at=now),
        "wrong secret": key_of(tracker, "ada", *everything)[:-43] + "A" * 43,
        "wrong admin key": ADMIN_KEY + "x",
    }
    for key in invalid.values():
        response = request(client, method, path, operation, key)
        is_refused(response, 401)
        assert response.headers["www-authenticate"].startswith("Bearer")
    lacking = set(Scope) - needed - {Scope.ADMIN}
    if lacking:
        is_refused(request(client, method, path, operation, key_of(tracker, "ada", *lacking)), 403)
    if "{" in path and needed != {Scope.ADMIN} and "{model}" not in path:
        others = request(client, method, path, operation, key_of(tracker, "bob", *(set(Scope) - {Scope.ADMIN})))
        is_refused(others, 404)
    key_of(tracker, "ada", Scope.READ, key_id="key-of-ada")
    for key in (key_of(tracker, "ada", *needed), ADMIN_KEY):
        assert request(client, method, path, operation, key).status_code not in {401, 403}


@pytest.mark.parametrize("body", [each for each in BODIES if each not in WITHOUT_IDS])
def test_ids_of_another_owner_in_a_body_are_not_there(client: TestClient, tracker: InProcessTracker, body: str) -> None:
    (operation,) = (each for each in GUARDED if each.id == body)
    method, path, described = operation.values
    key = key_of(tracker, "bob", *(set(Scope) - {Scope.ADMIN}))
    is_refused(request(client, str(method), str(path), described, key), 404)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/health", "/docs", "/redoc", "/openapi.json", "/static/docs/swagger-ui.css"])
@pytest.mark.parametrize("key", [None, "wrong"])
def test_what_is_open_asks_nobody(client: TestClient, tracker: InProcessTracker, path: str, key: str | None) -> None:
    tracker.fail_with(CapacityError("the job tracker is restarting"))
    response = client.get(path, headers={} if key is None else {"X-API-Key": key})
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/nothing", "/static/other", "/docs/x", "/health/", "//health", "/api/export-files"])
def test_what_is_not_there_is_not_open(client: TestClient, path: str) -> None:
    assert client.get(path, follow_redirects=False).status_code == 401


def test_both_headers_are_read(client: TestClient, tracker: InProcessTracker) -> None:
    key = key_of(tracker, "ada", Scope.READ)
    both = {"Authorization": "Basic x", "X-API-Key": key}
    for headers in ({"Authorization": f"bearer  {key}"}, {"X-API-Key": key}, both):
        me = client.get("/api/auth/me", headers=headers)
        assert (me.json()["owner"], me.json()["scopes"], me.json()["authentication"]) == ("ada", ["read"], "on")


def test_a_link_to_an_export_is_its_own_key(client: TestClient) -> None:
    assert client.get("/api/export-files/ada-job/ada-export/x?expires=9&signature=x").status_code == 403


def test_without_authentication_everybody_is_the_admin(tmp_path: Path) -> None:
    with TestClient(create_app(fake_backends(Settings(env="test", home=tmp_path)))) as client:
        me = client.get("/api/auth/me", headers={"Authorization": "Bearer any"}).json()
        assert (me["owner"], me["authentication"]) == ("admin", "off")
        assert "admin" in me["scopes"]
        assert client.get("/openapi.json").json()["paths"]["/api/jobs"]["get"]["security"][0] == {}


@pytest.fixture
def sockets(app: FastAPI) -> Iterator[TestClient]:
    @app.websocket("/api/who")
    async def who(websocket: WebSocket, principal: PrincipalDep) -> None:
        await websocket.accept()
        await websocket.send_text(principal.owner)
        await websocket.close()

    with TestClient(app) as client:
        yield client


def test_websockets_are_asked_too(sockets: TestClient, tracker: InProcessTracker) -> None:
    key = key_of(tracker, "ada", Scope.READ)
    with sockets.websocket_connect("/api/who", headers={"X-API-Key": key}) as socket:
        assert socket.receive_text() == "ada"
    # Pages can't set other headers of a WebSocket.
    with sockets.websocket_connect("/api/who", subprotocols=["sienn", f"sienn.key.{key}"]) as socket:
        assert socket.receive_text() == "ada"
    for headers in ({}, {"X-API-Key": "wrong"}, {"Sec-WebSocket-Protocol": "sienn, sienn.key.wrong"}):
        with pytest.raises(WebSocketDenialResponse) as denied, sockets.websocket_connect("/api/who", headers=headers):
            pass
        assert denied.value.status_code == 401


def test_a_tracker_that_is_away_refuses_nobody_for_good(client: TestClient, tracker: InProcessTracker) -> None:
    key = key_of(tracker, "ada", Scope.READ)
    tracker.fail_with(CapacityError("the job tracker is restarting"))
    response = client.get("/api/jobs", headers={"X-API-Key": key})
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")


class TestKeys:
    """The life of a key, as an admin leads it."""

    def test_a_key_is_shown_once(self, client: TestClient) -> None:
        created = client.post("/api/keys", json={"name": "laptop", "owner": "ada"}, headers=ADMIN)
        assert created.status_code == 201
        assert created.headers["cache-control"] == "no-store"
        key = created.json().pop("key")
        assert client.get("/api/auth/me", headers={"X-API-Key": key}).json()["key_id"] == created.json()["id"]
        listed = client.get("/api/keys", headers=ADMIN)
        assert listed.json()["keys"][0]["prefix"] == key.split("_")[1]
        assert key.split("_")[2] not in listed.text

    def test_a_rotated_key_and_its_successor(self, client: TestClient) -> None:
        old = client.post("/api/keys", json={"name": "a", "owner": "ada", "scopes": ["read"]}, headers=ADMIN).json()
        new = client.post(f"/api/keys/{old['id']}/rotate", json={"grace_s": 3600}, headers=ADMIN).json()
        assert (new["owner"], new["scopes"]) == ("ada", ["read"])
        assert new["key"] != old["key"]
        for key in (old, new):
            assert client.get("/api/jobs", headers={"X-API-Key": key["key"]}).status_code == 200

    def test_a_revoked_key_ends(self, client: TestClient) -> None:
        key = client.post("/api/keys", json={"name": "a"}, headers=ADMIN).json()
        assert client.delete(f"/api/keys/{key['id']}", headers=ADMIN).json()["revoked_at"]
        refused = client.get("/api/jobs", headers={"X-API-Key": key["key"]})
        assert refused.status_code == 401
        assert "has been revoked" in refused.json()["detail"]

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"name": ""},
            {"name": "a", "scopes": []},
            {"name": "a", "scopes": ["write"]},
            {"name": "a", "scopes": ["read", "read"]},
            {"name": "a", "owner": " "},
            {"name": "a", "owner": "a" * 256},
            {"name": "a", "lifetime_s": 0},
            {"name": "a\nb"},
        ],
    )
    def test_what_is_wrong_is_named(self, client: TestClient, body: dict[str, Any]) -> None:
        refused = client.post("/api/keys", json=body, headers=ADMIN)
        assert refused.status_code == 422
        assert re.match(r"(name|scopes|owner|lifetime_s)", refused.json()["detail"])


class TestKeyLookup:
    def test_a_key_is_remembered_for_seconds(self, tracker: InProcessTracker) -> None:
        now = [0.0]
        lookup = KeyLookup(tracker, clock=lambda: now[0])
        text = key_of(tracker, "ada", Scope.READ, key_id="key-1")

        async def ask() -> str:
            return (await lookup.principal_of(text)).owner

        assert asyncio.run(ask()) == asyncio.run(ask()) == "ada"
        assert tracker.calls.count("api_key_of_prefix") == 1
        tracker.actor.revoke_api_key("key-1")
        now[0] = LIFETIME_S + 1
        with pytest.raises(UnauthorizedError, match="has been revoked"):
            asyncio.run(ask())

    def test_unknown_keys_are_remembered_too_but_not_without_a_bound(
        self, tracker: InProcessTracker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sienn_ray.api.access.key_lookup._MAX_REMEMBERED", 3)
        lookup = KeyLookup(tracker)
        texts = [ApiKey.random().text for _ in range(5)]

        async def ask(text: str) -> None:
            with pytest.raises(UnauthorizedError, match=r"^the API key isn't valid$"):
                await lookup.principal_of(text)

        for text in (*texts, texts[-1]):
            asyncio.run(ask(text))
        assert tracker.calls.count("api_key_of_prefix") == 5
        assert len(lookup._remembered) == 3


@pytest.mark.parametrize(("scope", "has_link"), [(Scope.READ, False), (Scope.EXPORT, True)])
def test_a_link_that_needs_no_key_is_for_those_who_may_download(
    client: TestClient, tracker: InProcessTracker, scope: Scope, has_link: bool
) -> None:
    tracker.put_export(export_record("ada-job", id="ada-whole", status=ExportStatus.COMPLETED, file_name="model.gguf"))
    headers = {"X-API-Key": key_of(tracker, "ada", scope)}
    (listed,) = (
        each
        for each in client.get("/api/exports/ada-job", headers=headers).json()["exports"]
        if each["export_id"] == "ada-whole"
    )
    one = client.get("/api/exports/ada-job/ada-whole", headers=headers).json()
    assert [each["download_url"] is not None for each in (listed, one)] == [has_link, has_link]
