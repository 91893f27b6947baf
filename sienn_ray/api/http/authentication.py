"""Authentication of requests, as a middleware."""

from __future__ import annotations

from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sienn_ray.access.principals import EVERYBODY, NOBODY, Principal
from sienn_ray.api.access.callers import PRINCIPAL, principal_of
from sienn_ray.api.access.credentials import Credentials
from sienn_ray.api.http.errors import fault_of, refuse_with
from sienn_ray.api.http.methods import SAFE_METHODS
from sienn_ray.api.http.request_id import STARTS
from sienn_ray.errors import InvalidTokenError, SiennError

# What needs no key: whether the service lives, the pages that say what it can do, and where one proves who one is. A
# link to an exported file is signed, which is its key.
OPEN_PATHS = frozenset(
    {
        "/health",
        "/docs",
        "/redoc",
        "/openapi.json",
        "/api/auth/token",
        "/api/auth/jwks",
        "/api/auth/login",
        "/api/auth/callback",
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
    }
)
OPEN_FOLDERS = ("/static/docs/", "/api/export-files/")

_ERROR = "authentication_error"
_CHALLENGE = 'Bearer realm="sienn_ray"'


class Authentication:
    """ASGI middleware that finds out who sends a request.

    A request without valid credentials goes on to `AuthenticationRequired`, so that what is between them, such as a
    limit on requests, holds for it too.

    Args:
        app: The application within.
        credentials: Knows who sends which.
        is_required: False takes every request for one of an admin, whatever it comes with.
    """

    def __init__(self, app: ASGIApp, credentials: Credentials, *, is_required: bool) -> None:
        self._app = app
        self._credentials = credentials
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
        is_change = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        return await self._credentials.principal_of(scope, is_change=is_change)


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
            await self._app(scope, receive, _private(send) if _is_somebody(scope) else send)
            return
        fault = fault_of(scope, error)
        # What is sent and isn't valid is told from what isn't sent (RFC 6750, section 3).
        challenge = f'{_CHALLENGE}, error="invalid_token"' if isinstance(error, InvalidTokenError) else _CHALLENGE
        headers = {"WWW-Authenticate": challenge} if fault.status == HTTPStatus.UNAUTHORIZED else {}
        await refuse_with(fault, headers, scope, receive, send)


def _is_somebody(scope: Scope) -> bool:
    """Whether an HTTP request is that of one caller among others."""
    return scope["type"] == "http" and principal_of(scope) not in {NOBODY, EVERYBODY}


def _private(send: Send) -> Send:
    """Keep a response out of caches that others share, which know nothing of our headers and cookies (RFC 9111)."""

    async def send_private(message: Message) -> None:
        if message["type"] in STARTS:
            message.setdefault("headers", [])
            MutableHeaders(scope=message).setdefault("Cache-Control", "private")
        await send(message)

    return send_private


def is_open(scope: Scope) -> bool:
    """Return whether a request needs no key."""
    path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)
