"""Line breaks of a user end up in no header and begin no line of a log."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from tests.unit.attacks.operations import Place, places

FORGED = "FORGED line of a log"
BREAKS = ("\r\n", "\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029")
PAYLOADS = tuple(f"x{each}X-Injected: yes{each}{each}{FORGED}" for each in BREAKS)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that is logged, as a file has it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.mark.parametrize("place", places(), ids=str)
def test_nothing_is_forged(client: TestClient, log: io.StringIO, place: Place) -> None:
    for payload in PAYLOADS:
        response = place.send(client, payload)
        assert response.status_code < 500 or response.status_code == 503, response.text
        assert "x-injected" not in response.headers
        assert all("\n" not in value and "\r" not in value for value in response.headers.values())
    # With the line breaks that a terminal and `splitlines` know.
    lines = log.getvalue().splitlines()
    assert [line for line in lines if line.startswith((FORGED, "X-Injected"))] == []


@pytest.mark.parametrize("header", ["X-Request-ID", "User-Agent", "Origin", "Referer", "X-Forwarded-For", "Accept"])
def test_headers_of_a_client_forge_nothing(client: TestClient, log: io.StringIO, header: str) -> None:
    for value in (f"x%0d%0aX-Injected: yes%0d%0a{FORGED}", "x\tX-Injected: yes", "\x00", "x" * 5000):
        response = client.get("/health", headers={header.encode(): value.encode("latin-1")})
        assert "x-injected" not in response.headers
        assert value not in response.headers.get("x-request-id", "")
    assert [line for line in log.getvalue().splitlines() if line.startswith(FORGED)] == []


@pytest.mark.parametrize("name", [*(f"a{each}b.csv" for each in BREAKS), 'a";x="b.csv', "a\u202egnp.csv", "a\0b.csv"])
def test_a_file_s_name_forges_no_header(client: TestClient, name: str) -> None:
    """A name comes back in `Content-Disposition`."""
    uploaded = client.post("/api/upload-dataset", files={"file": (name, b"text\na\n")})
    assert uploaded.status_code in {201, 400}
    if uploaded.status_code == 201:
        download = client.get(f"/api/datasets/{uploaded.json()['dataset_id']}/download")
        disposition = download.headers["content-disposition"]
        assert disposition.isprintable()
        assert disposition.count('"') == 2
        assert "x-injected" not in download.headers
