"""Both documentation pages load nothing from elsewhere, and all that they load is there."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

PAGES = ["/docs", "/redoc"]
TYPES = {".js": "javascript", ".css": "text/css", ".png": "image/png", ".json": "application/json"}


class Page(HTMLParser):
    """Addresses and inline scripts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.scripts: list[str] = []
        self._is_script = False
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        self.addresses += [value for name in ("src", "href", "spec-url") if (value := named.get(name))]
        self._is_script = tag == "script" and "src" not in named

    def handle_endtag(self, tag: str) -> None:
        self._is_script = False

    def handle_data(self, data: str) -> None:
        if self._is_script:
            self.scripts.append(data)
            self.addresses += re.findall(r'url: "([^"]+)"', data)


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("prefix", ["", "/behind/a/prefix"])
def test_everything_a_page_loads_is_here(app: FastAPI, prefix: str, path: str) -> None:
    with TestClient(app, root_path=prefix) as client:
        response = client.get(prefix + path)
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        addresses = Page(response.text).addresses
        assert {urlsplit(address).path.rsplit(".", 1)[-1] for address in addresses} >= {"js", "png", "json"}
        for address in addresses:
            url = urljoin(f"http://testserver{prefix}{path}", address)
            assert url.startswith(f"http://testserver{prefix}/")
            asset = client.get(url)
            assert asset.status_code == 200
            suffix = "." + url.rsplit(".", 1)[-1]
            assert TYPES[suffix] in asset.headers["content-type"]
            assert len(asset.content) > 1_000


@pytest.mark.parametrize("path", PAGES)
def test_page_names_no_other_origin(client: TestClient, path: str) -> None:
    assert re.findall(r"(?:https?:)?//[\w.-]+|@import", client.get(path).text) == []


@pytest.mark.parametrize("path", PAGES)
def test_browser_asks_no_other_origin(client: TestClient, path: str) -> None:
    response = client.get(path)
    policy = {
        name: sources
        for name, *sources in (rule.split() for rule in response.headers["content-security-policy"].split(";"))
    }
    assert policy["default-src"] == ["'none'"]
    allowed = {source for sources in policy.values() for source in sources}
    assert not [source for source in allowed if not source.startswith("'") and source not in {"data:", "blob:"}]
    for script in Page(response.text).scripts:
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy["script-src"]
    assert not {"'unsafe-inline'", "'unsafe-eval'"} & set(policy["script-src"])


def test_assets_are_kept_by_the_browser(client: TestClient) -> None:
    asset = client.get("/static/docs/swagger-ui.css")
    assert asset.headers["cache-control"] == "public, max-age=86400"
    again = client.get("/static/docs/swagger-ui.css", headers={"if-none-match": asset.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["", "/", "/nothing.js", "/../core.py", "/%2e%2e/core.py", "//etc/passwd", "/%00"])
def test_only_assets_are_served(client: TestClient, path: str) -> None:
    response = client.get(f"/static/docs{path}")
    assert (response.status_code, set(response.json())) == (404, {"detail", "status_code"})


def test_assets_are_only_read(client: TestClient) -> None:
    response = client.post("/static/docs/swagger-ui.css")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")


def test_pages_are_not_in_the_document(app: FastAPI) -> None:
    assert not [
        path for path in app.openapi()["paths"] if not path.startswith(("/api/", "/v1/", "/health", "/.well-known/"))
    ]
