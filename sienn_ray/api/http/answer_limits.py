"""Limits on the answers of a caller, as a middleware: their place is given back, and headers say what is left."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sienn_ray.access.claims import NO_LIMITS, ClaimLimits
from sienn_ray.api.access.admissions import Admission
from sienn_ray.api.access.callers import ADMISSION, principal_of
from sienn_ray.api.access.claim_gate import ClaimGate
from sienn_ray.api.http.request_id import STARTS


class AnswerLimits:
    """ASGI middleware for callers whose answers are limited.

    Whatever a route asks engines for takes a place and tokens of its caller (`CallerEngines`), and both come back when
    the response has ended, however it ended: a stream holds its place until its last event, or until its client leaves.

    Args:
        app: The application within.
        gate: Claims for this replica.
        defaults: Limits of keys that have none of their own, and of owners who come without a key.
    """

    def __init__(self, app: ASGIApp, gate: ClaimGate, defaults: ClaimLimits) -> None:
        self._app = app
        self._gate = gate
        self._defaults = defaults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        limits = self._limits(scope) if scope["type"] in {"http", "websocket"} else NO_LIMITS
        if not limits.is_bounded:
            await self._app(scope, receive, send)
            return
        admission = scope["state"][ADMISSION] = Admission(self._gate, principal_of(scope), limits)

        async def send_with_headers(message: Message) -> None:
            if message["type"] in STARTS and admission.headers:
                message.setdefault("headers", [])
                MutableHeaders(scope=message).update(admission.headers)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            admission.end()

    def _limits(self, scope: Scope) -> ClaimLimits:
        """The limits of a caller; an admin has those alone that its key names."""
        principal = principal_of(scope)
        own, defaults = principal.answer_limits, NO_LIMITS if principal.is_admin else self._defaults
        return ClaimLimits(
            max_open=defaults.max_open if own.max_open is None else own.max_open,
            tokens_per_minute=defaults.tokens_per_minute if own.tokens_per_minute is None else own.tokens_per_minute,
        )
