"""Refusal of requests that another web site has a visitor's browser send (CSRF)."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from sienn_ray.api.http.errors import refuse
from sienn_ray.api.http.methods import SAFE_METHODS
from sienn_ray.jobs.ids import shown

ANY_ORIGIN = "*"


class OriginChecks:
    """ASGI middleware that refuses changes, and WebSockets, that a page of another web site asks for.

    A page may have its visitor's browser send a form or open a WebSocket anywhere, in the visitor's network and with
    the visitor's cookies. Browsers say from where: in `Sec-Fetch-Site`, or in `Origin` where they send no such header
    (https://web.dev/articles/fetch-metadata). Other clients send neither. What a safe method answers, a browser shows
    to nobody but the sites that CORS lets in.

    Args:
        app: The application within.
        origins: Origins that are let in, such as `https://app.example.org`; `*` lets in all.
    """

    def __init__(self, app: ASGIApp, origins: Iterable[str] = ()) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if _is_change(scope) and not self._is_allowed(headers := Headers(scope=scope)):
            site = shown(headers.get("origin", "") or "another web site")
            detail = f"requests that a page of {site} sends are refused; SIENN_CORS_ORIGINS lists the sites to let in"
            await refuse(HTTPStatus.FORBIDDEN, detail, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_allowed(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if ANY_ORIGIN in self._origins or origin in self._origins:
            return True
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site in {"same-origin", "none"}
        return origin is None or _host_of(origin) == headers.get("host", "").lower()


def _is_change(scope: Scope) -> bool:
    return scope["type"] == "websocket" or (scope["type"] == "http" and scope["method"] not in SAFE_METHODS)


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
