"""A limit on the size of request bodies."""

from __future__ import annotations

import re
from collections.abc import Collection
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sienn_ray.api.http.errors import error_response

# Longer declarations are over any limit; Python parses only some thousands of digits.
_MAX_DIGITS = 18


class BodyLimits:
    """ASGI middleware that ends a request with a 413 as soon as its body is too large.

    The declared length is looked at first, so that such a body isn't read at all; then the bytes are counted, since a
    body may come without a declaration.

    Args:
        app: The application within.
        max_bytes: Bytes of one body.
        exempt: Paths that have a limit of their own, as regular expressions.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, exempt: Collection[str] = ()) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._exempt = re.compile("|".join(exempt)) if exempt else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or self._is_exempt(scope):
            await self._app(scope, receive, send)
            return
        declared = declared_bytes(Headers(scope=scope))
        if declared is not None and declared > self._max_bytes:
            detail = self._detail(f"{declared} bytes")
            response = error_response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, scope=scope)
            await response(scope, receive, send)
            return
        num_bytes = 0
        is_answered = False

        async def receive_counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_bytes and not is_answered:
                # FastAPI takes any other exception that arises while it reads for a malformed body.
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._detail("more"))
            return message

        async def send_noted(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            await send(message)

        await self._app(scope, receive_counted, send_noted)

    def _is_exempt(self, scope: Scope) -> bool:
        path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
        return self._exempt is not None and self._exempt.fullmatch(path) is not None

    def _detail(self, actual: str) -> str:
        return (
            f"the body has {actual}, and at most {self._max_bytes} bytes are taken here (SIENN_MAX_BODY_BYTES); "
            "send less, or have the limit raised"
        )


def declared_bytes(headers: Headers) -> int | None:
    """Return the body's length by its headers; None if they don't have it in decimal digits."""
    declared = headers.get("content-length", "")
    if not (declared.isascii() and declared.isdigit()):
        return None
    return int(declared) if len(declared) <= _MAX_DIGITS else 10**_MAX_DIGITS
