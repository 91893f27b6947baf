"""The audit log, for admins to read."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AfterValidator, AwareDatetime, BeforeValidator

from sienn_ray.access.owners import MAX_OWNER_CHARS
from sienn_ray.access.principals import Scope
from sienn_ray.api.access.scopes import needs
from sienn_ray.api.deps import BackendsDep
from sienn_ray.api.http.errors import documented
from sienn_ray.api.lists.paging import MAX_LIMIT, cursor_query
from sienn_ray.api.schemas.api_keys import KEY_ID
from sienn_ray.api.schemas.audit_log import AuditLog, AuditLogEntry
from sienn_ray.api.schemas.common import JOB_ID
from sienn_ray.jobs.audit_schema import AuditQuery

router = APIRouter(prefix="/api", tags=["Access"])

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]", re.ASCII)
_PRINTABLE = r"^[^\x00-\x1f\x7f]+$"


def _of_the_calendar(moment: datetime) -> datetime:
    """A moment in UTC, which the last hours of the year 9999 in another zone have none of."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("isn't a moment between the years 1 and 9999 in UTC") from None


def _in_words(text: Any) -> Any:
    """A moment as text, not as seconds since the epoch."""
    if isinstance(text, str) and not _DATE.match(text):
        raise ValueError("isn't a moment as 2025-11-12T10:30:00Z")
    return text


Moment = Annotated[AwareDatetime, BeforeValidator(_in_words), AfterValidator(_of_the_calendar)]


def _text_query(description: str, example: str) -> Any:
    return Query(max_length=MAX_OWNER_CHARS, pattern=_PRINTABLE, description=description, examples=[example])


@router.get(
    "/audit",
    summary="Read the audit log",
    responses=documented(HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE),
    dependencies=[needs(Scope.ADMIN)],
)
async def read_audit_log(
    backends: BackendsDep,
    since: Annotated[
        Moment | None, Query(description="Entries from then on.", examples=["2025-11-12T10:30:00Z"])
    ] = None,
    until: Annotated[
        Moment | None, Query(description="Entries before then.", examples=["2025-11-13T10:30:00Z"])
    ] = None,
    principal: Annotated[str | None, _text_query("Entries of a key, by its id, or of an owner.", KEY_ID)] = None,
    action: Annotated[str | None, _text_query("Entries of an operation, by its id.", "cancel_job")] = None,
    target_kind: Annotated[str | None, _text_query("Entries about things of a kind.", "job")] = None,
    target_id: Annotated[str | None, _text_query("Entries about one thing, by its id.", JOB_ID)] = None,
    status: Annotated[
        int | None, Query(ge=100, le=599, description="Entries with this HTTP status.", examples=[403])
    ] = None,
    request_id: Annotated[
        str | None, _text_query("Entries of one request.", "1a2b3c4d5e6f40718293a4b5c6d7e8f9")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Entries on one page.", examples=[100])] = 100,
    cursor: Annotated[str | None, cursor_query("NDI=")] = None,
) -> AuditLog:
    """Entries of the audit log, the newest first: every change that was made or refused, and whom it was refused to.

    A change is in it with the change itself. What was refused comes within seconds.
    """
    query = AuditQuery(
        since=since,
        until=until,
        principal=principal,
        action=action,
        target_kind=target_kind,
        target_id=target_id,
        status=status,
        request_id=request_id,
        limit=limit,
        cursor=cursor,
    )
    page = await backends.tracker.audit_entries(query)
    return AuditLog(entries=[AuditLogEntry.of(entry) for entry in page.entries], next_cursor=page.next_cursor)
