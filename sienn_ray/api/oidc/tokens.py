"""Tokens of an outside issuer: checked, and the callers that they stand for."""

from __future__ import annotations

import time
from collections.abc import Callable

from sienn_ray.access.claim_rules import ClaimRules
from sienn_ray.access.jwts import ClaimChecks, Claims, audiences_of, header_of, verified_claims
from sienn_ray.access.principals import Credential, Principal
from sienn_ray.access.remembered import Remembered
from sienn_ray.access.secret_texts import sha256_of
from sienn_ray.api.oidc.issuer import Issuer
from sienn_ray.errors import InvalidTokenError

_MAX_REMEMBERED = 10_000
# A token is looked at anew after that, so that it ends within that time where its key has been taken back.
_REMEMBERED_S = 300.0
# Kinds of JWT that may be a bearer's; others, such as `logout+jwt` and `dpop+jwt`, are for other purposes.
_KINDS = frozenset({None, "jwt", "at+jwt"})


class OidcTokens:
    """Finds the caller that a token of an issuer stands for.

    Args:
        issuer: The issuer.
        audiences: Audiences that are this service.
        algorithms: Algorithms that are taken.
        rules: Make claims into scopes.
        skew_s: Seconds by which the issuer's clock may differ.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        issuer: Issuer,
        *,
        audiences: frozenset[str],
        algorithms: tuple[str, ...],
        rules: ClaimRules,
        skew_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._issuer = issuer
        self._audiences = audiences
        self._algorithms = frozenset(algorithms)
        self._rules = rules
        self._skew_s = skew_s
        self._clock = clock
        self._verified: Remembered[Principal] = Remembered(_MAX_REMEMBERED)

    @property
    def issuer(self) -> str:
        """The issuer's name."""
        return self._issuer.url

    async def principal_of(self, text: str) -> Principal:
        """Return the caller who sends a token.

        Raises:
            InvalidTokenError: It isn't valid.
            CapacityError: The issuer's keys can't be had.
        """
        sha256, now = sha256_of(text), self._clock()
        if known := self._verified.get(sha256, now):
            return known[0]
        claims, expires_at = await self._checked(text, self._audiences)
        principal = self._rules.principal_of(self.issuer, claims, Credential.OIDC_TOKEN)
        self._verified.put(sha256, principal, min(expires_at + self._skew_s, now + _REMEMBERED_S))
        return principal

    async def principal_of_login(self, id_token: str, client_id: str, nonce: str) -> Principal:
        """Return who has logged in (OpenID Connect Core 1.0, section 3.1.3.7).

        Args:
            id_token: The ID token that the issuer gave for the code.
            client_id: This service at the issuer.
            nonce: That of the login.

        Raises:
            InvalidTokenError: It isn't valid, or is that of another login.
            CapacityError: The issuer's keys can't be had.
        """
        claims, _ = await self._checked(id_token, frozenset({client_id}))
        if claims.get("nonce") != nonce:
            raise InvalidTokenError("the ID token is that of another login")
        if (len(audiences_of(claims)) > 1 or "azp" in claims) and claims.get("azp") != client_id:
            raise InvalidTokenError("the ID token was made for another client")
        return self._rules.principal_of(self.issuer, claims, Credential.SESSION)

    async def _checked(self, text: str, audiences: frozenset[str]) -> tuple[Claims, float]:
        """The claims of a token that is valid, and when it expires."""
        header = header_of(text)
        if header.kind not in _KINDS:
            raise InvalidTokenError("the token is of a kind that is for other purposes")
        if header.algorithm not in self._algorithms:
            allowed = ", ".join(sorted(self._algorithms))
            raise InvalidTokenError(f"the token is signed with an algorithm that isn't taken; {allowed} are")
        known = await self._issuer.key(header.key_id)
        algorithms = self._algorithms if known.algorithm is None else self._algorithms & {known.algorithm}
        claims = verified_claims(text, known.key, algorithms)
        if "cnf" in claims:
            raise InvalidTokenError("the token is bound to a key of its holder's, which can't be checked here")
        return claims, ClaimChecks(self.issuer, audiences, self._skew_s).check(claims, self._clock())
