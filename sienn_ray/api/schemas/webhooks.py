"""Bodies about webhooks."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, field_validator

from sienn_ray.api.schemas.common import Inline, RequestBody, ResponseBody, Timestamp
from sienn_ray.jobs.webhook_schema import (
    DeliveryRecord,
    DeliveryStatus,
    WebhookChanges,
    WebhookEvent,
    WebhookRecord,
)
from sienn_ray.outbound.urls import MAX_URL_CHARS

WEBHOOK_ID = "7b0e4c1d-2f5a-4e8b-9c3d-1a2b3c4d5e6f"
DELIVERY_ID = "msg_0f8fad5bd9cb469fa16570867728950e"
DAY_S = 86400
_URL = "https://hooks.example.org/sienn"
_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="  # nosec B105 # an example of the documentation
_MAX_DESCRIPTION_CHARS = 256
_PRINTABLE = r"^[^\x00-\x1f\x7f]*$"

Subscribed = Literal["job.completed", "job.failed", "job.paused", "job.cancelled", "export.completed", "export.failed"]
EventName = Annotated[WebhookEvent, Inline()]
DeliveryStatusName = Annotated[DeliveryStatus, Inline()]
_ALL: tuple[Subscribed, ...] = get_args(Subscribed)
_WORDS_OF_URL = (
    "Where events are posted to: `https://`, unless the operator allows `http://`, and at a public address, unless the "
    "operator allows its network."
)
_WORDS_OF_EVENTS = "Events that it hears of."


def _once(events: list[Any]) -> list[Any]:
    if repeated := sorted({event for event in events if events.count(event) > 1}):
        raise ValueError(f"names an event more than once: {', '.join(repeated)}")
    return events


class CreateWebhookRequest(RequestBody):
    """A webhook to make."""

    url: str = Field(min_length=1, max_length=MAX_URL_CHARS, description=_WORDS_OF_URL, examples=[_URL])
    events: list[Subscribed] = Field(
        list(_ALL),
        min_length=1,
        max_length=len(_ALL),
        description=_WORDS_OF_EVENTS,
        examples=[["job.completed", "job.failed"]],
        json_schema_extra={"uniqueItems": True},
    )
    description: str | None = Field(
        None,
        max_length=_MAX_DESCRIPTION_CHARS,
        pattern=_PRINTABLE,
        description="What it is for.",
        examples=["Tell the team's chat"],
    )
    is_active: bool = Field(True, description="Whether anything is delivered.", examples=[True])

    @field_validator("events")
    @classmethod
    def _check_events(cls, events: list[Any]) -> list[Any]:
        return _once(events)


class ChangeWebhookRequest(RequestBody):
    """Changes of a webhook; what is left out stays as it is."""

    # Without defaults in the document: what is left out isn't changed.
    url: str = Field(
        default_factory=str, min_length=1, max_length=MAX_URL_CHARS, description=_WORDS_OF_URL, examples=[_URL]
    )
    events: list[Subscribed] = Field(
        default_factory=list,
        min_length=1,
        max_length=len(_ALL),
        description=_WORDS_OF_EVENTS,
        examples=[["job.completed"]],
        json_schema_extra={"uniqueItems": True},
    )
    description: str | None = Field(
        default_factory=lambda: None,
        max_length=_MAX_DESCRIPTION_CHARS,
        pattern=_PRINTABLE,
        description="What it is for.",
        examples=[None],
    )
    is_active: bool = Field(
        default_factory=lambda: True,
        description="Whether anything is delivered; what waits is given up when it is set to false.",
        examples=[False],
    )

    @field_validator("events")
    @classmethod
    def _check_events(cls, events: list[Any]) -> list[Any]:
        return _once(events)

    def changes(self) -> WebhookChanges:
        """Return what the request sets."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        if "events" in given:
            given["events"] = tuple(map(WebhookEvent, given["events"]))
        return WebhookChanges(**given)


class RotateWebhookSecretRequest(RequestBody):
    """The end of a secret, and its successor."""

    grace_s: int = Field(
        DAY_S,
        ge=0,
        le=30 * DAY_S,
        description="Seconds for which deliveries are signed with the old secret as well.",
        examples=[DAY_S],
    )


class Webhook(ResponseBody):
    """A webhook, without its secret."""

    webhook_id: str = Field(description="Its id.", examples=[WEBHOOK_ID])
    owner: str = Field(description="Whose jobs and exports it tells of.", examples=["ada"])
    url: str = Field(description="Where events are posted to.", examples=[_URL])
    events: list[EventName] = Field(description="Events that it hears of.", examples=[["job.completed", "job.failed"]])
    description: str | None = Field(description="What it is for.", examples=["Tell the team's chat"])
    is_active: bool = Field(description="Whether anything is delivered.", examples=[True])
    inactive_reason: str | None = Field(
        description="Why the service has deactivated it; null if it hasn't.", examples=[None]
    )
    failing_since: Timestamp | None = Field(
        description="When the first attempt in a row has failed; null while deliveries succeed.", examples=[None]
    )
    old_secret_until: Timestamp | None = Field(
        description="Until when deliveries are signed with the secret before this one as well.", examples=[None]
    )
    created_at: Timestamp
    updated_at: Timestamp

    @classmethod
    def of(cls, record: WebhookRecord) -> Self:
        """Return what may be shown of a webhook."""
        return cls(**_shown(record))


class CreatedWebhook(Webhook):
    """A webhook with its secret. This is the only time that it is shown."""

    secret: str = Field(
        description="What deliveries are signed with, as Standard Webhooks has it. It can't be shown again.",
        examples=[_SECRET],
    )

    @classmethod
    def with_secret(cls, record: WebhookRecord, secret: str) -> Self:
        """Return a webhook as it is shown to who has made it, or has rotated its secret."""
        return cls(**_shown(record), secret=secret)


class WebhookList(ResponseBody):
    """Webhooks, the newest first."""

    webhooks: list[Webhook] = Field(description="The webhooks, without their secrets.")
    count: int = Field(description="Their number.", examples=[1])


class DeletedWebhook(ResponseBody):
    """A webhook that is gone."""

    webhook_id: str = Field(description="Its id.", examples=[WEBHOOK_ID])
    message: str = Field(
        "Webhook deleted successfully", description="What was done.", examples=["Webhook deleted successfully"]
    )


class Delivery(ResponseBody):
    """One thing that a receiver is told, and how that went."""

    delivery_id: str = Field(
        description="Its id, which the receiver gets as `webhook-id` at each attempt.", examples=[DELIVERY_ID]
    )
    webhook_id: str = Field(description="The webhook.", examples=[WEBHOOK_ID])
    event: EventName = Field(description="What has happened.", examples=["job.completed"])
    status: DeliveryStatusName = Field(
        description="`pending` until it is `delivered`, or `failed` and given up.", examples=["delivered"]
    )
    num_attempts: int = Field(description="Attempts so far.", examples=[1])
    created_at: Timestamp
    due_at: Timestamp | None = Field(
        description="When the next attempt is due; null if there is none.", examples=["2025-11-12T10:30:05.000Z"]
    )
    attempted_at: Timestamp | None = Field(
        description="When the last attempt ended.", examples=["2025-11-12T10:30:00.250Z"]
    )
    response_status: int | None = Field(
        description="HTTP status of the last answer; null where there was none.", examples=[200]
    )
    response_text: str | None = Field(description="The first bytes of that answer.", examples=["ok"])
    duration_s: float | None = Field(description="Seconds that the last attempt took.", examples=[0.25])
    error: str | None = Field(description="Why the last attempt failed; null if it didn't.", examples=[None])
    ended_at: Timestamp | None = Field(
        description="When it was delivered or given up.", examples=["2025-11-12T10:30:00.250Z"]
    )

    @classmethod
    def of(cls, record: DeliveryRecord) -> Self:
        """Return a delivery as it is shown."""
        return cls(delivery_id=record.id, **record.model_dump(exclude={"id"}))


class DeliveryList(ResponseBody):
    """Deliveries of a webhook, the newest first."""

    deliveries: list[Delivery] = Field(description="One page of them.")
    count: int = Field(description="Deliveries on all pages.", examples=[1])
    next_cursor: str | None = Field(description="Where the next page begins; null after the last one.", examples=[None])


def _shown(record: WebhookRecord) -> dict[str, Any]:
    return {"webhook_id": record.id, **record.model_dump(exclude={"id"})}
