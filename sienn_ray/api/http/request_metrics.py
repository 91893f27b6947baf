"""Measures every request, by route and not by path, so that no user can make new series."""

from __future__ import annotations

import asyncio
import time

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sienn_ray.metrics import REQUEST_SECONDS, Meter

UNMATCHED = "unmatched"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# As nginx counts clients that have gone before there was an answer.
_CLIENT_GONE = "499"
_FAILED = "500"


class RequestMetrics:
    """ASGI middleware that observes how long requests take.

    Args:
        app: The application within.
        meter: Takes the measurements.
    """

    def __init__(self, app: ASGIApp, meter: Meter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; other kinds than HTTP pass through: how long a WebSocket is open says nothing."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), ""

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except (ClientDisconnect, asyncio.CancelledError):
            status = status or _CLIENT_GONE
            raise
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            took_s = time.perf_counter() - started
            self._meter.observe(REQUEST_SECONDS, took_s, method=method, route=route_of(scope), status=status or _FAILED)


def route_of(scope: Scope) -> str:
    """Template of the route that took a request, such as `/api/training-status/{job_id}`."""
    path = getattr(scope.get("route"), "path", None)
    if path is not None:
        return str(path)
    endpoint = scope.get("endpoint")
    if endpoint is None:
        return UNMATCHED
    # Routes that aren't of FastAPI's own kind leave only what they called.
    called = ((route, getattr(route, "endpoint", getattr(route, "app", None))) for route in scope["app"].routes)
    return next((str(route.path) for route, target in called if target is endpoint), UNMATCHED)
