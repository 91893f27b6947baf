from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount
from starlette.testclient import TestClient

from sienn_ray.api.http.request_metrics import RequestMetrics
from sienn_ray.metrics import Recorder


def counts(recorder: Recorder) -> dict[tuple[str, ...], float]:
    """Requests by method, route and status."""
    batch = recorder.take()
    assert batch is not None
    recorder.confirm(batch)
    return {
        tuple(value for _, value in sample.labels): sample.value
        for sample in batch.increments
        if sample.name.endswith("_count")
    }


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def client(recorder: Recorder) -> TestClient:
    router = APIRouter(prefix="/api")

    @router.get("/things/{name}")
    async def thing(name: str) -> str:
        return name

    @router.get("/broken")
    async def broken() -> None:
        raise RuntimeError

    @router.get("/half")
    async def half() -> StreamingResponse:
        async def body() -> Any:
            yield b"half"
            raise RuntimeError

        return StreamingResponse(body())

    @router.post("/gone")
    async def gone() -> None:
        raise ClientDisconnect

    app = FastAPI(middleware=[Middleware(RequestMetrics, meter=recorder)])
    app.include_router(router)
    app.router.routes.append(Mount("/files", PlainTextResponse("a file")))
    return TestClient(app, raise_server_exceptions=False)


def test_requests_are_counted_by_template(client: TestClient, recorder: Recorder) -> None:
    for name in ("a", "b", "c"):
        client.get(f"/api/things/{name}")
    assert counts(recorder) == {("GET", "/api/things/{name}", "200"): 3.0}


def test_no_path_makes_a_series_of_its_own(client: TestClient, recorder: Recorder) -> None:
    for number in range(20):
        client.get(f"/nowhere/{number}")
        client.get(f"/files/{number}")
    assert counts(recorder) == {("GET", "unmatched", "404"): 20.0, ("GET", "/files", "200"): 20.0}


def test_no_method_makes_a_series_of_its_own(client: TestClient, recorder: Recorder) -> None:
    for method in ("BREW", "PROPFIND", "get", "G" * 1000):
        client.request(method, "/api/things/a")
    found = counts(recorder)
    assert {method for method, _, _ in found} <= {"other", "GET"}
    assert sum(found.values()) == 4.0


def test_wrong_method_counts_for_the_route(client: TestClient, recorder: Recorder) -> None:
    client.delete("/api/things/a")
    assert counts(recorder) == {("DELETE", "/api/things/{name}", "405"): 1.0}


def test_routes_of_other_kinds_have_their_path(client: TestClient, recorder: Recorder) -> None:
    client.get("/openapi.json")
    assert counts(recorder) == {("GET", "/openapi.json", "200"): 1.0}


def test_error_that_nobody_handles_is_a_500(client: TestClient, recorder: Recorder) -> None:
    client.get("/api/broken")
    assert counts(recorder) == {("GET", "/api/broken", "500"): 1.0}


def test_error_after_the_start_keeps_the_status_that_was_sent(client: TestClient, recorder: Recorder) -> None:
    client.get("/api/half")
    assert counts(recorder) == {("GET", "/api/half", "200"): 1.0}


def test_client_that_has_gone_is_no_failure_of_ours(client: TestClient, recorder: Recorder) -> None:
    client.post("/api/gone")
    assert counts(recorder) == {("POST", "/api/gone", "499"): 1.0}


def test_cancelled_request_is_counted_and_stays_cancelled(recorder: Recorder) -> None:
    async def never(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    async def run() -> None:
        scope = {"type": "http", "method": "GET", "path": "/"}
        task = asyncio.create_task(RequestMetrics(never, recorder)(scope, None, None))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert counts(recorder) == {("GET", "unmatched", "499"): 1.0}


def test_time_lasts_until_the_last_byte(recorder: Recorder) -> None:
    async def slow(request: Request) -> StreamingResponse:
        async def body() -> Any:
            yield b"first"
            await asyncio.sleep(0.05)
            yield b"last"

        return StreamingResponse(body())

    app = Starlette(middleware=[Middleware(RequestMetrics, meter=recorder)])
    app.add_route("/slow", slow)
    TestClient(app).get("/slow")
    batch = recorder.take()
    assert batch is not None
    (took_s,) = [sample.value for sample in batch.increments if sample.name.endswith("_sum")]
    assert took_s >= 0.05


def test_other_connections_pass_through(recorder: Recorder) -> None:
    kinds = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kinds.append(scope["type"])

    for kind in ("lifespan", "websocket"):
        asyncio.run(RequestMetrics(app, recorder)({"type": kind}, None, None))  # type: ignore[arg-type]
    assert kinds == ["lifespan", "websocket"]
    assert recorder.take() is None
