"""Each route with each kind of token and of session, made from the OpenAPI document; and WebSockets and streams."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse

from sienn_ray.access.principals import Scope
from sienn_ray.access.secret_texts import random_text
from sienn_ray.api.app import create_app
from sienn_ray.jobs.schema import JobStatus, utc_now
from sienn_ray.settings import Settings
from tests.support.fake_issuer import AUDIENCE, FakeIssuer, fake_issuer
from tests.support.fakes_api import dataset_record, job_record
from tests.support.fakes_backends import fake_backends
from tests.support.fakes_exports import export_record
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.access.made_credentials import COOKIE, EVIL, Credentials
from tests.unit.api.access.test_authentication import ADMIN_KEY, GUARDED, is_refused, key_of, request

ALL_BUT_ADMIN = frozenset(Scope) - {Scope.ADMIN}
SAME_ORIGIN = {"Sec_Fetch_Site": "same-origin"}
STREAMS = ("/api/events", "/api/events/metrics", "/api/events/jobs/ada-job")
SOCKETS = ("/api/ws/events", "/api/ws/metrics", "/api/ws/jobs/ada-job")


@pytest.fixture(scope="module")
def running_issuer() -> Iterator[FakeIssuer]:
    with fake_issuer() as issuer:
        yield issuer


def settings_of(folder: Path, running_issuer: FakeIssuer) -> Settings:
    return Settings(
        env="test",
        home=folder / "home",
        auth="on",
        admin_key=ADMIN_KEY,
        rate_limits="",
        token_rate_limits="",
        oidc_issuer=running_issuer.url,
        oidc_audience=AUDIENCE,
        oidc_admin_group="admins",
    )


@pytest.fixture
def settings(tmp_path: Path, running_issuer: FakeIssuer) -> Settings:
    return settings_of(tmp_path, running_issuer)


@pytest.fixture(scope="module")
def refusing(
    tmp_path_factory: pytest.TempPathFactory, running_issuer: FakeIssuer
) -> Iterator[tuple[TestClient, dict[str, tuple[str, str]]]]:
    """A service, and tokens that it has to refuse; nothing changes it, so there is one for all tests."""
    settings = settings_of(tmp_path_factory.mktemp("refusing"), running_issuer)
    tracker = InProcessTracker(settings)
    with TestClient(create_app(fake_backends(settings, tracker=tracker))) as client:
        yield client, Credentials(tracker, settings, running_issuer).invalid_tokens()


@pytest.fixture
def tracker(tracker: InProcessTracker) -> InProcessTracker:
    tracker.put(dataset_record(id="ada-data", owner="ada"))
    tracker.put(job_record(id="ada-job", owner="ada", dataset_id="ada-data", status=JobStatus.COMPLETED))
    tracker.put_export(export_record("ada-job", id="ada-export"))
    return tracker


@pytest.fixture
def credentials(tracker: InProcessTracker, settings: Settings, running_issuer: FakeIssuer) -> Credentials:
    return Credentials(tracker, settings, running_issuer)


@pytest.mark.parametrize(("method", "path", "operation"), GUARDED)
def test_an_operation_and_every_kind_of_invalid_token(
    refusing: tuple[TestClient, dict[str, tuple[str, str]]], method: str, path: str, operation: dict[str, Any]
) -> None:
    client, tokens = refusing
    for name, (token, reason) in tokens.items():
        response = request(client, method, path, operation, token)
        assert response.status_code == 401, (name, response.text)
        assert response.headers["www-authenticate"] == 'Bearer realm="sienn_ray", error="invalid_token"', name
        body = response.json()
        assert re.search(reason, body.get("detail") or body["error"]["message"]), (name, body)


@pytest.mark.parametrize(("method", "path", "operation"), GUARDED)
def test_an_operation_and_every_kind_of_token(
    client: TestClient, credentials: Credentials, method: str, path: str, operation: dict[str, Any]
) -> None:
    def ask(token: str) -> Any:
        return request(client, method, path, operation, token)

    needed = frozenset(Scope(scope) for each in operation["security"] for scope in each.get("Bearer", []))
    if lacking := set(Scope) - needed - {Scope.ADMIN}:
        is_refused(ask(credentials.token("ada", *lacking)), 403)
        # What the key may do, the token may not.
        is_refused(ask(credentials.token("ada", *Scope, wanted=frozenset(lacking))), 403)
    # And what the token says that it may, the key may not.
    if needed == {Scope.ADMIN}:
        is_refused(ask(credentials.token("ada", *ALL_BUT_ADMIN, wanted=frozenset(Scope))), 403)
        is_refused(ask(credentials.issuer.token(scope="read train infer export admin")), 403)
    if "{" in path and needed != {Scope.ADMIN} and "{model}" not in path:
        is_refused(ask(credentials.token("bob", *ALL_BUT_ADMIN)), 404)
        is_refused(ask(credentials.issuer.token(scope="read train infer export")), 404)
    key_of(credentials.tracker, "ada", Scope.READ, key_id="key-of-ada")
    valid = [
        credentials.token("ada", *needed),
        credentials.token("admin", Scope.ADMIN),
        credentials.token_of(ADMIN_KEY, frozenset({Scope.ADMIN})),
        credentials.issuer.token(groups=["admins"]),
    ]
    if needed != {Scope.ADMIN}:
        valid.append(credentials.issuer.token(scope=" ".join(needed)))
    for token in valid:
        assert ask(token).status_code not in {401, 403}


@pytest.mark.parametrize(("method", "path", "operation"), GUARDED)
def test_an_operation_and_every_kind_of_session(
    client: TestClient, credentials: Credentials, method: str, path: str, operation: dict[str, Any]
) -> None:
    def ask(cookie: str, **headers: str) -> Any:
        return request(client, method, path, operation, None, Cookie=cookie, **headers)

    needed = {Scope(scope) for each in operation["security"] for scope in each.get("Bearer", [])}
    now, is_change = utc_now(), method.upper() != "GET"
    key = key_of(credentials.tracker, "ada", *Scope)
    invalid = {
        "unknown": f"{COOKIE}={random_text()}",
        "without its prefix": credentials.session("ada", *Scope).replace("__Host-", ""),
        "expired": credentials.session("ada", *Scope, expires_at=now - timedelta(seconds=1)),
        "idle": credentials.session("ada", *Scope, seen_at=now - timedelta(hours=2)),
        "ended": credentials.session("ada", *Scope, ended_at=now),
        "of a revoked key": credentials.session(
            "ada", *Scope, key=key_of(credentials.tracker, "ada", *Scope, revoked_at=now)
        ),
        "of no key": credentials.session("ada", *Scope, key="sienn_none_x"),
        "empty": f"{COOKIE}=",
    }
    for name, cookie in invalid.items():
        response = ask(cookie, **SAME_ORIGIN)
        assert response.status_code == 401, (name, response.text)
    # Forged by a page of another site, or by one that doesn't say where it is.
    forged: list[dict[str, str]] = [
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": "http://testserver"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site", "Origin": "https://sibling.testserver"},
        *([{}, {"Sec_Fetch_Site": "none"}] if is_change else []),
    ]
    for headers in forged:
        is_refused(ask(credentials.session("ada", *Scope, key=key), **headers), 403)
    if lacking := set(Scope) - needed - {Scope.ADMIN}:
        is_refused(ask(credentials.session("ada", *lacking), **SAME_ORIGIN), 403)
    if "{" in path and needed != {Scope.ADMIN} and "{model}" not in path:
        is_refused(ask(credentials.session("bob", *ALL_BUT_ADMIN), **SAME_ORIGIN), 404)
    key_of(credentials.tracker, "ada", Scope.READ, key_id="key-of-ada")
    fine: list[dict[str, str]] = [SAME_ORIGIN, {"Origin": "https://testserver"}, *([] if is_change else [{}])]
    for headers in fine:
        assert ask(credentials.session("ada", *needed, key=key), **headers).status_code not in {401, 403}
    for cookie in (credentials.session("ada", *needed), credentials.session("admin", Scope.ADMIN)):
        assert ask(cookie, **SAME_ORIGIN).status_code not in {401, 403}
    # A header counts before a cookie, so that it needs no proof.
    good = credentials.token("ada", *needed)
    assert request(client, method, path, operation, good, Cookie=invalid["expired"]).status_code not in {401, 403}
    assert request(client, method, path, operation, "x", Cookie=credentials.session("ada", *Scope)).status_code == 401


@pytest.mark.parametrize("path", STREAMS)
def test_a_stream_of_a_page(client: TestClient, credentials: Credentials, path: str) -> None:
    """As an `EventSource` asks for it, which has no headers of its own."""

    def ask(cookie: str, **headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return client.get(path, params={"limit": 1}, headers={"Cookie": cookie, **named}).status_code

    credentials.tracker.put(job_record(id="ada-job", owner="ada", dataset_id="ada-data", status=JobStatus.COMPLETED))
    if path != "/api/events":  # which has nothing to say here
        assert ask(credentials.session("ada", Scope.READ), **SAME_ORIGIN) == 200
    assert ask(credentials.session("ada", Scope.READ), Sec_Fetch_Site="cross-site", Origin=EVIL) == 403
    assert ask(credentials.session("ada", Scope.READ), Sec_Fetch_Site="same-site") == 403
    assert ask(credentials.session("ada", Scope.READ), Origin=EVIL) == 403
    assert ask(credentials.session("ada", Scope.INFER), **SAME_ORIGIN) == 403
    assert ask(f"{COOKIE}={random_text()}", **SAME_ORIGIN) == 401


def denied(connect: Callable[[], Any]) -> int:
    with pytest.raises(WebSocketDenialResponse) as denial, connect():
        pass
    return denial.value.status_code


@pytest.mark.parametrize("path", SOCKETS)
def test_a_websocket_and_every_kind_of_credential(
    client: TestClient,
    credentials: Credentials,
    refusing: tuple[TestClient, dict[str, tuple[str, str]]],
    path: str,
) -> None:
    def connect(**headers: str) -> Any:
        return client.websocket_connect(
            path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    def by_token(token: str) -> Any:
        return client.websocket_connect(path, subprotocols=["sienn", f"sienn.key.{token}"])

    for name, (token, _) in refusing[1].items():
        offered = ["sienn", f"sienn.key.{token}"]
        assert denied(lambda sent=offered: refusing[0].websocket_connect(path, subprotocols=sent)) == 401, name  # type: ignore[misc]
    assert denied(lambda: by_token(credentials.token("ada", Scope.INFER))) == 403
    session = credentials.session("ada", Scope.READ)
    # Cross-site WebSocket hijacking: a browser sends the cookie along, and says whose page it is.
    for headers in ({"Origin": EVIL}, {"Origin": "null"}, {"Origin": "http://testserver"}, {}):
        assert denied(lambda sent=headers: connect(Cookie=session, **sent)) == 403, headers  # type: ignore[misc]
    assert denied(lambda: connect(Cookie=f"{COOKIE}={random_text()}", Origin="https://testserver")) == 401
    if path.endswith("ada-job"):
        assert denied(lambda: by_token(credentials.token("bob", Scope.READ))) == 404
        assert (
            denied(lambda: connect(Cookie=credentials.session("bob", Scope.READ), Origin="https://testserver")) == 404
        )
    if path == "/api/ws/events":  # which has nothing to say here
        return
    with connect(Cookie=session, Origin="https://testserver") as socket:
        assert socket.receive_json()
    for token in (credentials.token("ada", Scope.READ), credentials.token("admin", Scope.ADMIN)):
        with by_token(token) as socket:
            assert socket.receive_json()


@pytest.mark.parametrize(
    ("kind", "owner"), [("api_key", "ada"), ("access_token", "ada"), ("oidc_token", None), ("session", "ada")]
)
def test_everybody_is_told_who_they_are(
    client: TestClient, credentials: Credentials, kind: str, owner: str | None
) -> None:
    key = key_of(credentials.tracker, "ada", Scope.READ, Scope.INFER)
    headers = {
        "api_key": {"Authorization": f"Bearer {key}"},
        "access_token": {"X-API-Key": credentials.token_of(key, frozenset({Scope.READ}))},
        "oidc_token": {"Authorization": f"Bearer {credentials.issuer.token(scope='openid read')}"},
        "session": {"Cookie": credentials.session("ada", Scope.READ, key=key)},
    }[kind]
    me = client.get("/api/auth/me", headers=headers).json()
    assert me["credential"] == kind
    assert me["owner"] == (owner or f"{credentials.issuer.url}|ada")
    narrow = kind in {"access_token", "oidc_token"}
    assert me["scopes"] == (["read"] if narrow else ["infer", "read"])
    assert (me["key_id"] is None) == (kind == "oidc_token")
