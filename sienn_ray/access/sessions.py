"""Sessions of browsers, which have a cookie in place of an API key."""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from sienn_ray.access.principals import Credential, Principal, Scope


class SessionRecord(BaseModel):
    """A session as it is kept: without what its cookie proves it with."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    owner: str
    scopes: frozenset[Scope]
    # The prefix of the API key that it was made with, and ends with; None after a login at an outside issuer.
    client_id: str | None = None
    # See `binding_of`.
    binding: str | None = None
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None

    @property
    def principal(self) -> Principal:
        """The caller after a login at an outside issuer."""
        return Principal(self.owner, self.scopes, credential=Credential.SESSION)

    def fault_at(self, moment: datetime, idle_timeout_s: float) -> str | None:
        """Say why the session isn't valid at a moment, or None if it is."""
        if self.ended_at is not None:
            return "has been ended"
        if self.expires_at <= moment:
            return "has expired"
        if self.seen_at + timedelta(seconds=idle_timeout_s) <= moment:
            return "has been idle for too long"
        return None


def binding_of(cookie_secret: str, key: str) -> str:
    """Return what a session keeps of a key that isn't in the database, to end once that key is another one.

    Nothing can be told from it without the cookie.
    """
    return hmac.new(cookie_secret.encode(), key.encode(), "sha256").hexdigest()
