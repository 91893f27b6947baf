"""Sessions of browsers, begun with API keys, over the whole application."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from http.cookies import Morsel, SimpleCookie
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.responses import Response
from starlette.testclient import TestClient
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from sienn_ray.access.principals import Principal, Scope
from sienn_ray.api.access.key_lookup import ADMIN_KEY_ID, LIFETIME_S, KeyLookup
from sienn_ray.api.access.session_cookies import SESSION, SessionCookies
from sienn_ray.api.access.session_lookup import SessionLookup
from sienn_ray.api.app import create_app
from sienn_ray.errors import CapacityError, ForbiddenError, InvalidTokenError
from sienn_ray.jobs.audit_schema import AuditQuery
from sienn_ray.jobs.schema import JobStatus, utc_now
from sienn_ray.settings import Settings
from tests.support.fakes_api import job_record
from tests.support.fakes_backends import fake_backends
from tests.support.in_process import served
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.access.test_authentication import ADMIN_KEY, key_of

PATH, SESSIONS = "/api/auth/session", "/api/auth/sessions"
HERE = "https://sienn.example.org"
PAGE = {"Origin": HERE, "Sec-Fetch-Site": "same-origin"}
ISSUER = "https://id.example.org"
Service = Callable[..., TestClient]


@pytest.fixture
def tracker(tmp_path: Path) -> InProcessTracker:
    return InProcessTracker(Settings(env="test", home=tmp_path / "home"))


@pytest.fixture
def service(tmp_path: Path, tracker: InProcessTracker) -> Iterator[Service]:
    """Make a browser's client of a replica; all have one tracker."""
    with ExitStack() as clients:

        def make(base_url: str = HERE, **fields: Any) -> TestClient:
            chosen = {"env": "test", "home": tmp_path / "home", "auth": "on", "admin_key": ADMIN_KEY, **fields}
            app = create_app(fake_backends(Settings(**chosen), tracker=tracker))
            return clients.enter_context(TestClient(app, base_url=base_url))

        yield make


def begin(client: TestClient, key: str, **headers: str) -> Any:
    return client.post(PATH, headers={"Authorization": f"Bearer {key}", **headers})


def cookie_of(response: Any) -> Morsel[str]:
    (morsel,) = SimpleCookie(response.headers["set-cookie"]).values()
    return morsel


class TestOverHttps:
    def test_a_key_is_exchanged_for_a_cookie_that_scripts_and_others_do_not_get(
        self, service: Service, tracker: InProcessTracker
    ) -> None:
        client = service()
        response = begin(client, key_of(tracker, "ada", Scope.READ, Scope.TRAIN))
        assert response.status_code == 201
        assert (response.json()["owner"], response.json()["scopes"]) == ("ada", ["read", "train"])
        assert response.headers["cache-control"] == "no-store"
        cookie = cookie_of(response)
        assert cookie.key == "__Host-sienn_session"
        assert (cookie["httponly"], cookie["secure"], cookie["path"], cookie["domain"]) == (True, True, "/", "")
        assert (cookie["samesite"], cookie["max-age"]) == ("strict", "43200")
        assert len(cookie.value) == 43
        assert cookie.value not in response.text
        me = client.get("/api/auth/me", headers=PAGE).json()
        assert (me["owner"], me["credential"]) == ("ada", "session")
        assert client.delete("/api/jobs/none", headers=PAGE).status_code == 404

    @pytest.mark.parametrize("path", [("DELETE", PATH), ("POST", "/api/auth/logout")])
    def test_it_ends_for_good(self, service: Service, tracker: InProcessTracker, path: tuple[str, str]) -> None:
        client = service()
        value = cookie_of(begin(client, key_of(tracker, "ada", Scope.READ))).value
        assert client.get("/api/auth/me").status_code == 200
        ended = client.request(*path, headers=PAGE)
        assert ended.json() == {"ended": True, "issuer_logout_url": None}
        assert cookie_of(ended)["max-age"] == "0"
        assert client.get("/api/auth/me").status_code == 401
        again = client.get("/api/auth/me", headers={"Cookie": f"__Host-sienn_session={value}"})
        assert again.status_code == 401
        assert again.json()["detail"] == "the session has been ended; log in again"

    def test_who_has_none_ends_none(self, service: Service, tracker: InProcessTracker) -> None:
        client, headers = service(), {"X-API-Key": key_of(tracker, "ada", Scope.READ)}
        response = client.delete(PATH, headers=headers)
        assert response.json() == {"ended": False, "issuer_logout_url": None}
        assert "set-cookie" not in response.headers
        assert client.delete(PATH).status_code == 401

    def test_another_one_takes_its_place(self, service: Service, tracker: InProcessTracker) -> None:
        """A browser has one, and nobody can have it go on with theirs (session fixation)."""
        client = service()
        first = cookie_of(begin(client, key_of(tracker, "ada", Scope.READ))).value
        second = cookie_of(begin(client, key_of(tracker, "bob", Scope.READ), **PAGE)).value
        assert first != second
        assert client.get("/api/auth/me").json()["owner"] == "bob"
        assert service().get("/api/auth/me", headers={"Cookie": f"__Host-sienn_session={first}"}).status_code == 401

    def test_it_ends_with_its_key(self, service: Service, tracker: InProcessTracker) -> None:
        client = service()
        cookie = cookie_of(begin(client, key_of(tracker, "ada", Scope.READ, key_id="key-1")))
        client.delete("/api/keys/key-1", headers={"X-API-Key": ADMIN_KEY})
        # Another replica doesn't remember the key.
        refused = service().get("/api/auth/me", headers={"Cookie": f"{cookie.key}={cookie.value}"})
        assert refused.status_code == 401
        assert "has been revoked" in refused.json()["detail"]

    def test_the_admin_s_ends_when_the_key_is_another_one(self, service: Service) -> None:
        client = service()
        value = cookie_of(begin(client, ADMIN_KEY)).value
        headers = {"Cookie": f"__Host-sienn_session={value}"}
        assert client.get("/api/keys").status_code == 200
        assert service().get("/api/keys", headers=headers).status_code == 200
        for other in ("another-admin-s-key-" + "y" * 32, None):
            refused = service(admin_key=other).get("/api/keys", headers=headers)
            assert refused.status_code == 401
            assert "another admin key" in refused.json()["detail"]

    @pytest.mark.parametrize("kind", ["token", "cookie", "nothing", "wrong"])
    def test_it_is_begun_with_a_key_and_nothing_else(
        self, service: Service, tracker: InProcessTracker, kind: str
    ) -> None:
        """Or a token that is valid for minutes would be made one for hours."""
        client, key = service(), key_of(tracker, "ada", Scope.READ)
        form = {"grant_type": "client_credentials", "client_id": key.split("_")[1], "client_secret": key}
        token = client.post("/api/auth/token", data=form).json()["access_token"]
        if kind == "cookie":
            begin(client, key)
        headers = {
            "token": {"Authorization": f"Bearer {token}"},
            "cookie": PAGE,
            "nothing": {},
            "wrong": {"Authorization": "Bearer wrong"},
        }[kind]
        assert client.post(PATH, headers=headers).status_code == (400 if kind in {"token", "cookie"} else 401)

    def test_no_cache_on_the_way_keeps_what_somebody_sees(self, service: Service, tracker: InProcessTracker) -> None:
        """Shared caches leave alone what came for `Authorization`, but not what came for a cookie or another header."""
        client, key = service(), key_of(tracker, "ada", Scope.READ)
        begin(client, key)
        for path in ("/api/jobs", "/api/auth/me", "/api/jobs/none"):
            assert client.get(path).headers["cache-control"] == "private"
        assert client.delete(PATH, headers=PAGE).headers["cache-control"] == "no-store"
        for headers in ({"Authorization": f"Bearer {key}"}, {"X-API-Key": key}):
            assert service().get("/api/jobs", headers=headers).headers["cache-control"] == "private"
        assert "cache-control" not in service().get("/health").headers
        assert "cache-control" not in service(auth="off", admin_key=None).get("/api/jobs").headers

    def test_an_admin_ends_all_of_an_owner(self, service: Service, tracker: InProcessTracker) -> None:
        first, second, other = service(), service(), service()
        for client, owner in ((first, "ada"), (second, "ada"), (other, "bob")):
            begin(client, key_of(tracker, owner, Scope.READ))
        asking = service()
        headers = {"X-API-Key": key_of(tracker, "bob", Scope.READ)}
        assert asking.delete(SESSIONS, params={"owner": "ada"}, headers=headers).status_code == 403
        answer = asking.delete(SESSIONS, params={"owner": "ada"}, headers={"X-API-Key": ADMIN_KEY})
        assert (answer.status_code, answer.json()) == (200, {"owner": "ada", "num_ended": 2})
        assert [client.get("/api/auth/me").status_code for client in (first, second, other)] == [401, 401, 200]
        again = asking.delete(SESSIONS, params={"owner": "ada"}, headers={"X-API-Key": ADMIN_KEY})
        assert again.json()["num_ended"] == 0
        entry = tracker.actor.audit_entries(AuditQuery(action="end_sessions")).entries[0]
        assert (entry.target_kind, entry.target_id, entry.status) == ("owner", "ada", 200)

    def test_guesses_are_limited(self, service: Service, tracker: InProcessTracker) -> None:
        client, key = service(token_rate_limits="2/minute"), key_of(tracker, "ada", Scope.READ)
        assert [begin(client, key).status_code for _ in range(3)] == [201, 201, 429]

    def test_the_tracker_may_be_away(self, service: Service, tracker: InProcessTracker) -> None:
        client = service()
        tracker.fail_with(CapacityError("the job tracker is restarting"))
        headers = {"Cookie": "__Host-sienn_session=any"}
        assert client.get("/api/auth/me", headers=headers).status_code == 503


class TestElsewhere:
    @pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"])
    def test_on_this_machine_it_works_without_tls(self, service: Service, tracker: InProcessTracker, host: str) -> None:
        client = service(f"http://{host}")
        cookie = cookie_of(begin(client, key_of(tracker, "ada", Scope.READ, Scope.TRAIN)))
        assert (cookie.key, cookie["secure"], cookie["httponly"]) == ("sienn_session", "", True)
        headers = {"Cookie": f"sienn_session={cookie.value}"}
        assert client.get("/api/auth/me", headers=headers).status_code == 200
        page = {**headers, "Origin": f"http://{host}"}
        assert client.delete("/api/jobs/none", headers=page).status_code == 404
        evil = {**headers, "Origin": "http://127.0.0.1:9999"}
        assert client.delete("/api/jobs/none", headers=evil).status_code == 403

    @pytest.mark.parametrize(
        ("base_url", "fields"),
        [
            ("http://sienn.example.org", {}),
            ("http://10.0.0.1:8000", {}),
            # A proxy on this machine.
            ("http://127.0.0.1:8000", {"public_url": HERE}),
        ],
    )
    def test_everywhere_else_it_is_for_https_alone(
        self, service: Service, tracker: InProcessTracker, base_url: str, fields: dict[str, str]
    ) -> None:
        client = service(base_url, **fields)
        cookie = cookie_of(begin(client, key_of(tracker, "ada", Scope.READ)))
        assert (cookie.key, cookie["secure"]) == ("__Host-sienn_session", True)
        for name, status in ((cookie.key, 200), ("sienn_session", 401)):
            headers = {"Cookie": f"{name}={cookie.value}"}
            assert client.get("/api/auth/me", headers=headers).status_code == status

    def test_a_site_that_is_let_in_may_use_it_but_not_everybody(
        self, service: Service, tracker: InProcessTracker
    ) -> None:
        app = "https://app.example.org"
        headers = {"Origin": app, "Sec-Fetch-Site": "same-site"}
        for origins, status in ((app, 404), ("*", 403), ("", 403)):
            client = service(cors_origins=origins)
            begin(client, key_of(tracker, "ada", Scope.READ, Scope.TRAIN))
            assert client.delete("/api/jobs/none", headers=headers).status_code == status
            assert client.get("/api/jobs", headers=headers).status_code == (200 if status == 404 else 403)

    def test_without_authentication_it_is_nothing(self, service: Service, tracker: InProcessTracker) -> None:
        client = service(auth="off")
        assert begin(client, key_of(tracker, "ada", Scope.READ)).status_code == 201
        assert client.get("/api/auth/me").json()["credential"] == "none"
        assert client.post(PATH).status_code == 400


def test_over_a_real_server(tmp_path: Path) -> None:
    """As a browser on this machine does: a cookie, an event stream, and a WebSocket that says whose page it is."""
    settings = Settings(env="test", home=tmp_path / "home", auth="on", admin_key=ADMIN_KEY)
    tracker = InProcessTracker(settings)
    tracker.put(job_record(id="ada-job", owner="ada", status=JobStatus.COMPLETED))
    key = key_of(tracker, "ada", Scope.READ)
    with served(create_app(fake_backends(settings, tracker=tracker))) as url, httpx2.Client(base_url=url) as browser:
        assert browser.post(PATH, headers={"Authorization": f"Bearer {key}"}).status_code == 201
        stream = browser.get("/api/events/jobs/ada-job", headers={"Sec-Fetch-Site": "same-origin"})
        assert "event: end" in stream.text
        socket_url = url.replace("http:", "ws:") + "/api/ws/jobs/ada-job"
        cookie = {"Cookie": f"sienn_session={browser.cookies['sienn_session']}"}
        with connect(socket_url, origin=Origin(url), additional_headers=cookie) as socket:
            assert json.loads(socket.recv())["event"] == "status"
        for origin in (Origin("https://evil.example"), None):
            with pytest.raises(InvalidStatus) as refused:
                connect(socket_url, origin=origin, additional_headers=cookie)
            assert refused.value.response.status_code == 403
        assert browser.delete(PATH, headers={"Origin": url}).json()["ended"]
        with pytest.raises(InvalidStatus) as refused:
            connect(socket_url, origin=Origin(url), additional_headers=cookie)
        assert refused.value.response.status_code == 401


class TestOrigins:
    """OWASP's guide on CSRF: Fetch Metadata first, Origin where there is none, and no doubt for changes."""

    @pytest.mark.parametrize(
        ("is_change", "headers", "is_fine"),
        [
            (True, {"sec-fetch-site": "same-origin"}, True),
            (True, {"origin": HERE}, True),
            (True, {"origin": HERE, "sec-fetch-site": "same-origin"}, True),
            (True, {"origin": "https://public.example.org", "sec-fetch-site": "same-origin"}, True),  # through a proxy
            (True, {}, False),
            (True, {"sec-fetch-site": "none"}, False),
            (True, {"sec-fetch-site": "same-site", "origin": HERE}, False),
            (True, {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, False),
            (True, {"origin": "http://sienn.example.org"}, False),
            (True, {"origin": HERE + ":8443"}, False),
            (True, {"origin": "https://sienn.example.org.evil.example"}, False),
            (True, {"origin": "https://[broken"}, False),
            (True, {"origin": "null"}, False),
            (False, {}, True),
            (False, {"sec-fetch-site": "same-origin"}, True),
            (False, {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}, True),
            (False, {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, True),  # a link
            (False, {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}, False),
            (False, {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"}, False),
            (False, {"origin": "https://evil.example"}, False),
            (False, {"origin": HERE}, True),
        ],
    )
    def test_where_a_request_with_a_cookie_may_come_from(
        self, is_change: bool, headers: dict[str, str], is_fine: bool
    ) -> None:
        cookies = SessionCookies(["*"])
        pairs = {"host": "sienn.example.org", **headers}.items()
        scope = {
            "type": "http",
            "scheme": "https",
            "headers": [(name.encode(), value.encode()) for name, value in pairs],
        }
        if is_fine:
            cookies.check_origin(scope, is_change=is_change)
        else:
            with pytest.raises(ForbiddenError, match="SIENN_CORS_ORIGINS"):
                cookies.check_origin(scope, is_change=is_change)

    def test_a_cookie_with_an_odd_value_breaks_nothing(self) -> None:
        for cookie in (
            b"__Host-sienn_session",
            b"=;=;;",
            b"\xff=\xff",
            b"__Host-sienn_session=a; __Host-sienn_session=b",
        ):
            scope = {"type": "http", "scheme": "https", "headers": [(b"cookie", cookie), (b"host", b"a")]}
            assert SessionCookies().read(scope, SESSION) in {None, "b"}
        response = Response()
        scope = {"type": "http", "scheme": "http", "headers": [(b"host", b"evil; Domain=x")]}
        SessionCookies().put(response, scope, SESSION, "a", max_age_s=1, same_site="strict")
        assert "evil" not in response.headers["set-cookie"]


class TestLookup:
    def test_a_session_is_remembered_for_seconds_noted_seldom_and_ends_when_idle(
        self, tracker: InProcessTracker
    ) -> None:
        now, seconds = [utc_now()], [0.0]
        tracker.actor._store.sessions._clock = lambda: now[0]
        lookup = SessionLookup(
            tracker,
            KeyLookup(tracker),
            None,
            lifetime_s=2000,
            idle_timeout_s=600,
            issuer=ISSUER,
            clock=lambda: seconds[0],
            now=lambda: now[0],
        )

        def later(by_s: float) -> datetime:
            now[0] += timedelta(seconds=by_s)
            seconds[0] += by_s
            return now[0]

        async def use() -> None:
            secret, _ = await lookup.begin(Principal(f"{ISSUER}|ada", frozenset({Scope.READ})))
            for _ in range(20):
                assert (await lookup.principal_of(secret)).owner == f"{ISSUER}|ada"
            assert tracker.calls.count("session_of_hash") == 1
            assert tracker.calls.count("touch_session") == 0
            for _ in range(100):  # 15 minutes of use
                later(9)
                await lookup.principal_of(secret)
            assert tracker.calls.count("touch_session") in range(10, 16)
            later(601)
            with pytest.raises(InvalidTokenError, match="has been idle for too long"):
                await lookup.principal_of(secret)
            # And it doesn't come back by being asked for.
            later(LIFETIME_S)
            with pytest.raises(InvalidTokenError, match="has been idle for too long"):
                await lookup.principal_of(secret)

        asyncio.run(use())

    def test_it_ends_however_much_it_is_used(self, tracker: InProcessTracker) -> None:
        now = [utc_now()]
        lookup = SessionLookup(
            tracker, KeyLookup(tracker), None, lifetime_s=2000, idle_timeout_s=600, issuer=ISSUER, now=lambda: now[0]
        )

        async def use() -> None:
            secret, _ = await lookup.begin(Principal(f"{ISSUER}|ada", frozenset({Scope.READ})))
            now[0] += timedelta(seconds=2001)
            with pytest.raises(InvalidTokenError, match="has expired"):
                await lookup.principal_of(secret)

        asyncio.run(use())

    @pytest.mark.parametrize("issuer", [None, "https://other.example", ISSUER[:-1], f"{ISSUER}|a", ""])
    def test_one_of_a_login_ends_with_its_issuer(self, tracker: InProcessTracker, issuer: str | None) -> None:
        def lookup(issuer: str | None) -> SessionLookup:
            return SessionLookup(tracker, KeyLookup(tracker), None, lifetime_s=600, idle_timeout_s=600, issuer=issuer)

        async def use() -> None:
            secret, _ = await lookup(ISSUER).begin(Principal(f"{ISSUER}|ada", frozenset({Scope.READ})))
            assert (await lookup(ISSUER).principal_of(secret)).owner == f"{ISSUER}|ada"
            with pytest.raises(InvalidTokenError, match="an issuer that isn't asked any more"):
                await lookup(issuer).principal_of(secret)

        asyncio.run(use())

    def test_one_of_the_admin_key_needs_that_key(self, tracker: InProcessTracker) -> None:
        async def use(admin_key: str | None, secret: str) -> Principal:
            lookup = SessionLookup(
                tracker, KeyLookup(tracker, admin_key), admin_key, lifetime_s=600, idle_timeout_s=600
            )
            if not secret:
                made, record = await lookup.begin(Principal("admin", frozenset(Scope)), ADMIN_KEY_ID)
                assert record.binding is not None
                return Principal(made, frozenset())
            return await lookup.principal_of(secret)

        secret = asyncio.run(use("a" * 32, "")).owner
        assert asyncio.run(use("a" * 32, secret)).is_admin
        with pytest.raises(InvalidTokenError, match="another admin key"):
            asyncio.run(use("b" * 32, secret))
