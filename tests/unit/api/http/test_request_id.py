"""Every response names its request, by an id that no client has chosen."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse
from starlette.testclient import TestClient

from sienn_ray.api.http.errors import internal_error
from sienn_ray.api.http.request_id import RequestIds, request_id_of

ID = r"[0-9a-f]{32}"


@pytest.mark.parametrize("path", ["/health", "/nowhere", "/docs", "/openapi.json", "/static/docs/favicon.png"])
def test_every_response_has_an_id_and_keeps_its_type(client: TestClient, path: str) -> None:
    first, second = client.get(path), client.get(path)
    assert re.fullmatch(ID, first.headers["x-request-id"])
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert first.headers["x-content-type-options"] == "nosniff"


def test_client_chooses_no_id(client: TestClient) -> None:
    sent = "forged 200 GET /admin"
    assert client.get("/health", headers={"x-request-id": sent}).headers["x-request-id"] != sent


@pytest.mark.parametrize("passed_on", ["5f2c1c5e-7d0b-4c3a-9a57-0d4a3c0f9b1e", "0123456789abcdef" * 2])
def test_an_id_of_the_server_is_kept_and_left_to_it_to_send(passed_on: str) -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await Response(request_id_of(scope))(scope, receive, send)

    client = TestClient(RequestIds(echo, on_error=internal_error, numbered_by_server=True))
    response = client.get("/", headers={"x-request-id": passed_on})
    assert response.text == passed_on
    assert "x-request-id" not in response.headers


def test_what_a_client_has_slipped_into_it_is_not_kept() -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await Response(request_id_of(scope))(scope, receive, send)

    client = TestClient(RequestIds(echo, on_error=internal_error, numbered_by_server=True))
    assert re.fullmatch(ID, client.get("/", headers={"x-request-id": "forged 200 GET /admin"}).text)


def test_route_can_read_the_id(app: FastAPI) -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await Response(request_id_of(scope))(scope, receive, send)

    app.mount("/echo", echo)
    with TestClient(app) as client:
        response = client.get("/echo")
    assert response.text == response.headers["x-request-id"]


def test_response_that_has_begun_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    async def chunks() -> Any:
        yield b"first"
        raise ZeroDivisionError

    app = RequestIds(StreamingResponse(chunks()), on_error=internal_error)
    with pytest.raises(ZeroDivisionError):
        TestClient(app).get("/")
    assert re.search(rf"request {ID}: GET / failed", caplog.text)


def test_client_that_has_gone_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ClientDisconnect

    TestClient(RequestIds(app, on_error=internal_error), raise_server_exceptions=False).get("/")
    assert [record.levelname for record in caplog.records if record.name.startswith("sienn_ray")] == []
