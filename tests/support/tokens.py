"""Forged tokens, as attackers and broken issuers make them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from joserfc.jwk import ECKey


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    """Return a token with whatever is given; no library would sign some of it."""
    return ".".join(map(_encoded, (json.dumps(header).encode(), json.dumps(claims).encode(), signature)))


def signed_with_public_key(key: ECKey, header: dict[str, Any], claims: dict[str, Any]) -> str:
    """Return a token whose HMAC has a public key for its secret (algorithm confusion, RFC 8725, section 2.1)."""
    head = unsigned({**header, "alg": "HS256"}, claims).rpartition(".")[0]
    secret = key.as_bytes(private=False)  # as PEM, which everybody has
    return f"{head}.{_encoded(hmac.new(secret, head.encode(), hashlib.sha256).digest())}"


def payload_of(token: str) -> dict[str, Any]:
    """Return the claims of a token, unchecked."""
    claims: dict[str, Any] = json.loads(_decoded(token.split(".")[1]))
    return claims


def header_of(token: str) -> dict[str, Any]:
    """Return the header of a token, unchecked."""
    header: dict[str, Any] = json.loads(_decoded(token.split(".")[0]))
    return header


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
