"""Bodies over a limit are refused before they are read, or as soon as that many bytes have come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from fastapi import FastAPI
from httpx2 import Response
from starlette.datastructures import Headers
from starlette.testclient import TestClient

from sienn_ray.api.app import create_app
from sienn_ray.api.http.body_limits import BodyLimits, declared_bytes
from sienn_ray.settings import Settings
from tests.support.in_process import served
from tests.unit.api.test_error_shape import detail_of

MAX_BODY_BYTES = 1_000
START = "/api/start-finetuning"
JSON = {"content-type": "application/json"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(env="test", home=tmp_path / "home", max_upload_bytes=100_000, max_body_bytes=MAX_BODY_BYTES)


def body_of(num_bytes: int) -> bytes:
    """A request for a dataset that isn't there, in exactly this many bytes."""
    body = json.dumps({"dataset_id": "d"}).encode()
    return body + b" " * (num_bytes - len(body))


def in_pieces(body: bytes, piece_bytes: int = 300) -> Iterator[bytes]:
    for start in range(0, len(body), piece_bytes):
        yield body[start : start + piece_bytes]


def refused(response: Response) -> str:
    detail = detail_of(response, 413)
    assert f"at most {MAX_BODY_BYTES} bytes" in detail
    assert "SIENN_MAX_BODY_BYTES" in detail
    assert response.headers["x-request-id"]
    return detail


@pytest.mark.parametrize("is_declared", [True, False])
def test_body_as_large_as_the_limit_is_read(client: TestClient, is_declared: bool) -> None:
    body = body_of(MAX_BODY_BYTES)
    content = body if is_declared else in_pieces(body)
    assert detail_of(client.post(START, content=content, headers=JSON), 404) == "Dataset d not found"


def test_one_byte_more_is_refused_by_its_declared_length(client: TestClient) -> None:
    assert f"{MAX_BODY_BYTES + 1} bytes" in refused(
        client.post(START, content=body_of(MAX_BODY_BYTES + 1), headers=JSON)
    )


def test_one_byte_more_is_refused_where_no_length_is_declared(client: TestClient) -> None:
    refused(client.post(START, content=in_pieces(body_of(MAX_BODY_BYTES + 1)), headers=JSON))


@pytest.mark.parametrize("declared", ["9" * 5_000, "1" + "0" * 18, str(MAX_BODY_BYTES + 1)])
def test_declared_length_is_refused_however_long_the_number_is(client: TestClient, declared: str) -> None:
    refused(client.post(START, content=b"{}", headers={**JSON, "content-length": declared}))


@pytest.mark.parametrize("declared", ["-1", "1e9", "²", "0x10", ""])
def test_declared_length_that_is_no_number_counts_for_nothing(client: TestClient, declared: str) -> None:
    headers = {b"content-type": b"application/json", b"content-length": declared.encode("latin-1")}
    detail_of(client.post(START, content=body_of(100), headers=headers), 404)
    refused(client.post(START, content=body_of(MAX_BODY_BYTES + 1), headers=headers))


def test_limit_counts_on_routes_that_take_no_body(client: TestClient) -> None:
    refused(client.request("GET", "/health", content=b"a" * (MAX_BODY_BYTES + 1)))
    refused(client.request("DELETE", "/nowhere", content=b"a" * (MAX_BODY_BYTES + 1)))


@pytest.mark.parametrize("prefix", ["", "/sienn"])
def test_uploads_have_a_limit_of_their_own(app: FastAPI, prefix: str) -> None:
    csv = b"text\n" + b"once upon a time\n" * 500
    with TestClient(app, root_path=prefix) as client:
        assert client.post(f"{prefix}/api/upload-dataset", files={"file": ("rows.csv", csv)}).status_code == 201
        response = client.post(f"{prefix}/api/upload-dataset", files={"file": ("rows.csv", csv * 20)})
        assert "SIENN_MAX_UPLOAD_BYTES" in detail_of(response, 413)


def test_mebibyte_is_the_default(tmp_path: Path, app: FastAPI) -> None:
    backends = replace(app.state.backends, settings=Settings(env="test", home=tmp_path))
    with TestClient(create_app(backends)) as client:
        response = client.post(START, content=body_of(1024**2), headers=JSON)
        assert detail_of(response, 404) == "Dataset d not found"
        assert "1048576 bytes" in detail_of(client.post(START, content=body_of(1024**2 + 1), headers=JSON), 413)


def test_nothing_is_raised_after_the_answer() -> None:
    """A response that has begun watches for the client's end, and may see more of the body meanwhile."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        seen.append(await receive())

    async def receive() -> Any:
        return {"type": "http.request", "body": b"a" * 100, "more_body": True}

    async def send(message: Any) -> None:
        seen.append(message["type"])

    asyncio.run(BodyLimits(app, max_bytes=10)({"type": "http", "path": "/", "headers": []}, receive, send))
    assert [seen[0], len(seen[1]["body"])] == ["http.response.start", 100]


def test_other_connections_pass() -> None:
    scopes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)

    asyncio.run(BodyLimits(app, max_bytes=10)({"type": "websocket", "path": "/"}, None, None))  # type: ignore[arg-type]
    assert scopes == [{"type": "websocket", "path": "/"}]


@pytest.mark.parametrize(
    ("value", "expected"), [("0", 0), ("12", 12), ("", None), ("-1", None), ("1_000", None), ("9" * 5_000, 10**18)]
)
def test_declared_bytes(value: str, expected: int | None) -> None:
    assert declared_bytes(Headers({"content-length": value})) == expected


def test_no_declaration() -> None:
    assert declared_bytes(Headers({})) is None


def test_sender_of_a_large_body_sees_the_refusal(app: FastAPI) -> None:
    """Over a real connection, where the answer comes while the client still sends."""
    with served(app) as url:
        response = requests.post(url + START, data=b" " * 20_000_000, headers=JSON, timeout=30)
        assert (response.status_code, response.json()["status_code"]) == (413, 413)
        assert requests.get(f"{url}/health", timeout=30).status_code == 200
