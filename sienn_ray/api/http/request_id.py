"""An id for every request: in its response, in the log, and in the detail of a 500."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

HEADER = "X-Request-ID"
_FORM = re.compile(r"[0-9a-fA-F-]{32,36}")
_HTTP_START = "http.response.start"
# Messages with the headers of a response; the latter two are those of a WebSocket handshake.
STARTS = frozenset({_HTTP_START, "websocket.accept", "websocket.http.response.start"})


class RequestIds:
    """Outermost ASGI middleware: gives requests their ids, and responds to whatever fails within.

    Where the server numbers requests, as Ray Serve's proxy does, the id is the one that it passes on; it then sets the
    header of HTTP responses, too, though not that of WebSocket handshakes. Else the id is made here: one that a client
    chose could forge lines of the log.

    Args:
        app: The application within.
        on_error: Logs an error that nobody has handled, and gives the response to it.
        numbered_by_server: Whether the server numbers requests.
    """

    def __init__(
        self, app: ASGIApp, on_error: Callable[[Scope, Exception], Response], *, numbered_by_server: bool = False
    ) -> None:
        self._app = app
        self._on_error = on_error
        self._numbered_by_server = numbered_by_server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; other kinds than HTTP and WebSocket pass through."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        request_id = (_passed_on(scope) if self._numbered_by_server else None) or uuid.uuid4().hex
        scope["state"] = {**scope.get("state", {}), "request_id": request_id}
        is_started = False

        async def send_with_id(message: Message) -> None:
            nonlocal is_started
            if message["type"] in STARTS:
                is_started = True
                message.setdefault("headers", [])
                headers = MutableHeaders(scope=message)
                if not self._numbered_by_server or message["type"] != _HTTP_START:
                    headers[HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            logger.info("request %s: the client has gone", request_id)
        except Exception as error:
            response = self._on_error(scope, error)
            if is_started:
                raise  # what was sent can't be taken back; the server cuts the connection
            await response(scope, receive, send_with_id)


def _passed_on(scope: Scope) -> str | None:
    """The id in the request's header; a client may have written it, so only what looks like one counts."""
    value = Headers(scope=scope).get(HEADER, "")
    return value if _FORM.fullmatch(value) else None


def request_id_of(scope: Scope) -> str:
    """The id that this request has."""
    state: dict[str, Any] = scope.get("state", {})
    return str(state.get("request_id", "-"))
