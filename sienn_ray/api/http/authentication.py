"""Authentication of requests by their API keys, as a middleware."""

from __future__ import annotations

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from sienn_ray.access.principals import EVERYBODY, NOBODY, Principal
from sienn_ray.api.access.callers import PRINCIPAL
from sienn_ray.api.access.key_lookup import KeyLookup
from sienn_ray.api.http.errors import fault_of, refuse_with
from sienn_ray.errors import SiennError, UnauthorizedError

# What needs no key: whether the service lives, and the pages that say what it can do. A link to an exported file is
# signed, which is its key.
OPEN_PATHS = frozenset({"/health", "/docs", "/redoc", "/openapi.json"})
OPEN_FOLDERS = ("/static/docs/", "/api/export-files/")

# Pages can't set headers of a WebSocket, but its subprotocols: `["sienn", "sienn.key.<key>"]`.
SUBPROTOCOL = "sienn"
_KEY_SUBPROTOCOL = "sienn.key."

_HOW = "send one as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'"
_ERROR = "authentication_error"
_CHALLENGE = 'Bearer realm="sienn_ray"'


class Authentication:
    """ASGI middleware that finds out who sends a request.

    A request without valid credentials goes on to `AuthenticationRequired`, so that what is between them, such as a
    limit on requests, holds for it too.

    Args:
        app: The application within.
        keys: Knows API keys.
        is_required: False takes every request for one of an admin, whatever it comes with.
    """

    def __init__(self, app: ASGIApp, keys: KeyLookup, *, is_required: bool) -> None:
        self._app = app
        self._keys = keys
        self._is_required = is_required

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] in {"http", "websocket"}:
            error: SiennError | None = None
            try:
                principal = await self._principal(scope)
            except SiennError as raised:
                principal, error = NOBODY, raised
            scope["state"] = {**scope.get("state", {}), PRINCIPAL: principal, _ERROR: error}
        await self._app(scope, receive, send)

    async def _principal(self, scope: Scope) -> Principal:
        if not self._is_required:
            return EVERYBODY
        if is_open(scope):
            return NOBODY
        key = _sent_key(Headers(scope=scope))
        if key is None:
            raise UnauthorizedError(f"this needs an API key; {_HOW}")
        return await self._keys.principal_of(key)


class AuthenticationRequired:
    """ASGI middleware that refuses requests whose credentials `Authentication` didn't find valid.

    Args:
        app: The application within.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        error: SiennError | None = scope.get("state", {}).get(_ERROR)
        if error is None:
            await self._app(scope, receive, send)
            return
        fault = fault_of(scope, error)
        headers = {"WWW-Authenticate": _CHALLENGE} if fault.status == HTTPStatus.UNAUTHORIZED else {}
        await refuse_with(fault, headers, scope, receive, send)


def is_open(scope: Scope) -> bool:
    """Return whether a request needs no key."""
    path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)


def _sent_key(headers: Headers) -> str | None:
    """The key that a request comes with, from whichever header has one."""
    scheme, _, credentials = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    if key := headers.get("x-api-key", "").strip():
        return key
    offered = (each.strip() for each in headers.get("sec-websocket-protocol", "").split(","))
    keys = (each.removeprefix(_KEY_SUBPROTOCOL) for each in offered if each.startswith(_KEY_SUBPROTOCOL))
    return next(keys, None)
