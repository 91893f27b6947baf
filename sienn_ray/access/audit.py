"""Entries of the audit log: who did what, when, to what, with which result; no bodies and no secrets.

Each entry has a hash over its fields and the hash of the one before it, so that a change or a gap shows.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

# Of texts that a client may have chosen.
MAX_TEXT_CHARS = 200
# The hash before the first entry.
NO_HASH = ""
_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


class PrincipalKind(StrEnum):
    """Kinds of callers."""

    API_KEY = "api_key"
    ADMIN_KEY = "admin_key"
    # A token of this service, or of an outside issuer, and the session of a browser.
    ACCESS_TOKEN = "access_token"  # nosec B105 # a kind, no secret
    REFRESH_TOKEN = "refresh_token"  # nosec B105 # a kind, no secret
    OIDC_TOKEN = "oidc_token"  # nosec B105 # a kind, no secret
    SESSION = "session"
    OTHER = "other"
    # Of a service that asks nobody.
    ANYBODY = "anybody"
    # Without valid credentials, where some are needed.
    NOBODY = "nobody"
    # The service itself, and programs on its cluster.
    SERVICE = "service"


@dataclass(frozen=True)
class AuditOrigin:
    """The caller who asks for something, and the request.

    Args:
        principal_kind: What the caller is known by.
        principal_id: Its key.
        principal_name: The key's name.
        owner: In whose name it asks.
        client: The address that the request comes from.
        request_id: The request.
        action: Operation id of the route; None where the request came to none.
        request: Method and path; the path's template where there is a route.
        status: The answer's HTTP status.
    """

    principal_kind: PrincipalKind = PrincipalKind.SERVICE
    principal_id: str | None = None
    principal_name: str | None = None
    owner: str | None = None
    client: str | None = None
    request_id: str | None = None
    action: str | None = None
    request: str | None = None
    status: int | None = None

    def answered(self, status: int) -> AuditOrigin:
        """Return the same request with the status that it was answered with."""
        return replace(self, status=status)


@dataclass(frozen=True)
class AuditReport:
    """A report that is to be written into the log.

    Args:
        id: Tells a repeat of the same report.
        moment: When it happened.
        origin: Who asked for it.
        target_kind: Kind of what it was about, as `job`.
        target_id: Its id.
        num_requests: Requests of the same kind that this one stands for.
    """

    id: str
    moment: datetime
    origin: AuditOrigin
    target_kind: str | None = None
    target_id: str | None = None
    num_requests: int = 1


@dataclass(frozen=True)
class AuditEntry:
    """An entry as it is kept; nothing of it ever changes.

    Args:
        id: See `AuditReport`.
        created_at: When it happened, to the millisecond, as the API shows it: who reads it there can compute the hash.
        principal_kind: See `AuditOrigin`, and so on.
        principal_id: Its key.
        principal_name: The key's name.
        owner: In whose name it asked.
        client: Its address.
        request_id: The request.
        action: Operation id.
        request: Method and path.
        target_kind: Kind of what it was about.
        target_id: Its id.
        status: The answer's HTTP status.
        num_requests: Requests that it stands for.
        previous_hash: The hash of the entry before it.
        hash: Its own.
        seq: Its number, once it is written.
    """

    id: str
    created_at: datetime
    principal_kind: PrincipalKind
    principal_id: str | None
    principal_name: str | None
    owner: str | None
    client: str | None
    request_id: str | None
    action: str | None
    request: str | None
    target_kind: str | None
    target_id: str | None
    status: int | None
    num_requests: int
    previous_hash: str
    hash: str = ""
    seq: int = 0

    @classmethod
    def of(cls, report: AuditReport, previous_hash: str) -> AuditEntry:
        """Return the entry that stands behind another one."""
        origin, moment = report.origin, report.moment
        entry = cls(
            id=report.id,
            created_at=moment.replace(microsecond=moment.microsecond // 1000 * 1000),
            principal_kind=origin.principal_kind,
            principal_id=recorded(origin.principal_id),
            principal_name=recorded(origin.principal_name),
            owner=recorded(origin.owner),
            client=recorded(origin.client),
            request_id=recorded(origin.request_id),
            action=recorded(origin.action),
            request=recorded(origin.request),
            target_kind=report.target_kind,
            target_id=recorded(report.target_id),
            status=origin.status,
            num_requests=report.num_requests,
            previous_hash=previous_hash,
        )
        return replace(entry, hash=entry.computed_hash())

    def computed_hash(self) -> str:
        """Return the hash that an entry with these fields has: SHA-256, as hex, over all others but `seq`."""
        moment = self.created_at.astimezone(UTC).isoformat(timespec="milliseconds")
        fields = {**vars(self), "created_at": moment, "principal_kind": self.principal_kind.value}
        del fields["seq"], fields["hash"]
        return hashlib.sha256(_JSON.encode(fields).encode()).hexdigest()


def recorded(text: str | None) -> str | None:
    r"""Return a text that shows as one line of what it says, wherever it is printed: escaped, and cut if it is long.

    Example:
        >>> recorded("a\nFAKE LINE \x1b[31m")
        'a\\nFAKE LINE \\x1b[31m'
    """
    if text is None:
        return None
    cut = text if len(text) <= MAX_TEXT_CHARS else f"{text[:MAX_TEXT_CHARS]}…"
    if cut.isascii() and cut.isprintable():
        return cut
    # Of category C are control characters, such as those that turn the direction of writing, and half a surrogate pair.
    return "".join(repr(char)[1:-1] if unicodedata.category(char)[0] in "CZ" and char != " " else char for char in cut)
