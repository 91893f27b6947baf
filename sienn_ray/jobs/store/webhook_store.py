"""Webhooks in the job database, and their deliveries as owners see them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa

from sienn_ray.errors import ConflictError
from sienn_ray.jobs.ids import check_id, not_found
from sienn_ray.jobs.schema import utc_now
from sienn_ray.jobs.store import webhook_outbox
from sienn_ray.jobs.store.cursors import cursor_of, seq_of
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.tables import webhook_deliveries, webhooks
from sienn_ray.jobs.webhook_schema import (
    DeliveryPage,
    DeliveryQuery,
    DeliveryRecord,
    DeliveryStatus,
    WebhookChanges,
    WebhookEvent,
    WebhookRecord,
)

_SHOWN = [webhooks.c[name] for name in WebhookRecord.model_fields]
_SHOWN_OF_DELIVERY = [webhook_deliveries.c[name] for name in DeliveryRecord.model_fields]
WORDS_OF_INACTIVE = "its webhook was deactivated before it was delivered"


class WebhookStore:
    """Reads and writes webhooks; every method is one transaction. All that name one may raise `NotFoundError`.

    Args:
        database: Where they are kept, with the secrets that deliveries are signed with.
        clock: The time.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    def add(self, record: WebhookRecord, secret: str, max_of_owner: int) -> WebhookRecord:
        """Add a webhook; adding the same one again changes nothing.

        Raises:
            ConflictError: Its owner has so many already.
        """
        with self._database.writing() as connection:
            known = _found(connection, record.id)
            if known is not None:
                return known
            of_owner = sa.select(sa.func.count()).select_from(webhooks).where(webhooks.c.owner == record.owner)
            number = connection.scalar(of_owner) or 0
            if number >= max_of_owner:
                raise ConflictError(
                    f"there are {number} webhooks and SIENN_MAX_WEBHOOKS of an owner is {max_of_owner}; delete one"
                )
            values = {**dict(record), "events": [event.value for event in record.events], "secret": secret}
            connection.execute(sa.insert(webhooks).values(**values))
        return record

    def all(self, owner: str | None = None) -> list[WebhookRecord]:
        """Return all webhooks, or those of one owner, the newest first."""
        query = sa.select(*_SHOWN).order_by(webhooks.c.seq.desc())
        if owner is not None:
            query = query.where(webhooks.c.owner == owner)
        with self._database.reading() as connection:
            return [WebhookRecord.model_validate(dict(row)) for row in connection.execute(query).mappings()]

    def get(self, webhook_id: str) -> WebhookRecord:
        """Return one webhook."""
        with self._database.reading() as connection:
            return _read(connection, webhook_id)

    def change(self, webhook_id: str, changes: WebhookChanges) -> WebhookRecord:
        """Change the fields that are set. Of one that is deactivated, what waits is given up."""
        now = self._clock()
        fields = {name: getattr(changes, name) for name in changes.model_fields_set}
        with self._database.writing() as connection:
            known = _read(connection, webhook_id)
            if fields.get("is_active") is True:  # a new beginning
                fields |= {"inactive_reason": None, "failing_since": None}
            if fields.get("url", known.url) != known.url:  # how the receiver before it did says nothing of this one
                fields["failing_since"] = None
            changed = known.model_copy(update={**fields, "updated_at": now})
            values = {**fields, "updated_at": now}
            if "events" in fields:
                values["events"] = [event.value for event in changed.events]
            connection.execute(sa.update(webhooks).where(webhooks.c.id == webhook_id).values(**values))
            if known.is_active and not changed.is_active:
                webhook_outbox.give_up(connection, webhook_id, now, WORDS_OF_INACTIVE)
        return changed

    def rotate_secret(self, webhook_id: str, secret: str, grace_s: float) -> WebhookRecord:
        """Give a webhook another secret; what is sent is signed with both until a grace period is over."""
        now = self._clock()
        with self._database.writing() as connection:
            known = _read(connection, webhook_id)
            is_it = webhooks.c.id == webhook_id
            current = connection.scalar(sa.select(webhooks.c.secret).where(is_it))
            if current == secret:  # a repeat
                return known
            until = now + timedelta(seconds=grace_s) if grace_s > 0 else None
            values = {"secret": secret, "old_secret": current if until else None, "old_secret_until": until}
            connection.execute(sa.update(webhooks).where(is_it).values(**values, updated_at=now))
        return known.model_copy(update={"old_secret_until": until, "updated_at": now})

    def delete(self, webhook_id: str) -> WebhookRecord:
        """Forget a webhook and its deliveries."""
        with self._database.writing() as connection:
            known = _read(connection, webhook_id)
            connection.execute(sa.delete(webhook_deliveries).where(webhook_deliveries.c.webhook_id == webhook_id))
            connection.execute(sa.delete(webhooks).where(webhooks.c.id == webhook_id))
        return known

    def deliveries(self, webhook_id: str, query: DeliveryQuery) -> DeliveryPage:
        """Return a page of a webhook's deliveries, the newest first.

        Raises:
            InvalidInputError: The cursor isn't one.
        """
        deliveries = webhook_deliveries.c
        conditions = [deliveries.webhook_id == webhook_id]
        if query.status is not None:
            conditions.append(deliveries.status == query.status.value)
        before = [] if query.cursor is None else [deliveries.seq < seq_of(query.cursor)]
        page = (
            sa.select(deliveries.seq, *_SHOWN_OF_DELIVERY)
            .where(*conditions, *before)
            .order_by(deliveries.seq.desc())
            .limit(query.limit + 1)
        )
        counted = sa.select(sa.func.count()).select_from(webhook_deliveries).where(*conditions)
        with self._database.reading() as connection:
            _read(connection, webhook_id)
            found = connection.execute(page).mappings().all()
            count = connection.scalar(counted) or 0
        rows = found[: query.limit]
        return DeliveryPage(
            deliveries=[_to_delivery(row) for row in rows],
            count=count,
            next_cursor=cursor_of(rows[-1]["seq"]) if rows and len(found) > len(rows) else None,
        )

    def redeliver(self, webhook_id: str, delivery_id: str) -> DeliveryRecord:
        """Have something be delivered once more, under the id that it had, or sooner where it waits.

        Raises:
            ConflictError: Its webhook isn't active.
        """
        deliveries = webhook_deliveries.c
        now = self._clock()
        with self._database.writing() as connection:
            _check_active(_read(connection, webhook_id))
            check_id("Delivery", delivery_id)
            is_it = (deliveries.id == delivery_id, deliveries.webhook_id == webhook_id)
            query = sa.select(*_SHOWN_OF_DELIVERY).where(*is_it)
            row = connection.execute(query).mappings().first()
            if row is None:
                raise not_found("Delivery", delivery_id)
            changes = {"due_at": now, "ended_at": None}
            values = {**changes, "num_tries": 0, "status": DeliveryStatus.PENDING.value}
            connection.execute(sa.update(webhook_deliveries).where(*is_it).values(**values))
        return _to_delivery(row).model_copy(update={**changes, "status": DeliveryStatus.PENDING})

    def ping(self, webhook_id: str) -> DeliveryRecord:
        """Have a receiver be told that it is one, and nothing else.

        Raises:
            ConflictError: The webhook isn't active.
        """
        with self._database.writing() as connection:
            _check_active(_read(connection, webhook_id))
            data = {"webhook_id": webhook_id}
            return webhook_outbox.add(connection, webhook_id, WebhookEvent.PING, data, self._clock())


def _check_active(record: WebhookRecord) -> None:
    if not record.is_active:
        raise ConflictError(f"Webhook {record.id} isn't active; activate it first (PATCH with is_active: true)")


def _found(connection: sa.Connection, webhook_id: str) -> WebhookRecord | None:
    row = connection.execute(sa.select(*_SHOWN).where(webhooks.c.id == webhook_id)).mappings().first()
    return None if row is None else WebhookRecord.model_validate(dict(row))


def _read(connection: sa.Connection, webhook_id: str) -> WebhookRecord:
    check_id("Webhook", webhook_id)
    found = _found(connection, webhook_id)
    if found is None:
        raise not_found("Webhook", webhook_id)
    return found


def _to_delivery(row: sa.RowMapping) -> DeliveryRecord:
    return DeliveryRecord.model_validate({name: value for name, value in row.items() if name != "seq"})
