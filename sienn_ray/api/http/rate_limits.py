"""Rate limits of requests, as a middleware: 429 beyond them, and headers that say how much is left."""

from __future__ import annotations

import ipaddress
import math
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sienn_ray.access.rate_limits import Grant, parsed
from sienn_ray.api.access.callers import principal_of
from sienn_ray.api.access.rate_gate import RateGate
from sienn_ray.api.http.error_shapes import Fault
from sienn_ray.api.http.errors import refuse_with
from sienn_ray.api.http.request_id import STARTS

# Probes, and the files of one page, which a browser asks for all at once.
_EXEMPT = frozenset({"/health"})
_EXEMPT_FOLDERS = ("/static/docs/",)
# Whoever has one address of a network of this size has them all (RFC 6177).
_IPV6_PREFIX = 64


class RateLimits:
    """ASGI middleware that refuses requests beyond their client's limits.

    Requests of a key that has limits of its own are counted together, all others by the address that they come from.
    Headers are those of the IETF's draft on rate limits (draft-ietf-httpapi-ratelimit-headers).

    Args:
        app: The application within.
        gate: Knows what each client has left.
        limits: Limits of an address, as `100/minute;1000/hour`; none lets all pass but keys with limits of their own.
    """

    def __init__(self, app: ASGIApp, gate: RateGate, limits: str) -> None:
        self._app = app
        self._gate = gate
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        bucket, limits = self._client(scope) if scope["type"] in {"http", "websocket"} else ("", "")
        if not limits:
            await self._app(scope, receive, send)
            return
        passage = await self._gate.passage(bucket, limits)
        headers = {} if passage.grant is None else _headers(limits, passage.grant)
        if not passage.is_allowed and passage.grant is not None:
            grant = passage.grant
            retry_after_s = max(1, math.ceil(grant.reset_s))
            detail = (
                f"more than {grant.limit} requests in {grant.window_s} s; come back in {retry_after_s} s, or ask for a "
                "key with higher limits"
            )
            fault = Fault(HTTPStatus.TOO_MANY_REQUESTS, detail, retry_after_s=retry_after_s)
            await refuse_with(fault, headers, scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] in STARTS:
                message.setdefault("headers", [])
                MutableHeaders(scope=message).update(headers)
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _client(self, scope: Scope) -> tuple[str, str]:
        """Whose requests this one is counted with, and their limits."""
        path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
        if path in _EXEMPT or path.startswith(_EXEMPT_FOLDERS):
            return "", ""
        principal = principal_of(scope)
        if principal.rate_limits is not None:
            return f"key {principal.key_id}", principal.rate_limits
        return f"address {network_of(scope)}", self._limits


def network_of(scope: Scope) -> str:
    """Return the address that a request comes from; of IPv6, the network that one customer has."""
    host = str((scope.get("client") or ("unknown", 0))[0])
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
    return host


def _headers(limits: str, grant: Grant) -> dict[str, str]:
    policies = (f'"{item.get_expiry()}s";q={item.amount};w={item.get_expiry()}' for item in parsed(limits))
    return {
        "RateLimit-Policy": ", ".join(policies),
        "RateLimit": f'"{grant.window_s}s";r={grant.num_left};t={math.ceil(grant.reset_s)}',
    }
