"""A lowest mean rate of bodies, both ways: a client that sends or reads more slowly is given up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from http import HTTPStatus
from typing import TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sienn_ray.api.http.request_id import request_id_of

logger = logging.getLogger(__name__)

T = TypeVar("T")

# A piece of a response that goes out sooner has waited for the event loop rather than for the client.
_SHORTEST_WRITE_S = 1.0


class TransferRates:
    """ASGI middleware that ends a request whose client is too slow.

    Only time counts in which this side waits for the client: for more of a request's body, or, behind a server that has
    flow control, for room for more of the response. A body that comes at the server's own pace is never too slow. A
    request ends with a 408; of a response nothing more is sent.

    Args:
        app: The application within.
        min_bytes_per_s: Lowest mean rate over a window.
        window_s: Seconds of waiting that make a window; so much is every client granted.
    """

    def __init__(self, app: ASGIApp, min_bytes_per_s: int, window_s: float) -> None:
        self._app = app
        self._min_bytes_per_s = min_bytes_per_s
        self._window_s = window_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = _Window(self._min_bytes_per_s, self._window_s)
        read = _Window(self._min_bytes_per_s, self._window_s, _SHORTEST_WRITE_S)
        is_whole = is_answered = False

        async def receive_timed() -> Message:
            nonlocal is_whole
            if is_whole or is_answered:
                return await receive()  # that is, wait until the client goes away
            try:
                message = await sent.wait_for(receive())
            except _TooSlowError as error:
                logger.warning("request %s: the client sent %s; it is given up", request_id_of(scope), error)
                # FastAPI takes any other exception that arises while it reads for a malformed body.
                raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, f"the body came too slowly: {error}") from None
            sent.num_bytes += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            return message

        async def send_timed(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            try:
                await read.wait_for(send(message))
            except _TooSlowError as error:
                logger.warning("request %s: the client read %s; it is given up", request_id_of(scope), error)
                raise ClientDisconnect from None
            read.num_bytes += len(message.get("body", b""))

        await self._app(scope, receive_timed, send_timed)


class _TooSlowError(Exception):
    """A client has fallen short of the lowest rate."""


class _Window:
    """Seconds of waiting for a client, and the bytes that went on meanwhile."""

    def __init__(self, min_bytes_per_s: int, window_s: float, shortest_s: float = 0.0) -> None:
        self._min_bytes_per_s = min_bytes_per_s
        self._window_s = window_s
        self._shortest_s = min(shortest_s, window_s)
        self._waited_s = 0.0
        self.num_bytes = 0

    async def wait_for(self, work: Awaitable[T]) -> T:
        """Wait for what depends on the client.

        Raises:
            _TooSlowError: A window is over in which too few bytes went on.
        """
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                began_at = time.monotonic()
                await asyncio.wait({task}, timeout=self._window_s - self._waited_s)
                took_s = time.monotonic() - began_at
                if took_s >= self._shortest_s or not task.done():
                    self._waited_s += took_s
                if self._waited_s >= self._window_s:
                    self._end()
            return task.result()
        finally:
            task.cancel()

    def _end(self) -> None:
        if self.num_bytes < self._min_bytes_per_s * self._window_s:
            raise _TooSlowError(
                f"{self.num_bytes} bytes in {self._window_s:g} s (SIENN_TRANSFER_WINDOW_S), and "
                f"SIENN_TRANSFER_MIN_BYTES_PER_S is {self._min_bytes_per_s}"
            )
        self._waited_s, self.num_bytes = 0.0, 0
