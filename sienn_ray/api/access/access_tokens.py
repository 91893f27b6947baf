"""Access tokens of this service: made for API keys, and taken in their place for minutes."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from joserfc.jwk import ECKey

from sienn_ray.access.jwts import header_of, verified_claims
from sienn_ray.access.principals import Credential, Principal, Scope, narrowed
from sienn_ray.access.remembered import Remembered
from sienn_ray.access.secret_texts import sha256_of
from sienn_ray.access.token_claims import ALGORITHM, TokenClaims
from sienn_ray.access.token_keys import PublicTokenKey
from sienn_ray.api.access.key_lookup import KeyLookup
from sienn_ray.errors import InvalidTokenError
from sienn_ray.jobs.tracker_protocol import Tracker

_MAX_REMEMBERED = 10_000
# Between two questions for keys, however many tokens name one that isn't known.
_REFETCH_S = 1.0
# After that they are asked for anyway, so that a key that is gone is forgotten.
_KEYS_LIFETIME_S = 60.0
# A token is looked at anew after that, so that it ends where its key is gone, whatever end it names itself.
_REMEMBERED_S = 60.0


class TokenKeys:
    """The public keys of access tokens, asked for at the tracker and remembered.

    Args:
        tracker: Has them.
        clock: Seconds.
    """

    def __init__(self, tracker: Tracker, clock: Callable[[], float] = time.monotonic) -> None:
        self._tracker = tracker
        self._clock = clock
        self._keys: dict[str, ECKey] = {}
        self._fetched_at = float("-inf")
        self._lock = asyncio.Lock()

    async def key(self, kid: str) -> ECKey:
        """Return a key by its id; one that isn't known has the keys asked for once, and not for each such token.

        Raises:
            InvalidTokenError: There is none.
        """
        if kid not in self._keys or self._clock() >= self._fetched_at + _KEYS_LIFETIME_S:
            async with self._lock:
                if self._clock() >= self._fetched_at + _REFETCH_S:
                    await self._fetch()
        if kid not in self._keys:
            raise InvalidTokenError("the token is signed with a key that isn't known, or not any more")
        return self._keys[kid]

    async def _fetch(self) -> None:
        keys = await self._tracker.token_keys()
        self._keys = {key.kid: ECKey.import_key(dict(key.as_jwk())) for key in keys}
        self._fetched_at = self._clock()


class AccessTokens:
    """Makes access tokens, and finds the caller that one stands for.

    A token is as good as its API key: it ends with that, within the time that a replica remembers keys.

    Args:
        tracker: Signs.
        keys: Knows API keys.
        issuer: This service, as its tokens name it.
        lifetime_s: Seconds that a token is valid.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, tracker: Tracker, keys: KeyLookup, issuer: str, lifetime_s: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._tracker = tracker
        self._keys = keys
        self._token_keys = TokenKeys(tracker)
        self.issuer = issuer
        self._lifetime_s = lifetime_s
        self._clock = clock
        # By hash, so that a token that lies in memory for long is none.
        self._verified: Remembered[TokenClaims] = Remembered(_MAX_REMEMBERED)

    async def issue(self, client_id: str, scopes: frozenset[Scope]) -> tuple[str, int]:
        """Return a new token, and the seconds that it is valid.

        Args:
            client_id: The prefix of the API key.
            scopes: What it may be used for, as far as the key may.
        """
        now = int(self._clock())
        claims = TokenClaims(self.issuer, client_id, scopes, now, now + self._lifetime_s, uuid.uuid4().hex)
        return await self._tracker.sign_token(claims), self._lifetime_s

    def knows(self, text: str) -> bool:
        """Return whether a token was verified before, so that nothing of it has to be read."""
        return self._verified.get(sha256_of(text), self._clock()) is not None

    async def principal_of(self, text: str) -> Principal:
        """Return the caller who sends a token.

        Raises:
            InvalidTokenError: It isn't valid, or its key isn't any more.
        """
        sha256 = sha256_of(text)
        now = self._clock()
        known = self._verified.get(sha256, now)
        claims = known[0] if known else await self._checked(text)
        if known is None:
            self._verified.put(sha256, claims, min(claims.expires_at, now + _REMEMBERED_S))
        principal = await self._keys.principal_of_client(claims.client_id)
        scopes = narrowed(principal.scopes, claims.scopes)
        return replace(principal, scopes=scopes, credential=Credential.ACCESS_TOKEN)

    async def _checked(self, text: str) -> TokenClaims:
        header = header_of(text)
        if header.algorithm != ALGORITHM:
            raise InvalidTokenError(f"the token isn't signed with {ALGORITHM}, as those of this service are")
        key = await self._token_keys.key(header.key_id)
        return TokenClaims.checked(header, verified_claims(text, key, (ALGORITHM,)), self.issuer, self._clock())


def jwks_of(keys: list[PublicTokenKey]) -> dict[str, Any]:
    """Return the JWKS document of keys (RFC 7517)."""
    return {"keys": [key.as_jwk() for key in keys]}
