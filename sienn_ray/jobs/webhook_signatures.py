"""Signatures of webhooks, as the specification Standard Webhooks has them (version 1, symmetric)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence

_PREFIX = "whsec_"
# The specification asks for 24 to 64.
_SECRET_BYTES = 32


def new_secret() -> str:
    """Make a secret: `whsec_` and random bytes in base64."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signed_headers(delivery_id: str, unix_s: int, body: bytes, keys: Sequence[str]) -> dict[str, str]:
    """Return the headers by which a receiver knows who has sent a body, and when.

    Args:
        delivery_id: The same at each attempt, so that a receiver can tell a repeat.
        unix_s: The time of this attempt, in seconds since the epoch.
        body: What is sent.
        keys: Secrets; each gives a signature, and a receiver needs one that it knows.
    """
    content = f"{delivery_id}.{unix_s}.".encode() + body
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(unix_s),
        "webhook-signature": " ".join(f"v1,{_signature(content, key)}" for key in keys),
    }


def _signature(content: bytes, key: str) -> str:
    secret = base64.b64decode(key.removeprefix(_PREFIX))
    return base64.b64encode(hmac.new(secret, content, hashlib.sha256).digest()).decode()
