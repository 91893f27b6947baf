"""Webhooks and their deliveries, as the tracker keeps them; never with a secret."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from sienn_ray.access.principals import ADMIN_OWNER


class WebhookEvent(StrEnum):
    """Types of what a receiver is told."""

    JOB_COMPLETED = "job.completed"
    JOB_FAILED = "job.failed"
    JOB_PAUSED = "job.paused"
    JOB_CANCELLED = "job.cancelled"
    EXPORT_COMPLETED = "export.completed"
    EXPORT_FAILED = "export.failed"
    # Sent when a user asks for it, whatever else a webhook hears of.
    PING = "webhook.ping"


SUBSCRIBED = tuple(event for event in WebhookEvent if event is not WebhookEvent.PING)


class WebhookRecord(BaseModel):
    """A webhook: where an owner wants to be told of what happens to their jobs and exports."""

    model_config = ConfigDict(frozen=True)

    id: str
    owner: str = ADMIN_OWNER
    url: str
    events: tuple[WebhookEvent, ...] = SUBSCRIBED
    description: str | None = None
    is_active: bool = True
    # Why the service itself has ended it.
    inactive_reason: str | None = None
    # The first attempt in a row that failed.
    failing_since: datetime | None = None
    # Until when what is sent is signed with the secret before this one as well.
    old_secret_until: datetime | None = None
    created_at: datetime
    updated_at: datetime


class WebhookChanges(BaseModel):
    """Fields of a webhook that change: those that are set."""

    model_config = ConfigDict(frozen=True)

    url: str = ""
    events: tuple[WebhookEvent, ...] = ()
    description: str | None = None
    is_active: bool = True


class DeliveryStatus(StrEnum):
    """Statuses of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class DeliveryRecord(BaseModel):
    """One thing that a receiver is told, and how that went."""

    model_config = ConfigDict(frozen=True)

    id: str
    webhook_id: str
    event: WebhookEvent
    status: DeliveryStatus = DeliveryStatus.PENDING
    num_attempts: int = 0
    created_at: datetime
    # Of the next attempt.
    due_at: datetime | None = None
    # Of the last attempt.
    attempted_at: datetime | None = None
    response_status: int | None = None
    response_text: str | None = None
    duration_s: float | None = None
    error: str | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True)
class DeliveryQuery:
    """A filter over the deliveries of a webhook; None means any.

    Args:
        status: Status.
        limit: Deliveries at the most.
        cursor: `DeliveryPage.next_cursor` of the page before.
    """

    status: DeliveryStatus | None = None
    limit: int = 100
    cursor: str | None = None


@dataclass(frozen=True)
class DeliveryPage:
    """Some deliveries of a webhook, the newest first.

    Args:
        deliveries: This page.
        count: Deliveries that the query fits, on all pages.
        next_cursor: Where the next page begins; None after the last one.
    """

    deliveries: list[DeliveryRecord]
    count: int
    next_cursor: str | None


@dataclass(frozen=True)
class DueDelivery:
    """A delivery that is to be attempted now.

    Args:
        id: Its id, the same at each attempt.
        webhook_id: The webhook.
        owner: Whose webhook it is.
        url: Where it goes.
        body: What is sent.
        secrets: What it is signed with: one, or two for a while after a rotation.
        num_tries: Attempts before this one, since it was asked for last.
        due_at: When it was due; another moment in the database tells that it was asked for again meanwhile.
    """

    id: str
    webhook_id: str
    owner: str
    url: str
    body: str
    secrets: tuple[str, ...]
    num_tries: int
    due_at: datetime


@dataclass(frozen=True)
class DeliveryBounds:
    """Bounds on the deliveries that are under way at once.

    Args:
        total: Of all owners together.
        per_owner: Of one owner, whatever number of webhooks it has.
        per_webhook: Of one webhook.
    """

    total: int
    per_owner: int
    per_webhook: int


@dataclass(frozen=True)
class AttemptResult:
    """The outcome of an attempt.

    Args:
        status: The HTTP status; None where there was no answer.
        text: The answer's beginning.
        duration_s: Seconds that it took.
        error: Why it failed; None where it didn't.
        retry_in_s: Seconds after which the next attempt makes sense; None gives the delivery up.
        is_gone: Whether the receiver wants nothing any more.
    """

    status: int | None
    text: str
    duration_s: float
    error: str | None = None
    retry_in_s: float | None = None
    is_gone: bool = False
