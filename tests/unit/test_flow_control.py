"""Flow control of bodies, with both sides in one process and unbounded queues between them, as Serve has them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from ray.serve._private import constants
from ray.serve._private.http_util import convert_object_to_asgi_messages
from starlette.requests import ClientDisconnect

from deployments import flow_control
from deployments.flow_control import WINDOW_BYTES, ProxyFlowControl, ReplicaFlowControl, proxy_middlewares
from sienn_ray.api.http.transfer_rates import TransferRates

CHUNK_BYTES = 64 * 1024
SCOPE: dict[str, Any] = {"type": "http", "method": "POST", "path": "/", "headers": []}
App = Callable[[Any, Any, Any], Awaitable[None]]


class Serve:
    """What lies between the proxy's middleware and the application's: a queue each way, filled eagerly."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.max_request_bytes = 0
        self.max_response_bytes = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        requests: asyncio.Queue[Any] = asyncio.Queue()
        responses: asyncio.Queue[Any] = asyncio.Queue()
        queued = {"request": 0, "response": 0}

        def count(direction: str, message: Any, sign: int) -> None:
            queued[direction] += sign * len(message.get("body", b""))
            self.max_request_bytes = max(self.max_request_bytes, queued["request"])
            self.max_response_bytes = max(self.max_response_bytes, queued["response"])

        async def fetch() -> None:
            while True:
                message = await receive()
                count("request", message, 1)
                requests.put_nowait(message)
                if message["type"] == "http.disconnect":
                    return

        async def take() -> Any:
            message = await requests.get()
            count("request", message, -1)
            return message

        async def put(message: Any) -> None:
            count("response", message, 1)
            responses.put_nowait(message)

        async def run() -> None:
            await self._app(scope, take, put)
            responses.put_nowait(None)

        tasks = [asyncio.create_task(fetch()), asyncio.create_task(run())]
        try:
            while (message := await responses.get()) is not None:
                count("response", message, -1)
                await send(message)
            await tasks[1]
        finally:
            for task in tasks:
                task.cancel()


class Client:
    """Sends a body without ever waiting for the server, and keeps what comes back."""

    def __init__(self, num_chunks: int, *, goes_away: bool = False, reads_slowly: bool = False) -> None:
        self._num_chunks = num_chunks
        self._goes_away = goes_away
        self._reads_slowly = reads_slowly
        self.num_sent = 0
        self.messages: list[Any] = []

    async def receive(self) -> Any:
        await asyncio.sleep(0)
        if self.num_sent < self._num_chunks:
            self.num_sent += 1
            more = self.num_sent < self._num_chunks or self._goes_away
            return {"type": "http.request", "body": b"x" * CHUNK_BYTES, "more_body": more}
        if self._goes_away:
            return {"type": "http.disconnect"}
        await asyncio.Event().wait()

    async def send(self, message: Any) -> None:
        self.messages.append(message)
        for _ in range(20 if self._reads_slowly else 0):
            await asyncio.sleep(0)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def content(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])


async def answer(send: Any, status: int, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def slow_reader(scope: Any, receive: Any, send: Any) -> None:
    """Counts a body, and is slower than any client."""
    num_bytes, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        num_bytes += len(message["body"])
        more = message["more_body"]
        for _ in range(20):
            await asyncio.sleep(0)
    await answer(send, 200, str(num_bytes).encode())


def dies_after(num_taken: int) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(num_taken):
            await receive()

    return app


def run(app: App, client: Client, scope: dict[str, Any] = SCOPE) -> Serve:
    serve = Serve(ReplicaFlowControl(app))
    asyncio.run(asyncio.wait_for(ProxyFlowControl(serve)(scope, client.receive, client.send), 20))
    return serve


def test_a_request_waits_at_the_client_while_it_is_not_taken() -> None:
    client = Client(num_chunks=200)
    serve = run(slow_reader, client)
    assert client.content == str(200 * CHUNK_BYTES).encode()
    assert serve.max_request_bytes <= WINDOW_BYTES + CHUNK_BYTES


def test_without_the_middlewares_a_request_would_not_wait() -> None:
    client = Client(num_chunks=200)
    serve = Serve(slow_reader)
    asyncio.run(asyncio.wait_for(serve(SCOPE, client.receive, client.send), 20))
    assert serve.max_request_bytes > 100 * CHUNK_BYTES


async def fast_writer(scope: Any, receive: Any, send: Any) -> None:
    """Reads the request, then sends as fast as it may."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(200):
        await send({"type": "http.response.body", "body": b"y" * CHUNK_BYTES, "more_body": True})
    await send({"type": "http.response.body"})


async def fast_writer_that_listens(scope: Any, receive: Any, send: Any) -> None:
    """As Starlette streams: somebody waits for the client to go away meanwhile."""
    await receive()
    listening = asyncio.create_task(receive())
    await fast_writer(scope, lambda: asyncio.sleep(0), send)
    listening.cancel()


@pytest.mark.parametrize("app", [fast_writer, fast_writer_that_listens])
def test_an_answer_waits_at_the_application_while_the_client_does_not_take_it(app: App) -> None:
    client = Client(num_chunks=1, reads_slowly=True)
    serve = run(app, client)
    assert client.content == b"y" * 200 * CHUNK_BYTES
    assert serve.max_response_bytes <= WINDOW_BYTES + CHUNK_BYTES


def test_without_the_middlewares_an_answer_would_not_wait() -> None:
    client = Client(num_chunks=1, reads_slowly=True)
    serve = Serve(fast_writer)
    asyncio.run(asyncio.wait_for(serve(SCOPE, client.receive, client.send), 20))
    assert serve.max_response_bytes > 100 * CHUNK_BYTES


def test_an_answer_ends_when_its_client_has_gone() -> None:
    client = Client(num_chunks=1, goes_away=True, reads_slowly=True)
    run(fast_writer, client)
    assert client.messages[-1].get("more_body", False) is False


def test_the_waiting_application_survives_that_its_listener_is_cancelled() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        listening = asyncio.create_task(receive())
        asyncio.get_running_loop().call_later(0.05, listening.cancel)
        await fast_writer(scope, lambda: asyncio.sleep(0), send)

    client = Client(num_chunks=1, reads_slowly=True)
    run(app, client)
    assert len(client.content) == 200 * CHUNK_BYTES


def test_nothing_of_it_reaches_the_client() -> None:
    client = Client(num_chunks=200)
    run(slow_reader, client)
    assert {message["type"] for message in client.messages} == {"http.response.start", "http.response.body"}


def test_a_small_body_costs_no_message() -> None:
    sent: list[Any] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        async def record(message: Any) -> None:
            sent.append(message)
            await send(message)

        await ReplicaFlowControl(slow_reader)(scope, receive, record)

    client = Client(num_chunks=1)
    asyncio.run(ProxyFlowControl(serve)(SCOPE, client.receive, client.send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]


def test_the_application_is_silent_behind_a_proxy_that_does_not_understand_it() -> None:
    sent: list[Any] = []
    client = Client(num_chunks=200)

    async def record(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(ReplicaFlowControl(slow_reader)(SCOPE, client.receive, record))
    assert sent == ["http.response.start", "http.response.body"]


def test_a_client_that_goes_away_is_noticed() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            pass
        seen.append(message["type"])
        await answer(send, 400, b"gone")

    run(app, Client(num_chunks=100, goes_away=True))
    assert seen == ["http.disconnect"]


def test_an_early_answer_waits_for_the_end_of_the_body_and_keeps_nothing_of_it() -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await answer(send, 413, b"too large")

    client = Client(num_chunks=500)
    serve = run(refuse, client)
    assert (client.status, client.content) == (413, b"too large")
    assert client.num_sent == 500
    assert serve.max_request_bytes <= WINDOW_BYTES + CHUNK_BYTES


def test_an_early_answer_does_not_wait_for_a_client_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_control, "_DRAIN_S", 0.05)

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, 413, b"too large")

    client = Client(num_chunks=3)
    client._num_chunks = 0  # says nothing at all
    run(refuse, client)
    assert client.content == b"too large"
    assert client.messages[-1].get("more_body", False) is False


def test_a_client_that_does_not_read_is_given_up_on_both_sides(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(flow_control, "_WRITE_TIMEOUT_S", 0.1)
    ended: list[str] = []

    async def download(scope: Any, receive: Any, send: Any) -> None:
        try:
            await fast_writer(scope, receive, send)
        except ClientDisconnect:
            ended.append("replica")

    class Stalled(Client):
        async def send(self, message: Any) -> None:
            await super().send(message)
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

    client = Stalled(num_chunks=1)
    serve = Serve(ReplicaFlowControl(TransferRates(download, 8192, 0.02)))
    asyncio.run(asyncio.wait_for(ProxyFlowControl(serve)(SCOPE, client.receive, client.send), 20))
    assert ended == ["replica"]
    assert serve.max_response_bytes <= WINDOW_BYTES + CHUNK_BYTES
    assert "/: the client has read nothing for 0.1 s; it is given up" in caplog.text


def test_what_the_proxy_answers_by_itself_waits_for_nothing() -> None:
    async def healthz(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, 200, b"success")

    client = Client(num_chunks=0)
    asyncio.run(asyncio.wait_for(ProxyFlowControl(healthz)(SCOPE, client.receive, client.send), 2))
    assert [message.get("more_body", False) for message in client.messages] == [False, False]


@pytest.mark.parametrize("num_taken", [0, 1, 20])
def test_a_replica_that_dies_is_answered_for(num_taken: int) -> None:
    client = Client(num_chunks=30)
    run(dies_after(num_taken), client)
    assert client.status == 503
    assert (b"retry-after", b"5") in client.messages[0]["headers"]
    body = json.loads(client.content)
    assert body["status_code"] == 503
    assert "has stopped; look whether it was done before you send it again" in body["detail"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_request_that_changes_nothing_may_just_be_repeated(method: str) -> None:
    client = Client(num_chunks=1)
    run(dies_after(1), client, {**SCOPE, "method": method})
    assert json.loads(client.content)["detail"].endswith("has stopped; send it again")


def test_clients_of_the_openai_api_are_told_in_its_words() -> None:
    client = Client(num_chunks=1)
    run(dies_after(1), client, {**SCOPE, "path": "/v1/chat/completions"})
    assert json.loads(client.content)["error"]["type"] == "service_unavailable_error"


def test_a_proxy_that_knows_nobody_yet_says_come_back() -> None:
    text = f"Path '{SCOPE['path']}' not found. Ping http://.../-/routes for available routes."

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        for message in convert_object_to_asgi_messages(text, status_code=404):
            await send(message)

    client = Client(num_chunks=0)
    asyncio.run(ProxyFlowControl(serve)(SCOPE, client.receive, client.send))
    assert client.status == 503
    assert (b"retry-after", b"5") in client.messages[0]["headers"]
    assert json.loads(client.content)["detail"].startswith("no application answers here yet")
    assert [message["type"] for message in client.messages] == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize("answered", ["nothing is here", {"detail": "Path 'x' not found. Ping"}, ""])
def test_what_the_application_does_not_find_is_not_found(answered: Any) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        for message in convert_object_to_asgi_messages(answered, status_code=404):
            await send(message)

    client = Client(num_chunks=0)
    asyncio.run(ProxyFlowControl(application)(SCOPE, client.receive, client.send))
    assert client.status == 404
    expected = list(convert_object_to_asgi_messages(answered, status_code=404))
    assert client.content == b"".join(message.get("body", b"") for message in expected)


def test_nobody_is_answered_twice() -> None:
    async def dies_while_it_answers(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    client = Client(num_chunks=1)
    run(dies_while_it_answers, client)
    assert [message["type"] for message in client.messages] == ["http.response.start"]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "name", ["x-request-timeout-seconds", "X-Request-Disconnect-Disabled", "x_session_id", "serve-multiplexed-model-id"]
)
def test_clients_tell_serve_nothing(kind: str, name: str) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(scope["headers"])
        if kind == "http":
            await answer(send, 200, b"")

    headers = [(name.encode(), b"?1"), (b"x-request-id", b"1"), (b"accept", b"*/*")]
    client = Client(num_chunks=0)
    asyncio.run(ProxyFlowControl(app)({**SCOPE, "type": kind, "headers": headers}, client.receive, client.send))
    assert seen == headers[1:]


def test_headers_that_serve_takes_have_the_names_that_are_kept_from_it() -> None:
    names = [
        constants.SERVE_HTTP_REQUEST_TIMEOUT_S_HEADER,
        constants.SERVE_HTTP_REQUEST_DISCONNECT_DISABLED_HEADER,
        constants.SERVE_SESSION_ID,
        constants.SERVE_MULTIPLEXED_MODEL_ID,
    ]
    assert {name.replace("-", "_").encode() for name in names} == flow_control._HEADERS_FOR_SERVE


def test_websockets_pass_untouched() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    receive, send = object(), object()
    scope: Any = {"type": "websocket"}
    asyncio.run(ProxyFlowControl(ReplicaFlowControl(app))(scope, receive, send))  # type: ignore[arg-type]
    assert seen == [(scope, receive, send)]


@pytest.mark.parametrize("file", ["cluster.yaml", "README.md", "deployments/container/Dockerfile"])
def test_clusters_are_told_to_switch_it_on(file: str) -> None:
    text = (Path(__file__).parents[2] / file).read_text()
    assert [
        f"{name}={value}" for name, value in flow_control.PROXY_ENVIRONMENT.items() if f"{name}={value}" not in text
    ] == []


def test_serve_gets_middlewares_by_the_path_in_its_environment() -> None:
    from importlib import import_module

    module, name = flow_control.PROXY_ENVIRONMENT["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"].rsplit(".", 1)
    assert getattr(import_module(module), name) is proxy_middlewares
    assert [middleware.cls for middleware in proxy_middlewares()] == [ProxyFlowControl]
