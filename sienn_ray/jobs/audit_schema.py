"""Questions to the audit log, and their answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sienn_ray.access.audit import AuditEntry


@dataclass(frozen=True)
class AuditQuery:
    """A filter over entries; None means any.

    Args:
        since: Entries from then on.
        until: Entries before then.
        principal: Id of a key, or an owner.
        action: Operation id, or what the service did.
        target_kind: Kind of what it was about.
        target_id: Id of what it was about.
        status: HTTP status.
        request_id: The request.
        limit: Entries at the most.
        cursor: `AuditPage.next_cursor` of the page before.
    """

    since: datetime | None = None
    until: datetime | None = None
    principal: str | None = None
    action: str | None = None
    target_kind: str | None = None
    target_id: str | None = None
    status: int | None = None
    request_id: str | None = None
    limit: int = 100
    cursor: str | None = None


@dataclass(frozen=True)
class AuditPage:
    """Some entries that a query fits, the newest first.

    Args:
        entries: This page.
        next_cursor: Where the next page begins; None after the last one.
    """

    entries: list[AuditEntry]
    next_cursor: str | None
