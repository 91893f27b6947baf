"""JSON Web Tokens: a look at the header before anything else, then signature and times (RFC 7515, 7519 and 8725)."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key
from joserfc.jws import JWSRegistry

from sienn_ray.errors import InvalidTokenError

# What may be chosen for tokens of an outside issuer. No `none`, and nothing with a shared secret: a public key must
# never be taken for one.
ASYMMETRIC_ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA",
)  # fmt: skip
MAX_TOKEN_CHARS = 8192
_FORM = re.compile(r"\A([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)\Z")
# Where a token says itself by which key it is to be checked, and extensions that would have to be understood.
_REFUSED_IN_HEADERS = ("crit", "jku", "jwk", "x5u")
_MAX_SHOWN_CHARS = 100

Claims = Mapping[str, Any]


@dataclass(frozen=True)
class JwtHeader:
    """The header of a token, as far as it is taken.

    Args:
        algorithm: The algorithm of its signature.
        key_id: The key of its signature.
        kind: Its media type without `application/`, in small letters; None where it has none.
    """

    algorithm: str
    key_id: str
    kind: str | None


@dataclass(frozen=True)
class ClaimChecks:
    """Checks of claims that each token has to stand, once its signature is right.

    Args:
        issuer: By whom it has to be.
        audiences: One of them has to be among those that it is meant for.
        skew_s: Seconds by which the issuer's clock may differ.
    """

    issuer: str
    audiences: frozenset[str]
    skew_s: float = 0.0

    def check(self, claims: Claims, now: float) -> float:
        """Return the moment at which a token expires, in seconds since the epoch.

        Raises:
            InvalidTokenError: It is by somebody else, for somebody else, not valid yet, not any more, or doesn't say.
        """
        if claims.get("iss") != self.issuer:
            raise InvalidTokenError(f"the token is by the issuer {_shown(claims.get('iss'))}, and not '{self.issuer}'")
        audiences = audiences_of(claims)
        if self.audiences.isdisjoint(audiences):
            found = ", ".join(map(_shown, audiences)) or "nobody"
            ours = " or ".join(f"'{each}'" for each in sorted(self.audiences))
            raise InvalidTokenError(f"the token is meant for {found}, and not for {ours}")
        subject = claims.get("sub")
        if not isinstance(subject, str) or not subject:
            raise InvalidTokenError("the token doesn't say who it is for: it has no 'sub'")
        expires_at = _moment(claims, "exp")
        if expires_at is None:
            raise InvalidTokenError("the token has no end: it has no 'exp'")
        if expires_at + self.skew_s <= now:
            raise InvalidTokenError(f"the token has expired at {_as_text(expires_at)}; get another one")
        for name in ("nbf", "iat"):
            begins_at = _moment(claims, name)
            if begins_at is not None and begins_at - self.skew_s > now:
                raise InvalidTokenError(f"the token isn't valid before {_as_text(begins_at)} ('{name}')")
        return expires_at


def looks_like_jwt(text: str) -> bool:
    """Return whether a text has the form of a signed token, right or wrong."""
    return _FORM.fullmatch(text) is not None


def header_of(text: str) -> JwtHeader:
    """Return the header of a token that nobody has checked yet.

    Raises:
        InvalidTokenError: It isn't one that is taken, whoever has signed it.
    """
    header = _part(text, 1)
    for name in _REFUSED_IN_HEADERS:
        if name in header:
            raise InvalidTokenError(f"the token's header has '{name}', which isn't taken")
    algorithm, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(algorithm, str):
        raise InvalidTokenError("the token's header names no algorithm")
    if not isinstance(key_id, str) or not key_id:
        raise InvalidTokenError("the token's header names no key: it has no 'kid'")
    if kind is not None and not isinstance(kind, str):
        raise InvalidTokenError("the token's header has a 'typ' that is no text")
    return JwtHeader(algorithm, key_id, None if kind is None else kind.lower().removeprefix("application/"))


def claimed_issuer(text: str) -> str | None:
    """Return who a token says that it is by; to be believed once its signature was checked, and not before.

    Raises:
        InvalidTokenError: It isn't well-formed.
    """
    issuer = _part(text, 2).get("iss")
    return issuer if isinstance(issuer, str) else None


def verified_claims(text: str, key: Key, algorithms: Collection[str]) -> Claims:
    """Return the claims of a token that a key has signed.

    Args:
        text: The token.
        key: The key by its id, and by nothing else that the token says.
        algorithms: Those that are taken of this key.

    Raises:
        InvalidTokenError: It hasn't, or not by one of these algorithms.
    """
    algorithm = header_of(text).algorithm
    # The library itself would take `none` where somebody lists it.
    taken = frozenset(algorithms).intersection(ASYMMETRIC_ALGORITHMS)
    if algorithm not in taken:
        allowed = ", ".join(sorted(taken)) or "nothing"
        raise InvalidTokenError(f"the token is signed with {_shown(algorithm)}, and only {allowed} is taken")
    # An issuer's headers may have more in them than the standard knows.
    registry = JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    try:
        return jwt.decode(text, key, registry=registry).claims
    except (JoseError, ValueError, TypeError, RecursionError):
        # Of another kind of key than the algorithm takes, too.
        raise InvalidTokenError("the token's signature isn't right") from None


def audiences_of(claims: Claims) -> tuple[str, ...]:
    """Return for whom a token is meant."""
    audience = claims.get("aud")
    if isinstance(audience, str):
        return (audience,)
    return tuple(each for each in audience if isinstance(each, str)) if isinstance(audience, list) else ()


def _part(text: str, number: int) -> dict[str, Any]:
    """Header (1) or claims (2), unchecked."""
    if len(text) > MAX_TOKEN_CHARS:
        raise InvalidTokenError(f"the token has {len(text)} characters; at most {MAX_TOKEN_CHARS} are read")
    match = _FORM.fullmatch(text)
    try:
        encoded = match[number] if match else ""
        part = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (ValueError, RecursionError):
        raise InvalidTokenError("the token isn't well-formed") from None
    if not isinstance(part, dict):
        raise InvalidTokenError("the token isn't well-formed")
    return part


def _moment(claims: Claims, name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    # Beyond the year 9999 a date can't be told.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 253402300799:
        raise InvalidTokenError(f"the token's '{name}' is no moment")
    return float(value) if math.isfinite(value) else None


def _as_text(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _shown(value: object) -> str:
    """What somebody else has written, on one line and cut."""
    text = ascii(value)
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}..."
