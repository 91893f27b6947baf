"""Logins of browsers at an outside issuer, over the whole application, with an issuer that answers over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from starlette.testclient import TestClient

from sienn_ray.access.audit import PrincipalKind
from sienn_ray.api.app import create_app
from sienn_ray.api.oidc import login as login_module
from sienn_ray.api.oidc.local_paths import checked_local_path
from sienn_ray.api.oidc.login import challenge_of
from sienn_ray.errors import InvalidInputError
from sienn_ray.jobs.audit_schema import AuditQuery
from sienn_ray.settings import Settings
from tests.support.fake_issuer import CLIENT_ID, CLIENT_SECRET, FakeIssuer, fake_issuer
from tests.support.fakes_backends import fake_backends
from tests.support.in_process_tracker import InProcessTracker

HERE = "https://sienn.example.org"
PAGE = {"Origin": HERE, "Sec-Fetch-Site": "same-origin"}
# As a browser comes back from another site.
BACK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
Service = Callable[..., TestClient]


@pytest.fixture
def fake() -> Iterator[FakeIssuer]:
    with fake_issuer() as issuer:
        yield issuer


@pytest.fixture
def tracker(tmp_path: Path) -> InProcessTracker:
    return InProcessTracker(Settings(env="test", home=tmp_path / "home"))


@pytest.fixture
def service(tmp_path: Path, fake: FakeIssuer, tracker: InProcessTracker) -> Iterator[Service]:
    """Make a browser's client of a replica; all have one tracker."""
    with ExitStack() as clients:

        def make(base_url: str = HERE, **fields: Any) -> TestClient:
            chosen = {
                "env": "test",
                "home": tmp_path / "home",
                "auth": "on",
                "oidc_issuer": fake.url,
                "oidc_client_id": CLIENT_ID,
                "oidc_client_secret": CLIENT_SECRET,
                "oidc_default_scopes": "read",
                **fields,
            }
            app = create_app(fake_backends(Settings(**chosen), tracker=tracker))
            return clients.enter_context(TestClient(app, base_url=base_url, follow_redirects=False))

        yield make


def local(url: str) -> str:
    """The path of a URL of this service, with its query."""
    return url.removeprefix(HERE)


def start(client: TestClient, **query: str) -> str:
    """Begin a login; gives the URL that the browser is sent to."""
    response = client.get("/api/auth/login", params=query)
    assert response.status_code == 303, response.text
    assert response.headers["cache-control"] == "no-store"
    return str(response.headers["location"])


def test_a_browser_logs_in(service: Service, fake: FakeIssuer) -> None:
    client = service()
    url = start(client, next="/docs?a=1#b")
    query = dict(parse_qsl(urlsplit(url).query))
    assert url.startswith(f"{fake.url}/authorize?tenant=1&response_type=code&")
    assert query["client_id"] == CLIENT_ID
    assert query["redirect_uri"] == f"{HERE}/api/auth/callback"
    assert query["scope"] == "openid profile"
    assert len(query["state"]) == len(query["nonce"]) == 43
    back = client.get(local(fake.log_in(url)), headers=BACK)
    assert back.status_code == 303, back.text
    assert back.headers["location"] == "/docs?a=1#b"
    cookies = SimpleCookie()
    for header in back.headers.get_list("set-cookie"):
        cookies.load(header)
    session = cookies["__Host-sienn_session"]
    assert (session["httponly"], session["secure"], session["samesite"]) == (True, True, "lax")
    assert cookies["__Host-sienn_login"]["max-age"] == "0"
    me = client.get("/api/auth/me", headers=PAGE).json()
    assert (me["owner"], me["scopes"], me["credential"]) == (f"{fake.url}|ada", ["read"], "session")
    (form,) = fake.forms
    assert (form["client_id"], form["client_secret"], form["by"]) == (CLIENT_ID, CLIENT_SECRET, "basic")
    assert challenge_of(form["code_verifier"]) == query["code_challenge"]


def test_any_replica_goes_on(service: Service, fake: FakeIssuer) -> None:
    first, second = service(), service()
    url = start(first)
    second.cookies = first.cookies
    assert second.get(local(fake.log_in(url))).status_code == 303
    assert first.get("/api/auth/me", headers={"Cookie": cookie_header(second)}).json()["credential"] == "session"


def cookie_header(client: TestClient) -> str:
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in client.cookies.jar)


def test_a_public_client_has_no_secret(service: Service, fake: FakeIssuer) -> None:
    client = service(oidc_client_secret=None)
    assert client.get(local(fake.log_in(start(client)))).status_code == 303
    assert "client_secret" not in fake.forms[0]


def test_an_issuer_without_basic_gets_the_secret_in_the_form(service: Service, fake: FakeIssuer) -> None:
    fake.discovery = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    client = service()
    assert client.get(local(fake.log_in(start(client)))).status_code == 303
    assert "by" not in fake.forms[0]


def test_groups_make_an_admin(service: Service, fake: FakeIssuer) -> None:
    client = service(oidc_admin_group="ops")
    fake.id_claims = {"groups": ["ops"]}
    client.get(local(fake.log_in(start(client))))
    assert client.get("/api/keys").status_code == 200


def test_who_may_do_nothing_is_told_so(service: Service, fake: FakeIssuer) -> None:
    client = service(oidc_default_scopes="")
    refused = client.get(local(fake.log_in(start(client))))
    assert refused.status_code == 403
    assert "SIENN_OIDC_DEFAULT_SCOPES" in refused.json()["detail"]


def test_logging_out_ends_the_session_and_names_the_issuer_s_own(service: Service, fake: FakeIssuer) -> None:
    client = service()
    client.get(local(fake.log_in(start(client))))
    answer = client.post("/api/auth/logout", headers=PAGE).json()
    assert answer == {"ended": True, "issuer_logout_url": f"{fake.url}/logout?client_id={CLIENT_ID}"}
    assert client.get("/api/auth/me").status_code == 401


class TestForgeries:
    def test_a_way_back_without_a_login_is_none(self, service: Service, fake: FakeIssuer) -> None:
        """Login CSRF: a page has a browser come back with the attacker's code."""
        attacker, victim = service(), service()
        way_back = local(fake.log_in(start(attacker)))
        for _ in range(2):
            refused = victim.get(way_back, headers=BACK)
            assert refused.status_code == 401
            assert "set-cookie" not in refused.headers
            start(victim)  # not even in the middle of one of its own
        assert fake.forms == []

    @pytest.mark.parametrize(
        "change",
        [
            lambda url: url.replace("state=", "state=x"),
            lambda url: url.replace("state=", "state=%C3%A4"),
            lambda url: url.replace("state=", "state=%FF"),
            lambda url: url.partition("&state=")[0],
            lambda url: url.replace("state=", "other="),
            lambda url: url.rpartition("&iss=")[0] + "&iss=https://evil.example",
        ],
    )
    def test_another_state_or_issuer_is_refused(
        self, service: Service, fake: FakeIssuer, change: Callable[[str], str]
    ) -> None:
        client = service()
        assert client.get(change(local(fake.log_in(start(client))))).status_code == 401
        assert fake.forms == []

    def test_a_code_counts_once(self, service: Service, fake: FakeIssuer) -> None:
        client = service()
        url = start(client)
        way_back, cookie = local(fake.log_in(url)), cookie_header(client)
        assert client.get(way_back).status_code == 303
        assert client.get(way_back).status_code == 401
        again = service().get(way_back, headers={"Cookie": cookie})
        assert (again.status_code, "'invalid_grant'" in again.json()["detail"]) == (401, True)

    def test_a_stolen_code_is_of_no_use_elsewhere(self, service: Service, fake: FakeIssuer) -> None:
        """PKCE: the code of one login in another one's way back."""
        thief, victim = service(), service()
        code = dict(parse_qsl(urlsplit(fake.log_in(start(victim))).query))["code"]
        state = dict(parse_qsl(urlsplit(start(thief)).query))["state"]
        refused = thief.get(f"/api/auth/callback?code={code}&state={state}")
        assert refused.status_code == 401
        assert "invalid_grant" in refused.json()["detail"]

    @pytest.mark.parametrize(
        ("claims", "words"),
        [
            ({"nonce": "another"}, "of another login"),
            ({"nonce": None}, "of another login"),
            ({"aud": "another-client"}, "meant for 'another-client'"),
            ({"aud": [CLIENT_ID, "other"]}, "made for another client"),
            ({"azp": "other"}, "made for another client"),
            ({"iss": "https://evil.example"}, "by the issuer"),
            ({"exp": 1}, "has expired"),
            ({"sub": None}, "no 'sub'"),
        ],
    )
    def test_an_id_token_that_is_not_taken(
        self, service: Service, fake: FakeIssuer, claims: dict[str, Any], words: str
    ) -> None:
        client = service()
        fake.id_claims = claims
        refused = client.get(local(fake.log_in(start(client))))
        assert refused.status_code == 401
        assert words in refused.json()["detail"]
        assert "set-cookie" not in refused.headers

    def test_an_id_token_is_no_access_token(self, service: Service, fake: FakeIssuer) -> None:
        client = service(oidc_audience=HERE)
        id_token = fake.token(aud=CLIENT_ID)
        assert client.get("/api/jobs", headers={"Authorization": f"Bearer {id_token}"}).status_code == 401

    def test_a_login_that_takes_too_long(
        self, service: Service, fake: FakeIssuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(login_module, "LOGIN_LIFETIME_S", -1)
        client = service()
        refused = client.get(local(fake.log_in(start(client))))
        assert (refused.status_code, "took too long" in refused.json()["detail"]) == (401, True)

    def test_the_cookie_says_nothing_and_cannot_be_made(self, service: Service, fake: FakeIssuer) -> None:
        client = service()
        query = dict(parse_qsl(urlsplit(start(client)).query))
        cookie = cookie_header(client)
        assert query["state"] not in cookie
        assert query["nonce"] not in cookie
        way_back = f"/api/auth/callback?code=a&state={query['state']}"
        for forged in (cookie[:-4] + "AAAA", "__Host-sienn_login=a.b.c.d.e", "__Host-sienn_login=x"):
            assert service().get(way_back, headers={"Cookie": forged}).status_code == 401

    def test_a_refusal_of_the_issuer_is_told(self, service: Service, fake: FakeIssuer) -> None:
        client = service()
        state = dict(parse_qsl(urlsplit(start(client)).query))["state"]
        error = "access_denied%0d%0aSet-Cookie:%20a=b"
        refused = client.get(f"/api/auth/callback?error={error}&error_description=<script>&state={state}")
        assert refused.status_code == 400
        assert r"'access_denied\r\nSet-Cookie: a=b'" in refused.json()["detail"]
        assert "<script>" not in refused.text


class TestNext:
    @pytest.mark.parametrize(
        "path",
        [
            "https://evil.example",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
            " //evil.example",
            "javascript:alert(1)",
            "evil.example",
            "",
            "/a\\b",
            "/a\r\nSet-Cookie: a=b",
            "/ä",
            "/" + "a" * 2048,
        ],
    )
    def test_no_way_leads_elsewhere(self, service: Service, path: str) -> None:
        refused = service().get("/api/auth/login", params={"next": path})
        assert refused.status_code == 400
        assert "must be a path of this service" in refused.json()["detail"]
        with pytest.raises(InvalidInputError):
            checked_local_path(path)

    @pytest.mark.parametrize("path", ["/", "/docs", "/a//b?c=https://d.example#e", "/%2F/evil.example"])
    def test_paths_of_this_service_do(self, path: str) -> None:
        assert checked_local_path(path) == path


def test_who_has_logged_in_is_in_the_audit_log(service: Service, fake: FakeIssuer, tracker: InProcessTracker) -> None:
    client = service()
    client.get(local(fake.log_in(start(client))))
    (entry,) = tracker.actor.audit_entries(AuditQuery()).entries
    assert (entry.principal_kind, entry.owner) == (PrincipalKind.SESSION, f"{fake.url}|ada")
    assert (entry.action, entry.request) == ("come_back", "GET /api/auth/callback")


def test_behind_a_proxy_the_public_url_counts(service: Service, fake: FakeIssuer) -> None:
    client = service("http://127.0.0.1:8000", public_url=f"{HERE}/sienn")
    url = start(client)
    assert dict(parse_qsl(urlsplit(url).query))["redirect_uri"] == f"{HERE}/sienn/api/auth/callback"
    # The proxy takes its own path away.
    back = client.get(local(fake.log_in(url)).removeprefix("/sienn"), headers={"Cookie": cookie_header(client)})
    assert (back.status_code, back.headers["location"]) == (303, "/sienn/docs")


@pytest.mark.parametrize("fields", [{"oidc_issuer": ""}, {"oidc_client_id": "", "oidc_audience": "a"}])
def test_without_an_issuer_nobody_logs_in(service: Service, fields: dict[str, str]) -> None:
    client = service(**fields)
    for path in ("/api/auth/login", "/api/auth/callback?code=a&state=b"):
        refused = client.get(path)
        assert refused.status_code == 404
        assert "SIENN_OIDC_ISSUER" in refused.json()["detail"]


def test_an_issuer_that_is_away_is_told(service: Service, fake: FakeIssuer) -> None:
    fake.answers = {"/.well-known/openid-configuration": 500}
    refused = service().get("/api/auth/login")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_issuer_that_cannot_answer_now_is_asked_again(
    service: Service, fake: FakeIssuer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    client = service()
    way_back = local(fake.log_in(start(client)))
    with monkeypatch.context() as away:
        away.setattr(fake, "exchange", lambda form: (status, {"error": "temporarily_unavailable"}))
        refused = client.get(way_back)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")
    assert client.get(way_back).status_code == 303


def test_logins_are_limited(service: Service) -> None:
    client = service(token_rate_limits="2/minute")
    assert [client.get("/api/auth/login").status_code for _ in range(3)] == [303, 303, 429]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"oidc_issuer": "http://id.example.org", "oidc_audience": "a"}, "has no TLS"),
        ({"oidc_issuer": "https://id.example.org"}, "without oidc_audience"),
        (
            {"oidc_issuer": "https://id.example.org", "oidc_client_id": "a", "oidc_login_scopes": "profile"},
            "no 'openid'",
        ),
        ({"oidc_algorithms": "HS256"}, "'HS256' isn't taken"),
        ({"oidc_algorithms": "none"}, "'none' isn't taken"),
        ({"oidc_scopes": "a"}, "isn't of the form 'value=scope'"),
        ({"oidc_scopes": "a=write"}, "'write' is no scope"),
        ({"oidc_default_scopes": "write"}, "'write' is no scope"),
    ],
)
def test_settings_that_are_not_safe_are_refused_at_the_start(fields: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Settings.model_validate(fields)
    assert Settings(oidc_issuer="http://id.example.org", oidc_audience="a", oidc_allow_http=True).oidc_issuer
    assert Settings(oidc_issuer="http://127.0.0.1:9000/a", oidc_audience="a").oidc_issuer
