"""A login of a browser at an outside issuer: authorization code, PKCE, state and nonce (RFC 6749, 7636 and 9700).

What has to be known until the browser comes back goes with it, in an encrypted cookie: nothing is kept for those who
never do, and any replica can go on.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlencode

import httpx2
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from sienn_ray.access.principals import Principal
from sienn_ray.access.secret_texts import derived_key, random_text
from sienn_ray.api.oidc.issuer import Issuer
from sienn_ray.api.oidc.local_paths import checked_local_path
from sienn_ray.api.oidc.tokens import OidcTokens
from sienn_ray.errors import InvalidInputError, IssuerError, UnauthorizedError

# In which a browser has to come back.
LOGIN_LIFETIME_S = 600
_PURPOSE = "login cookie"
_SEALING = ["dir", "A256GCM"]
# Of the issuer's answers, those that say nothing of the code.
_TRY_AGAIN = frozenset({httpx2.codes.REQUEST_TIMEOUT, httpx2.codes.TOO_MANY_REQUESTS})
_AGAIN = "log in again, in the same browser and within ten minutes"


@dataclass(frozen=True)
class PendingLogin:
    """A login that waits for its browser to come back.

    Args:
        state: Comes back with the browser.
        nonce: Comes back within the ID token.
        verifier: Proves to the issuer that it is the same service that asks.
        redirect_uri: Where the browser comes back to.
        next_path: Where it goes then.
        expires_at: Seconds since the epoch.
    """

    state: str
    nonce: str
    verifier: str
    redirect_uri: str
    next_path: str
    expires_at: float

    def sealed(self, key: OctKey) -> str:
        """The login as a cookie has it."""
        header = {"alg": _SEALING[0], "enc": _SEALING[1]}
        return jwe.encrypt_compact(header, json.dumps(asdict(self)), key, _SEALING)

    @classmethod
    def opened(cls, cookie: str, key: OctKey) -> PendingLogin | None:
        """Return the login in a cookie, or None if this service hasn't made it."""
        try:
            return cls(**json.loads(jwe.decrypt_compact(cookie, key, _SEALING).plaintext or b""))
        except (JoseError, ValueError, TypeError):
            return None


@dataclass(frozen=True)
class Return:
    """The query with which a browser comes back from its issuer.

    Args:
        code: Is exchanged for tokens.
        state: That of the login.
        error: Why there is no code, as the issuer names it.
        issuer: The issuer, if it says so (RFC 9207).
    """

    code: str | None
    state: str | None
    error: str | None = None
    issuer: str | None = None


class Login:
    """Logs browsers in.

    Args:
        issuer: The issuer.
        tokens: Checks its ID tokens.
        client_id: This service at the issuer.
        client_secret: Its secret, if it has one.
        scopes: What the issuer is asked for.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        issuer: Issuer,
        tokens: OidcTokens,
        *,
        client_id: str,
        client_secret: str | None,
        scopes: tuple[str, ...],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._issuer = issuer
        self._tokens = tokens
        self._client_id = client_id
        self._client_secret = client_secret
        self._scopes = scopes
        self._clock = clock

    async def start(self, secret: bytes, redirect_uri: str, next_path: str) -> tuple[str, str]:
        """Begin a login.

        Args:
            secret: The same for all replicas.
            redirect_uri: Where the browser comes back to.
            next_path: Where it goes then.

        Returns:
            The URL that the browser goes to, and the value of its cookie.

        Raises:
            InvalidInputError: `next_path` may lead elsewhere.
            CapacityError: The issuer can't be asked.
        """
        next_path = checked_local_path(next_path)
        metadata = await self._issuer.metadata()
        if metadata.authorization_endpoint is None:
            raise IssuerError("the issuer of SIENN_OIDC_ISSUER has no authorization_endpoint, so nobody can log in")
        pending = PendingLogin(
            state=random_text(),
            nonce=random_text(),
            verifier=random_text(64),
            redirect_uri=redirect_uri,
            next_path=next_path,
            expires_at=self._clock() + LOGIN_LIFETIME_S,
        )
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self._scopes),
            "state": pending.state,
            "nonce": pending.nonce,
            "code_challenge": challenge_of(pending.verifier),
            "code_challenge_method": "S256",
        }
        endpoint = metadata.authorization_endpoint
        url = f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"
        return url, pending.sealed(_key(secret))

    async def finish(self, secret: bytes, cookie: str | None, came: Return) -> tuple[Principal, str]:
        """End a login.

        Args:
            secret: The same as before.
            cookie: What the browser has of the login.
            came: What it comes back with.

        Returns:
            Who it is, and where the browser goes now.

        Raises:
            InvalidInputError: The issuer has refused the login.
            UnauthorizedError: It is no login of this browser, or not any more.
            CapacityError: The issuer can't be asked.
        """
        pending = PendingLogin.opened(cookie, _key(secret)) if cookie else None
        if pending is None or came.state is None or not _is_same(pending.state, came.state):
            raise UnauthorizedError(f"this isn't the way back of a login that this browser has begun; {_AGAIN}")
        if pending.expires_at <= self._clock():
            raise UnauthorizedError(f"the login took too long; {_AGAIN}")
        if came.issuer is not None and came.issuer != self._issuer.url:
            raise UnauthorizedError(f"the browser comes back from another issuer than it was sent to; {_AGAIN}")
        if came.error is not None or not came.code:
            raise InvalidInputError(f"the issuer has refused the login ({(came.error or 'no code')[:50]!a}); {_AGAIN}")
        id_token = await self._exchange(came.code, pending)
        return await self._tokens.principal_of_login(id_token, self._client_id, pending.nonce), pending.next_path

    async def logout_url(self) -> str | None:
        """Return where a browser logs out of the issuer itself, if that says so."""
        endpoint = (await self._issuer.metadata()).end_session_endpoint
        if endpoint is None:
            return None
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode({'client_id': self._client_id})}"

    async def _exchange(self, code: str, pending: PendingLogin) -> str:
        """The ID token for a code."""
        metadata = await self._issuer.metadata()
        if metadata.token_endpoint is None:
            raise IssuerError("the issuer of SIENN_OIDC_ISSUER has no token_endpoint, so nobody can log in")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": pending.redirect_uri,
            "code_verifier": pending.verifier,
        }
        basic = None
        if self._client_secret is not None and metadata.takes_basic:
            basic = (_form_encoded(self._client_id), _form_encoded(self._client_secret))
        else:
            form["client_id"] = self._client_id
            if self._client_secret is not None:
                form["client_secret"] = self._client_secret
        status, answer = await self._issuer.fetches.post_form(metadata.token_endpoint, form, basic)
        if status >= httpx2.codes.INTERNAL_SERVER_ERROR or status in _TRY_AGAIN:
            raise IssuerError(f"the issuer of SIENN_OIDC_ISSUER answers {status}; try again in a while", 30)
        id_token = answer.get("id_token")
        if status != httpx2.codes.OK or not isinstance(id_token, str):
            raise UnauthorizedError(f"the issuer didn't take the login's code ({_error_of(status, answer)}); {_AGAIN}")
        return id_token


def challenge_of(verifier: str) -> str:
    """Return what the issuer is shown of a verifier first (RFC 7636, S256)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _is_same(ours: str, sent: str) -> bool:
    """Compare texts in a time that tells nothing; as bytes, since what is sent may have other letters than ASCII."""
    return hmac.compare_digest(ours.encode(), sent.encode(errors="replace"))


def _key(secret: bytes) -> OctKey:
    return OctKey.import_key(derived_key(secret, _PURPOSE))


def _form_encoded(text: str) -> str:
    """A name or password of HTTP Basic, as RFC 6749 (section 2.3.1) has them."""
    return urlencode({"": text})[1:]


def _error_of(status: int, answer: dict[str, Any]) -> str:
    error = answer.get("error")
    return ascii(error[:50]) if isinstance(error, str) else f"it answers {status}"
