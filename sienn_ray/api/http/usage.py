"""Requests and bytes, counted for the callers whose they are."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sienn_ray.access.usage import UsageCounts, UsageRecorder
from sienn_ray.api.access.callers import principal_of


class UsageCounting:
    """ASGI middleware that counts each caller's requests, and the bytes of their bodies.

    Requests that are refused before it, as those without a valid key, are nobody's.

    Args:
        app: The application within.
        usage: Takes the counts.
    """

    def __init__(self, app: ASGIApp, usage: UsageRecorder) -> None:
        self._app = app
        self._usage = usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] not in {"http", "websocket"} or not principal_of(scope).owner:
            await self._app(scope, receive, send)
            return
        uploaded_bytes = downloaded_bytes = 0

        async def receive_counted() -> Message:
            nonlocal uploaded_bytes
            message = await receive()
            uploaded_bytes += len(message.get("body", b""))
            return message

        async def send_counted(message: Message) -> None:
            nonlocal downloaded_bytes
            await send(message)
            downloaded_bytes += len(message.get("body", b""))

        try:
            await self._app(scope, receive_counted, send_counted)
        finally:
            counts = UsageCounts(num_requests=1, uploaded_bytes=uploaded_bytes, downloaded_bytes=downloaded_bytes)
            self._usage.add(principal_of(scope), counts)
