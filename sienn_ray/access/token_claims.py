"""Claims of the access tokens that this service signs, in the profile of RFC 9068."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from sienn_ray.access.jwts import ClaimChecks, Claims, JwtHeader
from sienn_ray.access.principals import Scope
from sienn_ray.access.token_lifetimes import LONGEST_TOKEN_LIFETIME_S
from sienn_ray.errors import InvalidTokenError

# What verifiers of all languages have; the public half is short.
ALGORITHM = "ES256"
# So that no other token of the same key can be taken for one.
KIND = "at+jwt"
# By which clocks of a cluster's machines may differ, as they do where NTP keeps them.
_SKEW_S = 5.0


@dataclass(frozen=True)
class TokenClaims:
    """An access token before it is signed.

    Args:
        issuer: This service, which is the audience as well.
        client_id: The prefix of the API key that it stands for.
        scopes: What it may be used for, as far as the key may.
        issued_at: Seconds since the epoch.
        expires_at: The same.
        token_id: Is that of no other token.
    """

    issuer: str
    client_id: str
    scopes: frozenset[Scope]
    issued_at: int
    expires_at: int
    token_id: str

    def as_json(self) -> dict[str, Any]:
        """The claims as they are signed."""
        return {
            "iss": self.issuer,
            "sub": self.client_id,
            "aud": self.issuer,
            "exp": self.expires_at,
            "iat": self.issued_at,
            "jti": self.token_id,
            "client_id": self.client_id,
            "scope": " ".join(sorted(self.scopes)),
        }

    @classmethod
    def checked(cls, header: JwtHeader, claims: Claims, issuer: str, now: float) -> Self:
        """Return the claims of a token whose signature is right.

        Args:
            header: Its header.
            claims: What it says.
            issuer: This service.
            now: Seconds since the epoch.

        Raises:
            InvalidTokenError: It is out of date, or not an access token of this service.
        """
        if header.kind != KIND:
            raise InvalidTokenError(f"the token is of another kind than '{KIND}'")
        expires_at = ClaimChecks(issuer, frozenset({issuer}), _SKEW_S).check(claims, now)
        issued_at = claims.get("iat")
        if isinstance(issued_at, bool) or not isinstance(issued_at, int | float):
            raise InvalidTokenError("the token doesn't say when it was made: it has no 'iat'")
        if expires_at - issued_at > LONGEST_TOKEN_LIFETIME_S:
            raise InvalidTokenError(
                f"the token is for {expires_at - issued_at:.0f} s; those of this service are for "
                f"{LONGEST_TOKEN_LIFETIME_S} s at the most"
            )
        client_id, scope = claims.get("client_id"), claims.get("scope")
        if not isinstance(client_id, str) or not isinstance(scope, str):
            raise InvalidTokenError("the token names no client or no scopes")
        known = frozenset(Scope(name) for name in scope.split() if name in set(Scope))
        return cls(issuer, client_id, known, int(issued_at), int(expires_at), str(claims.get("jti", "")))
