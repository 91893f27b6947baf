"""Random texts that prove something to who has them, and the hashes under which they are kept.

A text has 256 random bits or more, so that its SHA-256 tells nothing about it; slow hashes are for passwords.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string

_LETTERS = string.ascii_letters + string.digits
# 256 bits.
SECRET_CHARS = 43


def random_text(num_chars: int = SECRET_CHARS) -> str:
    """Return random letters and digits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(num_chars))


def sha256_of(secret: str) -> str:
    """Return the hash under which a secret is kept, as hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


def derived_key(secret: bytes, purpose: str) -> bytes:
    """Return a key of 256 bits for one purpose, which tells nothing of the secret or of the keys for others.

    A block of HKDF's second step (RFC 5869), which is enough for a secret that is as good as random.
    """
    return hmac.digest(secret, f"sienn_ray {purpose}".encode() + b"\x01", "sha256")
