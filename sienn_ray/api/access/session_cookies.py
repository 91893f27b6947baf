"""Cookies of sessions: their names, their attributes, and the pages that may send requests with them.

A browser sends a cookie along with whatever a page asks for, so a request with one has to come from a page of this
service. Browsers say so in `Sec-Fetch-Site`, and in `Origin` where they send no such header: what OWASP's guide on CSRF
takes in place of tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import Scope

from sienn_ray.errors import ForbiddenError
from sienn_ray.settings import is_loopback

# Browsers take this prefix only with Secure, without a domain and for all paths, so that no neighbour can set it.
_SECURE_PREFIX = "__Host-"
SESSION = "sienn_session"
LOGIN = "sienn_login"
_OTHER_SITES = frozenset({"cross-site", "same-site"})


class SessionCookies:
    """Reads and sets cookies, and checks where a request with one comes from.

    Args:
        origins: Origins whose pages may send requests with a cookie beside the service's own; `*` isn't one.
        is_https: Whether clients reach the service by HTTPS, whatever a request looks like behind a proxy.
    """

    def __init__(self, origins: Iterable[str] = (), *, is_https: bool = False) -> None:
        self._origins = frozenset(origins) - {"*"}
        self._is_https = is_https

    def read(self, scope: Scope, name: str) -> str | None:
        """Return a cookie that a request comes with; under its other name it doesn't count."""
        return cookie_parser(Headers(scope=scope).get("cookie", "")).get(self._full_name(scope, name)) or None

    def put(
        self,
        response: Response,
        scope: Scope,
        name: str,
        value: str,
        *,
        max_age_s: int,
        same_site: Literal["strict", "lax"],
    ) -> None:
        """Have a browser keep a cookie.

        Args:
            response: Sets it.
            scope: The request.
            name: `SESSION` or `LOGIN`.
            value: Its value; empty deletes it.
            max_age_s: Seconds that it is kept.
            same_site: `strict` keeps it back on any way in from another site, `lax` but for links and redirects.
        """
        response.set_cookie(
            self._full_name(scope, name),
            value,
            max_age=max_age_s if value else 0,
            path="/",
            secure=self._is_secure(scope),
            httponly=True,
            samesite=same_site,
        )

    def check_origin(self, scope: Scope, *, is_change: bool) -> None:
        """Let through a request with a cookie that a page of this service has sent.

        Args:
            scope: The request.
            is_change: Whether it changes something, or is a WebSocket; it has to prove then where it comes from.

        Raises:
            ForbiddenError: It is by a page of another origin, or may be.
        """
        headers = Headers(scope=scope)
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and origin in self._origins:
            return
        if is_change:
            is_fine = site == "same-origin" if site is not None else self._is_own(origin, scope, headers)
        else:
            # A link on another site may lead here; a page of it must not read what it leads to.
            is_elsewhere = site in _OTHER_SITES and headers.get("sec-fetch-mode") != "navigate"
            is_fine = not is_elsewhere and (
                origin is None or site == "same-origin" or self._is_own(origin, scope, headers)
            )
        if not is_fine:
            raise ForbiddenError(
                "a session's cookie counts only for pages of this service, which say so in 'Sec-Fetch-Site' or 'Origin'"
                "; other programs send an API key, and SIENN_CORS_ORIGINS lists other sites to let in"
            )

    def _is_own(self, origin: str | None, scope: Scope, headers: Headers) -> bool:
        if origin is None:
            return False
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        is_right_scheme = parts.scheme == "https" or (parts.scheme == "http" and not self._is_secure(scope))
        return is_right_scheme and parts.netloc.lower() == headers.get("host", "").lower()

    def _full_name(self, scope: Scope, name: str) -> str:
        return _SECURE_PREFIX + name if self._is_secure(scope) else name

    def _is_secure(self, scope: Scope) -> bool:
        """Whether a cookie is for HTTPS alone: everywhere but on this machine's own address."""
        if self._is_https or scope.get("scheme") in {"https", "wss"}:
            return True
        host = Headers(scope=scope).get("host", "").lower()
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        return not is_loopback(name)
