"""Follows each request for the audit log, as a middleware."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sienn_ray.access.audit import AuditOrigin, PrincipalKind
from sienn_ray.access.audit_trail import Trail, followed
from sienn_ray.access.principals import EVERYBODY, NOBODY, Credential, Principal
from sienn_ray.api.access.callers import PRINCIPAL
from sienn_ray.api.access.key_lookup import ADMIN_KEY_ID
from sienn_ray.api.audit.recorder import AuditRecorder
from sienn_ray.api.http.request_id import request_id_of

# Operations that aren't a GET, and change nothing all the same.
CHANGING_NOTHING = frozenset(
    {"validate_dataset", "test_model", "compare_models", "create_chat_completion", "create_completion"}
)
_LOOKING = frozenset({"GET", "HEAD", "OPTIONS"})
_REFUSALS = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS})
_CLIENT_GONE = 499


class AuditTrails:
    """ASGI middleware that reports what the audit log is to have of a request.

    A change that the tracker has made is in the log already, written in the transaction of the change. Reported here
    are changes that were refused or failed, or that were none after all, and requests of any kind that their caller
    wasn't allowed: without valid credentials or the scope, for what somebody else owns, or beyond a limit.

    Args:
        app: The application within.
        recorder: Takes reports.
    """

    def __init__(self, app: ASGIApp, recorder: AuditRecorder) -> None:
        self._app = app
        self._recorder = recorder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        trail, status = Trail(lambda: _origin(scope)), 0

        async def send_and_note(message: Message) -> None:
            nonlocal status
            status = status or _status_of(message)
            await send(message)

        try:
            with followed(trail):
                await self._app(scope, receive, send_and_note)
        except (ClientDisconnect, asyncio.CancelledError):
            status = status or _CLIENT_GONE
            raise
        finally:
            self._report(scope, trail, status or HTTPStatus.INTERNAL_SERVER_ERROR)

    def _report(self, scope: Scope, trail: Trail, status: int) -> None:
        is_change = _is_change(scope)
        if status < HTTPStatus.BAD_REQUEST:
            is_reported = is_change and not trail.has_asked
        elif status in _REFUSALS or trail.hidden is not None:
            is_reported = True
        else:
            is_reported = is_change and status != HTTPStatus.METHOD_NOT_ALLOWED
        if is_reported:
            kind, text = trail.hidden or _target(scope)
            origin = _origin(scope).answered(status)
            self._recorder.report(origin, kind and kind.lower(), text, is_sampled=status >= HTTPStatus.BAD_REQUEST)


def _status_of(message: Message) -> int:
    """The status that a message begins an answer with; 0 for other messages."""
    match message["type"]:
        case "http.response.start" | "websocket.http.response.start":
            return int(message["status"])
        case "websocket.accept":
            return HTTPStatus.SWITCHING_PROTOCOLS
        case "websocket.close":  # before it was accepted, on a server that can't say why
            return HTTPStatus.FORBIDDEN
    return 0


def _is_change(scope: Scope) -> bool:
    if scope["type"] == "websocket" or scope["method"] in _LOOKING:
        return False
    route = _route(scope)
    return route is not None and route.name not in CHANGING_NOTHING


def _route(scope: Scope) -> APIRoute | None:
    route = scope.get("route")
    return route if isinstance(route, APIRoute) else None


def _origin(scope: Scope) -> AuditOrigin:
    """Who asks, as far as that is known by now; with the status that the route's success has."""
    principal: Principal = scope.get("state", {}).get(PRINCIPAL, NOBODY)
    route = _route(scope)
    # Never the query, which may have a signature.
    path = str(scope["path"]) if route is None else route.path
    return AuditOrigin(
        principal_kind=_kind_of(principal),
        principal_id=principal.key_id,
        principal_name=principal.name,
        owner=principal.owner or None,
        client=str(scope["client"][0]) if scope.get("client") else None,
        request_id=request_id_of(scope),
        action=None if route is None else route.name,
        request=f"{scope.get('method', 'WEBSOCKET')} {path}",
        status=None if route is None else route.status_code or HTTPStatus.OK,
    )


_KINDS = {
    Credential.NONE: PrincipalKind.OTHER,
    Credential.API_KEY: PrincipalKind.API_KEY,
    Credential.ACCESS_TOKEN: PrincipalKind.ACCESS_TOKEN,
    Credential.OIDC_TOKEN: PrincipalKind.OIDC_TOKEN,
    Credential.SESSION: PrincipalKind.SESSION,
}


def _kind_of(principal: Principal) -> PrincipalKind:
    if principal is EVERYBODY:
        return PrincipalKind.ANYBODY
    if principal is NOBODY:
        return PrincipalKind.NOBODY
    if principal.key_id == ADMIN_KEY_ID and principal.credential is Credential.API_KEY:
        return PrincipalKind.ADMIN_KEY
    return _KINDS[principal.credential]


def _target(scope: Scope) -> tuple[str | None, str | None]:
    """Kind and id of what a path names, the last of several."""
    named: dict[str, Any] = scope.get("path_params") or {}
    ids = [(name.removesuffix("_id"), str(value)) for name, value in named.items() if name.endswith("_id")]
    return ids[-1] if ids else (None, None)
