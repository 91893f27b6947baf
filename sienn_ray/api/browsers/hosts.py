"""Refusal of requests under another host's name, as DNS rebinding has a browser send them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from sienn_ray.api.http.errors import refuse
from sienn_ray.jobs.ids import shown
from sienn_ray.settings import LOCALHOST


class AllowedHosts:
    """ASGI middleware that refuses requests whose `Host` names somebody else.

    A web site can have its own name resolve to this machine's address (DNS rebinding); a browser then takes the service
    for a part of that site, and lets the site's pages read from it and write to it. Addresses are no names, so they
    are always allowed.

    Args:
        app: The application within.
        names: Names that are allowed, such as `sienn.example.org` or `*.example.org`; none allows all.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str] = ()) -> None:
        self._app = app
        self._names = frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] in {"http", "websocket"} and self._names:
            host = Headers(scope=scope).get("host", "")
            if host and not self._is_allowed(name_of(host)):
                detail = f"'{shown(host)}' is no name of this service; SIENN_ALLOWED_HOSTS lists those that are"
                await refuse(HTTPStatus.BAD_REQUEST, detail, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_allowed(self, name: str) -> bool:
        parent = name.partition(".")[2]
        is_local = LOCALHOST in {name, name.rpartition(".")[2]} and LOCALHOST in self._names
        return is_local or name in self._names or f"*.{parent}" in self._names or _is_address(name)


def name_of(host: str) -> str:
    """Return the name in a `Host` header, without its port.

    Example:
        >>> name_of("Sienn.example.org:8000"), name_of("[::1]:8000")
        ('sienn.example.org', '::1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower().removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
