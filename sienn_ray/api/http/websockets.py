"""Errors of WebSocket connections: a refusal before the handshake is accepted, a close code after it (RFC 6455)."""

from __future__ import annotations

import logging
from http import HTTPStatus

from fastapi.exceptions import WebSocketRequestValidationError
from starlette import status
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose, WebSocketDisconnect

from sienn_ray.api.http.error_shapes import Fault
from sienn_ray.api.http.errors import error_response, fault_of
from sienn_ray.api.http.request_id import request_id_of
from sienn_ray.api.http.validation import sentences
from sienn_ray.jobs.ids import shown

logger = logging.getLogger(__name__)

# The ASGI extension with which a server sends an HTTP response in place of the handshake.
_DENIAL = "websocket.http.response"
# A control frame has at most 125 bytes, two of which are the code.
_MAX_REASON_BYTES = 123


class WebSocketErrors:
    """ASGI middleware that tells a WebSocket client what went wrong, in the words that an HTTP client would read.

    Before the connection is accepted, that is the HTTP response of the same error, or a close frame where the server
    can't send one. Afterwards it is a close frame: 1008 for errors of the client, 1011 for those of the service.

    Args:
        app: The application within.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; other kinds than WebSocket pass through."""
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        is_accepted = False

        async def send_noted(message: Message) -> None:
            nonlocal is_accepted
            is_accepted = is_accepted or message["type"] == "websocket.accept"
            if message["type"] == "websocket.close" and not is_accepted and "endpoint" not in scope:
                await _refuse(_no_route(scope), scope, receive, send)  # Starlette's router closes without a reason
            else:
                await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except WebSocketDisconnect:
            logger.info("request %s: the client has gone", request_id_of(scope))
        except Exception as error:
            await (_close if is_accepted else _refuse)(_fault_of(scope, error), scope, receive, send)


async def _refuse(fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
    if _DENIAL in scope.get("extensions", {}):
        await error_response(fault.status, fault.detail, scope=scope)(scope, receive, send)
    else:
        await _close(fault, scope, receive, send)


async def _close(fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
    is_ours = fault.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    code = status.WS_1011_INTERNAL_ERROR if is_ours else status.WS_1008_POLICY_VIOLATION
    reason = fault.detail.encode(errors="backslashreplace")[:_MAX_REASON_BYTES].decode(errors="ignore")
    await WebSocketClose(code, reason)(scope, receive, send)


def _no_route(scope: Scope) -> Fault:
    path = shown(str(scope["path"]))
    return Fault(HTTPStatus.NOT_FOUND, f"there is no WebSocket at {path}; /docs lists what is answered over HTTP")


def _fault_of(scope: Scope, error: Exception) -> Fault:
    if isinstance(error, HTTPException):
        return Fault(error.status_code, error.detail)
    if isinstance(error, WebSocketRequestValidationError):
        return Fault(HTTPStatus.UNPROCESSABLE_ENTITY, sentences(error.errors()))
    return fault_of(scope, error)
