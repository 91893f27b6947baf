"""Keys that access tokens are signed with: made here, their private halves used by the tracker alone."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from joserfc import jwe, jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey
from pydantic import BaseModel, ConfigDict, Field

from sienn_ray.access.secret_texts import derived_key
from sienn_ray.access.token_claims import ALGORITHM, KIND, TokenClaims

_CURVE = "P-256"
_SEALING = ["dir", "A256GCM"]
_SEAL_HEADER = {"alg": "dir", "enc": "A256GCM"}
_PURPOSE = "token keys"


class PublicTokenKey(BaseModel):
    """The public half of a key, as everybody may have it."""

    model_config = ConfigDict(frozen=True)

    kid: str
    x: str
    y: str
    created_at: datetime
    # When another key took its place; tokens that it has signed are still taken.
    retired_at: datetime | None = None

    def as_jwk(self) -> dict[str, str]:
        """The key as JWKS documents have it (RFC 7517)."""
        return {"kty": "EC", "crv": _CURVE, "x": self.x, "y": self.y, "kid": self.kid, "alg": ALGORITHM, "use": "sig"}


class TokenKeyRecord(PublicTokenKey):
    """A key as it is kept."""

    # As JSON, or encrypted where a secret was set; empty once it is retired.
    private_jwk: str = Field(repr=False)

    @property
    def public(self) -> PublicTokenKey:
        """The public half."""
        return PublicTokenKey.model_validate(self.model_dump(exclude={"private_jwk"}))


def new_key(now: datetime, secret: str | None) -> TokenKeyRecord:
    """Make a key.

    Args:
        now: The moment.
        secret: Encrypts its private half, if there is one.
    """
    key = ECKey.generate_key(_CURVE, auto_kid=True)  # the id is the key's own hash (RFC 7638)
    jwk: dict[str, Any] = dict(key.as_dict(private=True))
    private = json.dumps({name: jwk[name] for name in ("kty", "crv", "x", "y", "d")})
    stored = private if secret is None else jwe.encrypt_compact(_SEAL_HEADER, private, _seal(secret), _SEALING)
    return TokenKeyRecord(kid=str(key.kid), x=jwk["x"], y=jwk["y"], created_at=now, private_jwk=stored)


def opened(record: TokenKeyRecord, secret: str | None) -> ECKey | None:
    """Return a key to sign with, or None if its private half can't be read with this secret, or without one.

    With a secret, one that was kept without is none: whoever has read the database before can sign with it.
    """
    private: bytes | str = record.private_jwk
    is_sealed = not record.private_jwk.startswith("{")
    if is_sealed == (secret is None):
        return None
    try:
        if secret is not None:
            private = jwe.decrypt_compact(record.private_jwk, _seal(secret), _SEALING).plaintext or b""
        return ECKey.import_key(json.loads(private))
    except (JoseError, ValueError):
        return None


def signed(claims: TokenClaims, kid: str, key: ECKey) -> str:
    """Return a token."""
    header = {"alg": ALGORITHM, "kid": kid, "typ": KIND}
    return jwt.encode(header, claims.as_json(), key, algorithms=[ALGORITHM])


def _seal(secret: str) -> OctKey:
    return OctKey.import_key(derived_key(secret.encode(), _PURPOSE))
