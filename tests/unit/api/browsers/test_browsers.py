"""What other web sites can and can't do through a visitor's browser, over the whole application."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi import WebSocket
from starlette.testclient import TestClient, WebSocketDenialResponse

from sienn_ray.api.app import create_app
from sienn_ray.settings import Settings
from tests.support.fakes_backends import fake_backends

EVIL = "https://evil.example"
APP = "https://app.example.org"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, x-stainless-os"}
Service = Callable[..., TestClient]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Make a client of a service with the given settings."""
    with ExitStack() as clients:

        def make(**settings: Any) -> TestClient:
            app = create_app(fake_backends(Settings(env="test", home=tmp_path / "home", **settings)))

            @app.websocket("/api/echo")
            async def echo(websocket: WebSocket) -> None:
                await websocket.accept()
                await websocket.close()

            @app.get("/api/breaks")
            async def breaks() -> None:
                raise KeyError("secret")

            return clients.enter_context(TestClient(app, base_url="http://sienn.example.org"))

        yield make


class TestOrigins:
    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": EVIL},
            {"Origin": "null"},
            {"Origin": "http://[broken"},
            {"Origin": "http://sienn.example.org:8001"},
            {"Origin": APP, "Sec-Fetch-Site": "same-site"},
            {"Origin": EVIL, "Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "cross-site"},
        ],
    )
    def test_changes_for_another_site_are_refused(self, service: Service, headers: dict[str, str]) -> None:
        client = service()
        refused = client.delete("/api/jobs/none", headers=headers)
        assert refused.status_code == 403
        assert "SIENN_CORS_ORIGINS" in refused.json()["detail"]
        assert refused.headers["x-request-id"]
        assert client.get("/api/jobs", headers=headers).status_code == 200
        with (
            pytest.raises(WebSocketDenialResponse) as denied,
            client.websocket_connect("ws://sienn.example.org/api/echo", headers=headers),
        ):
            pass
        assert denied.value.status_code == 403

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Origin": "http://sienn.example.org"},
            {"Origin": "https://sienn.example.org", "Sec-Fetch-Site": "same-origin"},
            # Through a proxy that asks under another host's name.
            {"Origin": "https://public.example.org", "Sec-Fetch-Site": "same-origin"},
            {"Sec-Fetch-Site": "none"},
        ],
    )
    def test_pages_of_the_service_and_other_programs_may_change_things(
        self, service: Service, headers: dict[str, str]
    ) -> None:
        client = service()
        assert client.delete("/api/jobs/none", headers=headers).status_code == 404
        with client.websocket_connect("ws://sienn.example.org/api/echo", headers=headers):
            pass

    def test_sites_that_are_let_in_may_too(self, service: Service) -> None:
        client = service(cors_origins=APP, public_url="https://public.example.org/sienn")
        for origin in (APP, "https://public.example.org"):
            assert client.delete("/api/jobs/none", headers={"Origin": origin}).status_code == 404
        assert client.delete("/api/jobs/none", headers={"Origin": EVIL}).status_code == 403


class TestCors:
    @pytest.mark.parametrize("path", ["/api/jobs", "/api/jobs/none", "/api/breaks", "/nothing"])
    def test_pages_of_a_site_that_is_let_in_read_answers_and_errors(self, service: Service, path: str) -> None:
        client = service(cors_origins=f"{APP}, https://other.example.org")
        client = TestClient(client.app, raise_server_exceptions=False)
        response = client.get(path, headers={"Origin": APP})
        assert response.headers["access-control-allow-origin"] == APP
        assert response.headers["access-control-allow-credentials"] == "true"
        assert "Retry-After" in response.headers["access-control-expose-headers"]
        assert "Origin" in response.headers["vary"]
        assert "access-control-allow-origin" not in client.get(path, headers={"Origin": EVIL}).headers

    def test_a_preflight_says_what_is_allowed(self, service: Service) -> None:
        client = service(cors_origins=APP)
        allowed = client.options("/api/start-finetuning", headers={"Origin": APP, **PREFLIGHT})
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == APP
        assert allowed.headers["access-control-allow-headers"] == PREFLIGHT["Access-Control-Request-Headers"]
        assert client.options("/api/start-finetuning", headers={"Origin": EVIL, **PREFLIGHT}).status_code == 400

    def test_everybody_may_be_let_in_but_not_with_cookies(self, service: Service) -> None:
        client = service(cors_origins="*")
        response = client.get("/api/jobs", headers={"Origin": EVIL})
        assert response.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in response.headers
        assert client.delete("/api/jobs/none", headers={"Origin": EVIL}).status_code == 404

    @pytest.mark.parametrize("port", [3000, 3001, 3002, 5173])
    def test_development_servers_are_let_in_by_one_setting(self, service: Service, port: int) -> None:
        origin = f"http://localhost:{port}"
        response = service(cors_development=True).get("/api/jobs", headers={"Origin": origin})
        assert response.headers["access-control-allow-origin"] == origin
        assert "access-control-allow-origin" not in service().get("/api/jobs", headers={"Origin": origin}).headers


class TestHosts:
    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "xlocalhost", "127.0.0.1.evil.example"]
    )
    def test_other_names_are_refused(self, service: Service, host: str) -> None:
        client = service(allowed_hosts="localhost,*.example.org")
        refused = client.get("/api/jobs", headers={"Host": host})
        assert refused.status_code == 400
        assert host in refused.json()["detail"]
        assert "SIENN_ALLOWED_HOSTS" in refused.json()["detail"]
        with (
            pytest.raises(WebSocketDenialResponse),
            client.websocket_connect("ws://sienn.example.org/api/echo", headers={"Host": host}),
        ):
            pass

    @pytest.mark.parametrize(
        "host",
        [
            "localhost",
            "LOCALHOST:8000",
            "sienn.localhost:8000",
            "localhost.",
            "a.example.org",
            "127.0.0.1:8000",
            "[::1]:8000",
        ],
    )
    def test_own_names_and_addresses_are_not(self, service: Service, host: str) -> None:
        client = service(allowed_hosts="localhost,*.example.org")
        assert client.get("/api/jobs", headers={"Host": host}).status_code == 200

    def test_without_a_list_all_names_are_right(self, service: Service) -> None:
        assert service().get("/api/jobs", headers={"Host": "anything.example"}).status_code == 200

    @pytest.mark.parametrize(
        ("host", "public_url", "names"),
        [
            ("127.0.0.1", "", ("localhost",)),
            ("::1", "", ("localhost",)),
            ("localhost", "https://sienn.example.org:8443/x", ("localhost", "sienn.example.org")),
            ("0.0.0.0", "", ()),
            ("10.0.0.1", "", ()),
        ],
    )
    def test_a_loopback_address_has_local_names(self, host: str, public_url: str, names: tuple[str, ...]) -> None:
        assert Settings(host=host, public_url=public_url).for_this_machine().allowed_hosts == names
        assert Settings(host=host, allowed_hosts="other").for_this_machine().allowed_hosts == ("other",)


class TestSecurityHeaders:
    @pytest.mark.parametrize("path", ["/health", "/nothing", "/api/breaks"])
    def test_every_response_has_them(self, service: Service, path: str) -> None:
        client = TestClient(service().app, raise_server_exceptions=False)
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "SAMEORIGIN"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["referrer-policy"] == "no-referrer"
        assert "strict-transport-security" not in headers

    def test_pages_keep_their_own_policy(self, service: Service) -> None:
        assert "script-src 'self'" in service().get("/docs").headers["content-security-policy"]

    def test_https_is_for_good(self, service: Service) -> None:
        client = service(public_url="https://sienn.example.org")
        assert client.get("/health").headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize(
    "origin", ["app.example.org", "https://app.example.org/", "null", "https://A.example", "ftp://a"]
)
def test_what_is_no_origin_is_told_at_the_start(origin: str) -> None:
    with pytest.raises(ValueError, match=r"write one as https://app\.example\.org, without a path"):
        Settings(cors_origins=origin)
