"""Links to one file that work for a while and for anybody who has them, as presigned ones of an object store do."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from sienn_ray.errors import ForbiddenError

_WAY_OUT = "GET /api/exports/{job_id} gives a new one"
# As many digits as any time has; more are no time, and would take long to read.
_MAX_DIGITS = 12


@dataclass(frozen=True)
class LinkSigner:
    """Signs paths with HMAC-SHA-256 (RFC 2104), and checks the signatures in constant time.

    Args:
        key: The key, which all replicas share.
        now: The time.
    """

    key: bytes
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def signed(self, path: str, lifetime_s: int) -> str:
        """The path with its end and its signature.

        Args:
            path: Path of the link, as segments of plain text.
            lifetime_s: Seconds that it works.
        """
        expires = str(int(self.now().timestamp()) + lifetime_s)
        query = urlencode({"expires": expires, "signature": self._signature(path, expires)})
        return f"{quote(path)}?{query}"

    def check(self, path: str, expires: str, signature: str) -> None:
        """Let through a link that is as it was signed, and works still.

        Raises:
            ForbiddenError: It was altered, or its time is over.
        """
        is_genuine = hmac.compare_digest(self._signature(path, expires).encode(), signature.encode())
        if not is_genuine or not (expires.isascii() and expires.isdigit() and len(expires) <= _MAX_DIGITS):
            raise ForbiddenError(f"this link's signature isn't valid: the link was altered or cut; {_WAY_OUT}")
        if int(expires) <= self.now().timestamp():
            ended = datetime.fromtimestamp(int(expires), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            raise ForbiddenError(f"this link has expired at {ended}; {_WAY_OUT}")

    def _signature(self, path: str, expires: str) -> str:
        # No path has a line break, so no two links sign the same text.
        digest = hmac.digest(self.key, f"{path}\n{expires}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
