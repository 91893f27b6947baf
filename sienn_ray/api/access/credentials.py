"""Credentials of requests: API keys, tokens of this service and of an outside issuer, and cookies of sessions."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import Scope

from sienn_ray.access.jwts import claimed_issuer, looks_like_jwt
from sienn_ray.access.principals import Principal
from sienn_ray.api.access.access_tokens import AccessTokens
from sienn_ray.api.access.key_lookup import KeyLookup
from sienn_ray.api.access.session_cookies import SESSION, SessionCookies
from sienn_ray.api.access.session_lookup import SessionLookup
from sienn_ray.api.oidc.login import Login
from sienn_ray.api.oidc.tokens import OidcTokens
from sienn_ray.errors import InvalidTokenError, UnauthorizedError

# Pages can't set headers of a WebSocket, but its subprotocols: `["sienn", "sienn.key.<key or token>"]`.
SUBPROTOCOL = "sienn"
_KEY_SUBPROTOCOL = "sienn.key."
_HOW = "send an API key or a token as 'Authorization: Bearer <key>', or a key as 'X-API-Key: <key>'"


class Credentials:
    """Finds the caller that a request's credentials stand for.

    A header counts before a cookie, so that a program's key is never mixed up with a browser's session.

    Args:
        keys: Knows API keys.
        tokens: Knows tokens of this service.
        sessions: Knows sessions.
        cookies: Reads their cookies.
        oidc: Knows tokens of an outside issuer, if there is one.
        login: Logs browsers in at that issuer, if it may.
    """

    def __init__(
        self,
        keys: KeyLookup,
        tokens: AccessTokens,
        sessions: SessionLookup,
        cookies: SessionCookies,
        oidc: OidcTokens | None = None,
        login: Login | None = None,
    ) -> None:
        self.keys = keys
        self.tokens = tokens
        self.sessions = sessions
        self.cookies = cookies
        self.oidc = oidc
        self.login = login

    async def principal_of(self, scope: Scope, *, is_change: bool) -> Principal:
        """Return the caller of a request.

        Args:
            scope: The request.
            is_change: Whether it changes something, or is a WebSocket.

        Raises:
            UnauthorizedError: It has no credentials, or they aren't valid.
            ForbiddenError: It has a cookie, and doesn't come from a page of this service.
        """
        text = sent_text(Headers(scope=scope))
        if text is not None:
            return await self._principal_of_text(text)
        secret = self._secret(scope)
        self.cookies.check_origin(scope, is_change=is_change)
        return await self.sessions.principal_of(secret)

    async def principal_again(self, scope: Scope) -> Principal:
        """Return the caller of a request that was let in before, and is still being answered.

        That isn't a request of its own, so it doesn't keep a session from being idle.

        Raises:
            UnauthorizedError: The credentials aren't valid any more.
        """
        text = sent_text(Headers(scope=scope))
        if text is not None:
            return await self._principal_of_text(text)
        return await self.sessions.principal_of(self._secret(scope), is_use=False)

    def _secret(self, scope: Scope) -> str:
        """The secret of the session's cookie, for a request without other credentials."""
        secret = self.cookies.read(scope, SESSION)
        if secret is None:
            raise UnauthorizedError(f"this needs an API key; {_HOW}")
        return secret

    async def _principal_of_text(self, text: str) -> Principal:
        if not looks_like_jwt(text) or self.keys.is_admin_key(text):
            return await self.keys.principal_of(text)
        issuer = self.tokens.issuer if self.tokens.knows(text) else claimed_issuer(text)
        if issuer == self.tokens.issuer:
            return await self.tokens.principal_of(text)
        if self.oidc is not None and issuer == self.oidc.issuer:
            return await self.oidc.principal_of(text)
        raise InvalidTokenError("the token is by an issuer that isn't known here; SIENN_OIDC_ISSUER names one")


def sent_text(headers: Headers) -> str | None:
    """Return the key or token that a request comes with, from whichever header has one."""
    scheme, _, credentials = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    if key := headers.get("x-api-key", "").strip():
        return key
    offered = (each.strip() for each in headers.get("sec-websocket-protocol", "").split(","))
    keys = (each.removeprefix(_KEY_SUBPROTOCOL) for each in offered if each.startswith(_KEY_SUBPROTOCOL))
    return next(keys, None)
