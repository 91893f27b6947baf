"""Bodies about the audit log."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field

from sienn_ray.access.audit import AuditEntry, PrincipalKind
from sienn_ray.api.schemas.api_keys import KEY_ID
from sienn_ray.api.schemas.common import JOB_ID, Inline, ResponseBody, Timestamp

_HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
PrincipalKindName = Annotated[PrincipalKind, Inline()]


class AuditLogEntry(ResponseBody):
    """One entry: who did what, when, to what, with which result."""

    seq: int = Field(description="Its number; those that are missing were never entries.", examples=[4711])
    id: str = Field(description="Its id.", examples=["1a2b3c4d5e6f40718293a4b5c6d7e8f9"])
    created_at: Timestamp
    principal_kind: PrincipalKindName = Field(
        description="What the caller is known by: an API key, SIENN_ADMIN_KEY, something `other`, `anybody` of a "
        "service without authentication, `nobody` without valid credentials, or the `service` itself.",
        examples=["api_key"],
    )
    principal_id: str | None = Field(description="Id of the key.", examples=[KEY_ID])
    principal_name: str | None = Field(description="Name of the key.", examples=["Ada's laptop"])
    owner: str | None = Field(description="In whose name it was asked for.", examples=["ada"])
    client: str | None = Field(description="Address that the request came from.", examples=["203.0.113.7"])
    request_id: str | None = Field(
        description="The request's `X-Request-ID`.", examples=["1a2b3c4d5e6f40718293a4b5c6d7e8f9"]
    )
    action: str | None = Field(
        description="Operation id of the request, or what the service did; null where a request was refused before it "
        "was known what it asks for.",
        examples=["cancel_job"],
    )
    request: str | None = Field(
        description="Method and path, without the query.", examples=["POST /api/jobs/{job_id}/cancel"]
    )
    target_kind: str | None = Field(description="Kind of what it was about.", examples=["job"])
    target_id: str | None = Field(description="Its id.", examples=[JOB_ID])
    status: int | None = Field(
        description="HTTP status of the answer; of a change that was made, that of its success.", examples=[200]
    )
    num_requests: int = Field(
        description="Requests that it stands for: of many refused ones the first few have an entry each.", examples=[1]
    )
    previous_hash: str = Field(description="`hash` of the entry before it.", examples=[_HASH])
    hash: str = Field(description="SHA-256 over all other fields but `seq`; see docs/operations.md.", examples=[_HASH])

    @classmethod
    def of(cls, entry: AuditEntry) -> Self:
        """Return an entry as it is shown."""
        return cls(**vars(entry))


class AuditLog(ResponseBody):
    """Entries of the audit log, the newest first."""

    entries: list[AuditLogEntry] = Field(description="One page of them.")
    next_cursor: str | None = Field(
        description="Where the next page begins; null after the last one.", examples=["NDI="]
    )
