"""Refresh tokens: each is exchanged once, for an access token and its successor (RFC 9700, section 4.14).

One that comes a second time was stolen, from whoever had it before or after; then all that came from the same key
exchange end. Unless it comes soon, and nobody has used its successor: then an answer was lost, and it gets another
successor. The one that was lost counts as used, so that whoever has it after all is found out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from http import HTTPStatus

from pydantic import BaseModel, ConfigDict

from sienn_ray.access.audit import AuditOrigin, PrincipalKind
from sienn_ray.access.principals import Scope
from sienn_ray.access.secret_texts import random_text
from sienn_ray.errors import TokenRequestError

# After its first exchange, in which a token may come again.
REPEAT_S = 30.0
# `used_at` of a token that was lost: no use is as early, and so none of it is a repeat.
LOST = datetime(1970, 1, 1, tzinfo=UTC)
# So that scanners of secrets find one that was published.
_BEGIN = "siennr_"


def new_refresh_token() -> str:
    """Make a token, as its holder has it."""
    return _BEGIN + random_text()


class RefreshTokenRecord(BaseModel):
    """A refresh token as it is kept: without what proves it."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    # The same for all that came from one exchange of an API key.
    family: str
    # The prefix of that key, with which it ends.
    client_id: str
    scopes: frozenset[Scope]
    created_at: datetime
    # That of its first predecessor: a family doesn't live for ever.
    expires_at: datetime
    used_at: datetime | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True)
class RefreshRequest:
    """An exchange of a refresh token.

    Args:
        sha256: The token's hash.
        successor_sha256: Its successor's.
        client_id: The prefix of the key of who asks, where it has said so.
        scopes: Those that are wanted, if not all.
    """

    sha256: str
    successor_sha256: str
    client_id: str | None = None
    scopes: frozenset[Scope] | None = None


class RefreshFault(StrEnum):
    """Reasons why a refresh token isn't exchanged."""

    UNKNOWN = "the refresh token isn't known"
    OTHER_CLIENT = "the refresh token is another client's"
    EXPIRED = "the refresh token has expired; authenticate with the API key again"
    REVOKED = "the refresh token has been revoked; authenticate with the API key again"
    REUSED = "the refresh token was used before, so it and all that came from it have been revoked"
    KEY_ENDED = "the API key of the refresh token isn't valid any more"
    SCOPES = "the refresh token hasn't all of these scopes"

    @property
    def ends_family(self) -> bool:
        """Return whether it is the end of all that came from the same exchange, which is a change."""
        return self in {RefreshFault.REUSED, RefreshFault.KEY_ENDED}

    @property
    def error(self) -> TokenRequestError:
        """Return what its sender is told."""
        return TokenRequestError(self.value, "invalid_scope" if self is RefreshFault.SCOPES else "invalid_grant")


class RefreshOutcome(BaseModel):
    """The outcome of an exchange that has changed something: the successor, or why the family has ended.

    With the key that the token stands for, where that is there still; the audit log has it.
    """

    model_config = ConfigDict(frozen=True)

    successor: RefreshTokenRecord | None = None
    fault: RefreshFault | None = None
    key_id: str | None = None
    key_name: str | None = None
    owner: str | None = None

    def told_by(self, origin: AuditOrigin) -> AuditOrigin:
        """Return the origin of the exchange with what it has shown: whose token it was, and that it is refused."""
        if origin.principal_kind is PrincipalKind.NOBODY and self.key_id is not None:
            origin = replace(
                origin,
                principal_kind=PrincipalKind.REFRESH_TOKEN,
                principal_id=self.key_id,
                principal_name=self.key_name,
                owner=self.owner,
            )
        return origin if self.fault is None else origin.answered(HTTPStatus.BAD_REQUEST)
