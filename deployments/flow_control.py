"""Flow control between Ray Serve's proxy and a replica, for request and response bodies.

Serve's proxy reads a body as fast as the client sends it, the replica takes it from the proxy as fast as it can, and an
answer goes the other way in the same manner: all queues between them are unbounded. An upload that arrives faster than
it is handled fills the memory of two processes, and so does a download by a slow client. Here no more than
`WINDOW_BYTES` of a body are on their way: each side tells the other, in ASGI messages of types of their own, what it
has passed on. While the proxy doesn't read, TCP slows the client down; while it can't write, the application waits in
`send`.

`ProxyFlowControl` runs in the proxy; Serve installs it where `PROXY_ENVIRONMENT` is in the environment of Ray's
processes. `ReplicaFlowControl` runs in the replica, and does nothing where the proxy has no such middleware.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from http import HTTPStatus

from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sienn_ray.api.http.error_shapes import Fault, is_openai
from sienn_ray.api.http.methods import SAFE_METHODS
from sienn_ray.errors import DEFAULT_RETRY_AFTER_S

logger = logging.getLogger(__name__)

# Bytes of one body that may wait between proxy and application: two hundred uploads at once take a hundred MiB, and one
# alone still runs at the speed of Serve's own messages.
WINDOW_BYTES = 512 * 1024
PROXY_ENVIRONMENT = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deployments.flow_control.proxy_middlewares",
    # Serve's controller starts another proxy once three looks at the old one have failed; it looks every 10 s by
    # default, and meanwhile nobody listens.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
}

# Told once this much has come together, so that a small body, as nearly all are, costs no message at all.
_TELL_BYTES = WINDOW_BYTES // 4
# How long an answer that came before the end of the request's body waits for that end.
_DRAIN_S = 5.0
# How long a client may leave a piece of an answer, of 256 KiB at the most, unread. The replica gives slow clients up
# sooner (SIENN_TRANSFER_MIN_BYTES_PER_S), but the proxy, which doesn't read while it writes, can't hear of that.
_WRITE_TIMEOUT_S = 120.0
# What Serve's proxy takes from anybody, as it writes their names: how long a request may take, that it goes on when its
# client has left, and which replica it should wait for.
_HEADERS_FOR_SERVE = frozenset(
    {
        b"x_request_timeout_seconds",
        b"x_request_disconnect_disabled",
        b"x_session_id",
        b"serve_multiplexed_model_id",
    }
)
# How the answer ends of a proxy that knows no application for a path, as one that has just started.
_NO_ROUTE = b"/-/routes for available routes."
# Clients can't set extensions of a scope, as they could a header.
_EXTENSION = "sienn.flow_control"
_REQUEST_TAKEN = "sienn.request_taken"
_RESPONSE_TAKEN = "sienn.response_taken"


def proxy_middlewares() -> list[Middleware]:
    """Return the middlewares of Serve's proxy, which calls this when it starts."""
    return [Middleware(ProxyFlowControl)]


class ProxyFlowControl:
    """Reads a request no further ahead than the application, and acknowledges what the client reads of the response.

    Headers by which a client could tell Serve what to do don't reach Serve.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if "headers" in scope:
            scope = {**scope, "headers": [each for each in scope["headers"] if not _is_for_serve(each[0])]}
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _ProxyExchange(scope, receive, send)
        extensions = {**(scope.get("extensions") or {}), _EXTENSION: {}}
        try:
            await self._app({**scope, "extensions": extensions}, exchange.receive, exchange.send)
            await exchange.answer_if_unanswered()
        except _StalledClientError:
            logger.warning("%s: the client has read nothing for %g s; it is given up", scope["path"], _WRITE_TIMEOUT_S)
        finally:
            exchange.close()


def _may_be_of_serve(message: Message) -> bool:
    """Whether an answer begins as that of a proxy which knows no application for a path; ours are JSON."""
    if message["type"] != "http.response.start" or message["status"] != HTTPStatus.NOT_FOUND:
        return False
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/plain") for name, value in message["headers"]
    )


def _is_for_serve(header: bytes) -> bool:
    return header.lower().replace(b"-", b"_") in _HEADERS_FOR_SERVE


class _StalledClientError(Exception):
    """A client has stopped reading."""


class _ProxyExchange:
    """One request in the proxy, and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._receiving: asyncio.Task[Message] | None = None
        self._changed = asyncio.Event()
        self._request_is_whole = asyncio.Event()
        self._num_request_bytes_out = 0
        self._num_response_bytes_untold = 0
        self._is_answered = False
        self._is_read = False
        # The beginning of an answer that may be Serve's own.
        self._held: Message | None = None

    async def receive(self) -> Message:
        self._is_read = True
        while True:
            if self._num_response_bytes_untold >= _TELL_BYTES:
                num_bytes, self._num_response_bytes_untold = self._num_response_bytes_untold, 0
                return {"type": _RESPONSE_TAKEN, "num_bytes": num_bytes}
            has_room = self._is_answered or self._num_request_bytes_out < WINDOW_BYTES
            if has_room and (message := await self._client_message()) is not None:
                return self._noted(message)
            if not has_room:
                await self._wait_for_change()

    async def _client_message(self) -> Message | None:
        """The client's next message, or None when something else has happened."""
        if self._receiving is None:
            self._receiving = asyncio.ensure_future(self._receive())
        change = asyncio.ensure_future(self._wait_for_change())
        try:
            await asyncio.wait({self._receiving, change}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            change.cancel()
        if not self._receiving.done():
            return None
        message, self._receiving = self._receiving.result(), None
        return message

    async def _wait_for_change(self) -> None:
        await self._changed.wait()
        self._changed.clear()

    def _noted(self, message: Message) -> Message:
        if not message.get("more_body", False):
            self._request_is_whole.set()
        if self._is_answered and message["type"] == "http.request":
            return {**message, "body": b""}  # interests nobody any more
        self._num_request_bytes_out += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == _REQUEST_TAKEN:
            self._num_request_bytes_out -= message["num_bytes"]
            self._changed.set()
            return
        if not self._is_answered:
            self._is_answered = True
            self._changed.set()
        if _may_be_of_serve(message):
            self._held = message
            return
        if self._held is not None:
            held, self._held = self._held, None
            if message.get("body", b"").endswith(_NO_ROUTE):
                await self._respond("no application answers here yet; the service is starting, or isn't deployed")
                return
            await self._send(held)
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        # What the proxy answers by itself, such as its own health check, it answers without reading the request.
        if is_last and self._is_read and not self._request_is_whole.is_set():
            await self._send({**message, "more_body": True})
            await self._drain()
            message = {"type": "http.response.body"}
        try:
            async with asyncio.timeout(_WRITE_TIMEOUT_S):
                await self._send(message)  # waits while the client's connection is full
        except TimeoutError:
            raise _StalledClientError from None
        self._num_response_bytes_untold += len(message.get("body", b""))
        if self._num_response_bytes_untold >= _TELL_BYTES:
            self._changed.set()

    async def _drain(self) -> None:
        """Let a client that sends before it reads find the answer; a connection closed at once would be reset."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._request_is_whole.wait(), _DRAIN_S)

    async def answer_if_unanswered(self) -> None:
        """Respond where the replica has died: Serve says nothing then, and its web server "Internal Server Error"."""
        if self._is_answered:
            return
        is_repeatable = self._scope["method"] in SAFE_METHODS
        advice = "send it again" if is_repeatable else "look whether it was done before you send it again"
        await self._respond(f"the process that was working on this request has stopped; {advice}")

    async def _respond(self, detail: str) -> None:
        """Say that the client should come back."""
        fault = Fault(HTTPStatus.SERVICE_UNAVAILABLE, detail)
        headers = {"Retry-After": str(DEFAULT_RETRY_AFTER_S)}
        response = JSONResponse(fault.as_json(is_openai=is_openai(self._scope)), fault.status, headers)
        await response(self._scope, self._receive, self._send)

    def close(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()


class ReplicaFlowControl:
    """Acknowledges what the application reads of a request, and sends a response no faster than the client reads it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http" or _EXTENSION not in (scope.get("extensions") or {}):
            await self._app(scope, receive, send)
            return
        exchange = _ReplicaExchange(receive, send)
        await self._app(scope, exchange.receive, exchange.send)


class _ReplicaExchange:
    """One request in the replica, and its answer."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        # What came while `send` was looking for the proxy's own messages.
        self._waiting: deque[Message] = deque()
        self._is_receiving = False
        self._received = asyncio.Event()
        self._num_request_bytes_untold = 0
        self._num_response_bytes_out = 0
        self._is_gone = False

    async def receive(self) -> Message:
        # What was given out before has been dealt with, else the application wouldn't ask for more.
        if self._num_request_bytes_untold >= _TELL_BYTES:
            num_bytes, self._num_request_bytes_untold = self._num_request_bytes_untold, 0
            await self._send({"type": _REQUEST_TAKEN, "num_bytes": num_bytes})
        while not self._waiting:
            await self._take_one()
        message = self._waiting.popleft()
        self._num_request_bytes_untold += len(message.get("body", b""))
        return message

    async def _take_one(self) -> None:
        """Take a message from the proxy, or wait until somebody else has taken one."""
        if self._is_receiving:
            self._received.clear()
            await self._received.wait()
            return
        self._is_receiving = True
        try:
            message = await self._receive()
        finally:
            self._is_receiving = False
            self._received.set()
        if message["type"] == _RESPONSE_TAKEN:
            self._num_response_bytes_out -= message["num_bytes"]
            return
        self._is_gone = self._is_gone or message["type"] == "http.disconnect"
        self._waiting.append(message)

    async def send(self, message: Message) -> None:
        await self._send(message)
        self._num_response_bytes_out += len(message.get("body", b""))
        while self._num_response_bytes_out >= WINDOW_BYTES and message.get("more_body", False) and not self._is_gone:
            await self._take_one()
