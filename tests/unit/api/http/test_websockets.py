"""A WebSocket route has the same dependencies, ids and errors as one of HTTP."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Header, Query, WebSocket
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from sienn_ray.api.answers.start_wait import AskingBackendsDep, EnginesWithin
from sienn_ray.api.deps import BackendsDep
from sienn_ray.api.http.errors import internal_error
from sienn_ray.api.http.request_id import RequestIds, request_id_of
from sienn_ray.api.http.uploads import UploadsDep
from sienn_ray.api.http.websockets import WebSocketErrors
from sienn_ray.api.monitoring.monitoring import MonitoringDep
from sienn_ray.errors import CapacityError, EngineError, NotFoundError, SiennError

ID = r"[0-9a-f]{32}"
ERRORS = {
    "missing": NotFoundError("Job job-1 not found"),
    "busy": CapacityError("the job tracker is restarting", retry_after_s=7),
    "broken": EngineError("the engine is gone"),
    "http": HTTPException(403, "not yours"),
    "long": NotFoundError("ä" * 200),
    "unforeseen": KeyError("secret"),
}


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    @app.websocket("/api/echo")
    async def echo(
        websocket: WebSocket,
        backends: BackendsDep,
        monitoring: MonitoringDep,
        uploads: UploadsDep,
        asking: AskingBackendsDep,
    ) -> None:
        assert isinstance(asking.engines, EnginesWithin)
        await websocket.accept()
        await websocket.send_json([backends.settings.env, asking.engines.wait_s, request_id_of(websocket.scope)])
        await websocket.send_text(await websocket.receive_text())
        await websocket.receive_text()

    @app.websocket("/api/fails")
    async def fails(
        websocket: WebSocket, x_fails_with: Annotated[str, Header()], late: Annotated[bool, Query()] = False
    ) -> None:
        if late:
            await websocket.accept()
        raise ERRORS[x_fails_with]

    @app.websocket("/api/refuses")
    async def refuses(websocket: WebSocket) -> None:
        await websocket.close(4001, "come back tomorrow")

    return TestClient(app)


def test_route_has_its_dependencies_and_an_id(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with client.websocket_connect("/api/echo", headers={"Prefer": "wait=5"}) as socket:
        headers: dict[bytes, bytes] = dict(socket.extra_headers or ())
        env, wait_s, request_id = socket.receive_json()
        socket.send_text("hello")
        assert socket.receive_text() == "hello"
    assert (env, wait_s) == ("test", 5.0)
    assert re.fullmatch(ID, request_id)
    assert headers[b"x-request-id"] == request_id.encode()
    assert "ERROR" not in {record.levelname for record in caplog.records}  # a client that goes is none


@pytest.mark.parametrize(
    ("name", "status", "detail"),
    [
        ("missing", 404, "Job job-1 not found"),
        ("busy", 503, "the job tracker is restarting"),
        ("broken", 500, rf"the engine is gone \(request id {ID}\)"),
        ("http", 403, "not yours"),
        ("unforeseen", 500, rf"Internal error; the server's log has the details under request id {ID}"),
    ],
)
def test_error_before_the_handshake_is_an_http_response(
    client: TestClient, name: str, status: int, detail: str
) -> None:
    with (
        pytest.raises(WebSocketDenialResponse) as denied,
        client.websocket_connect("/api/fails", headers={"X-Fails-With": name}),
    ):
        pass
    response = denied.value
    assert (response.status_code, response.json()["status_code"]) == (status, status)
    assert re.fullmatch(detail, response.json()["detail"])
    assert re.fullmatch(ID, response.headers["x-request-id"])


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("missing", 1008, "Job job-1 not found"),
        ("broken", 1011, rf"the engine is gone \(request id {ID}\)"),
        ("http", 1008, "not yours"),
        ("long", 1008, "ä" * 61),
        ("unforeseen", 1011, rf"Internal error; the server's log has the details under request id {ID}"),
    ],
)
def test_error_after_the_handshake_closes_the_connection(
    client: TestClient, caplog: pytest.LogCaptureFixture, name: str, code: int, reason: str
) -> None:
    with (
        client.websocket_connect("/api/fails?late=true", headers={"X-Fails-With": name}) as socket,
        pytest.raises(WebSocketDisconnect) as closed,
    ):
        socket.receive_text()
    assert closed.value.code == code
    assert re.fullmatch(reason, closed.value.reason)
    assert bool(re.search(rf"request {ID}: WebSocket /api/fails", caplog.text)) == (code == 1011)


@pytest.mark.parametrize(
    ("path", "headers", "status", "words"),
    [
        ("/api/jobs", {}, 404, "there is no WebSocket at /api/jobs"),
        ("/nowhere", {}, 404, "there is no WebSocket at /nowhere"),
        ("/api/fails", {}, 422, "x-fails-with"),
        ("/api/fails?late=perhaps", {"X-Fails-With": "missing"}, 422, "late"),
        ("/api/echo", {"Prefer": "wait=long"}, 400, "whole number of seconds"),
    ],
)
def test_what_cannot_be_connected_to_is_refused_in_words(
    client: TestClient, path: str, headers: dict[str, str], status: int, words: str
) -> None:
    with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect(path, headers=headers):
        pass
    assert denied.value.status_code == status
    assert words in denied.value.json()["detail"]


def test_route_that_refuses_by_itself_keeps_its_words(client: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect("/api/refuses"):
        pass
    assert (closed.value.code, closed.value.reason) == (4001, "come back tomorrow")


def test_server_that_cannot_deny_closes() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise NotFoundError("Job job-1 not found")

    sent = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(WebSocketErrors(fails)({"type": "websocket", "path": "/api/fails"}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "Job job-1 not found"}]


def test_handshake_names_the_id_of_the_server_which_does_so_for_http_alone() -> None:
    request_id = "0123456789abcdef" * 2
    sent = []

    async def accepts(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": [(b"x-request-id", request_id.encode())]}
    app = RequestIds(accepts, on_error=internal_error, numbered_by_server=True)
    asyncio.run(app(scope, None, send))  # type: ignore[arg-type]
    assert (b"x-request-id", request_id.encode()) in sent[0]["headers"]


def test_other_connections_pass_through() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise SiennError("of HTTP")

    with pytest.raises(SiennError):
        asyncio.run(WebSocketErrors(fails)({"type": "http", "path": "/"}, None, None))  # type: ignore[arg-type]
