"""Deliveries to webhooks as they are made: which are due, and how attempts went."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from sienn_ray.jobs.plain_text import without_terminal_codes
from sienn_ray.jobs.schema import utc_now
from sienn_ray.jobs.store import webhook_outbox
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.tables import webhook_deliveries, webhooks
from sienn_ray.jobs.webhook_schema import AttemptResult, DeliveryBounds, DeliveryStatus, DueDelivery

_IS_WAITING = webhook_deliveries.c.status == DeliveryStatus.PENDING.value
_WORDS_OF_GONE = "the receiver answered 410 Gone, and wants nothing any more"


class DeliveryStore:
    """Reads what is due, and writes what became of it; every method is one transaction.

    Args:
        database: Where it is kept.
        clock: The time.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    def due(self, bounds: DeliveryBounds, under_way: Collection[DueDelivery]) -> list[DueDelivery]:
        """Return deliveries that are due, as many as may begin.

        Places go to the owners with the fewest first, so that one whose receivers are slow holds up its own deliveries
        only; within an owner, a few of many webhooks come before many of one.

        Args:
            bounds: Bounds on deliveries, those under way included.
            under_way: Deliveries that are being made.
        """
        room = bounds.total - len(under_way)
        if room <= 0:
            return []
        num_of_owner = Counter(each.owner for each in under_way)
        num_of_webhook = Counter(each.webhook_id for each in under_way)
        known = [each.id for each in under_way]
        candidates: defaultdict[str, deque[DueDelivery]] = defaultdict(deque)
        with self._database.reading() as connection:
            for webhook_id, owner in connection.execute(self._webhooks_in_turn(bounds, under_way).limit(room)).all():
                number = bounds.per_webhook - num_of_webhook[webhook_id]
                candidates[owner] += self._of_webhook(connection, webhook_id, known, number)
        found: list[DueDelivery] = []
        while len(found) < room:
            waiting = [o for o, each in candidates.items() if each and num_of_owner[o] < bounds.per_owner]
            if not waiting:
                break
            owner = min(waiting, key=lambda each: num_of_owner[each])  # of several the first
            num_of_owner[owner] += 1
            found.append(candidates[owner].popleft())
        return found

    def _webhooks_in_turn(self, bounds: DeliveryBounds, under_way: Collection[DueDelivery]) -> sa.Select[str, str]:
        """Webhooks with something to begin, each after as many others as its owner has under way or before it."""
        deliveries = webhook_deliveries.c
        num_of_webhook = Counter(each.webhook_id for each in under_way)
        busy = [webhook_id for webhook_id, number in num_of_webhook.items() if number >= bounds.per_webhook]
        first = sa.func.min(deliveries.due_at).label("first")
        due = (
            sa.select(deliveries.webhook_id, webhooks.c.owner, first)
            .join(webhooks, webhooks.c.id == deliveries.webhook_id)
            .where(
                _IS_WAITING,
                deliveries.due_at <= self._clock(),
                deliveries.id.not_in([each.id for each in under_way]),
                deliveries.webhook_id.not_in(busy),
            )
            .group_by(deliveries.webhook_id, webhooks.c.owner)
            .subquery()
        )
        within_owner = sa.func.row_number().over(partition_by=due.c.owner, order_by=(due.c.first, due.c.webhook_id))
        num_of_owner = Counter(each.owner for each in under_way)
        before = sa.case(num_of_owner, value=due.c.owner, else_=0) if num_of_owner else sa.literal(0)
        ranked = sa.select(due, (before + within_owner).label("turn")).subquery()
        return (
            sa.select(ranked.c.webhook_id, ranked.c.owner)
            .where(ranked.c.turn <= bounds.per_owner)
            .order_by(ranked.c.turn, ranked.c.first, ranked.c.webhook_id)
        )

    def _of_webhook(
        self, connection: sa.Connection, webhook_id: str, without: Collection[str], limit: int
    ) -> list[DueDelivery]:
        deliveries, now = webhook_deliveries.c, self._clock()
        query = (
            sa.select(
                deliveries.id,
                deliveries.body,
                deliveries.num_tries,
                deliveries.due_at,
                webhooks.c.owner,
                webhooks.c.url,
                webhooks.c.secret,
                webhooks.c.old_secret,
                webhooks.c.old_secret_until,
            )
            .join(webhooks, webhooks.c.id == deliveries.webhook_id)
            .where(
                deliveries.webhook_id == webhook_id,
                _IS_WAITING,
                deliveries.due_at <= now,
                deliveries.id.not_in(without),
            )
            .order_by(deliveries.due_at, deliveries.seq)
            .limit(limit)
        )
        return [
            DueDelivery(
                id=row.id,
                webhook_id=webhook_id,
                owner=row.owner,
                url=row.url,
                body=row.body,
                secrets=(row.secret, *_old_secret(row, now)),
                num_tries=row.num_tries,
                due_at=row.due_at,
            )
            for row in connection.execute(query)
        ]

    def note(self, delivery: DueDelivery, result: AttemptResult, give_up_after_s: float) -> None:
        """Note how an attempt went; a webhook whose receiver is gone, or fails for long, is deactivated.

        Args:
            delivery: The delivery; nothing happens if it isn't there any more.
            result: How the attempt went.
            give_up_after_s: Seconds of failures after which the webhook is deactivated, once a delivery is given up.
        """
        now = self._clock()
        deliveries = webhook_deliveries.c
        is_it = deliveries.id == delivery.id
        with self._database.writing() as connection:
            current = (
                sa.select(deliveries.status, deliveries.due_at, webhooks.c.url)
                .join(webhooks, webhooks.c.id == deliveries.webhook_id)
                .where(is_it)
            )
            row = connection.execute(current).first()
            if row is None:
                return
            is_waiting = row.status == DeliveryStatus.PENDING.value
            is_asked_again = is_waiting and (row.due_at, row.url) != (delivery.due_at, delivery.url)
            values = _values(result, now, is_waiting=is_waiting, is_asked_again=is_asked_again)
            values["num_attempts"] = deliveries.num_attempts + 1
            if not is_asked_again:
                values["num_tries"] = deliveries.num_tries + 1
            connection.execute(sa.update(webhook_deliveries).where(is_it).values(**values))
            webhook_outbox.count(connection, "delivered" if result.error is None else "failed")
            is_given_up = result.error is not None and "ended_at" in values
            if is_given_up:
                webhook_outbox.count(connection, "given_up")
            self._note_health(connection, delivery, result, give_up_after_s if is_given_up else None, now)

    def _note_health(
        self,
        connection: sa.Connection,
        delivery: DueDelivery,
        result: AttemptResult,
        give_up_after_s: float | None,
        now: datetime,
    ) -> None:
        """Note whether a receiver fails, and since when.

        As long as its deliveries are tried again it isn't given up: after a quiet time one failure would be enough.
        """
        is_it = webhooks.c.id == delivery.webhook_id
        health = sa.select(webhooks.c.url, webhooks.c.failing_since, webhooks.c.is_active).where(is_it)
        row = connection.execute(health).one()
        if row.url != delivery.url:  # the attempt was at the receiver before this one
            return
        if result.error is None:
            if row.failing_since is not None:
                connection.execute(sa.update(webhooks).where(is_it).values(failing_since=None))
            return
        since = row.failing_since or now
        values: dict[str, object] = {"failing_since": since}
        reason = None
        if result.is_gone:
            reason = _WORDS_OF_GONE
        elif give_up_after_s is not None and now - since >= timedelta(seconds=give_up_after_s):
            reason = f"every attempt has failed since {since:%Y-%m-%d %H:%M} UTC; the last: {result.error}"
        if reason is not None and row.is_active:
            values |= {"is_active": False, "inactive_reason": reason, "updated_at": now}
            words = f"its webhook was deactivated: {reason}"
            webhook_outbox.give_up(connection, delivery.webhook_id, now, words)
        connection.execute(sa.update(webhooks).where(is_it).values(**values))

    def delete_old(self, lifetime_s: float) -> int:
        """Forget deliveries that ended so long ago, and secrets whose grace is over; returns how many deliveries."""
        now = self._clock()
        is_old = webhook_deliveries.c.ended_at < now - timedelta(seconds=lifetime_s)
        is_over = webhooks.c.old_secret_until < now
        with self._database.writing() as connection:
            no_secret = {"old_secret": None, "old_secret_until": None}  # nosec B105 # there is none
            connection.execute(sa.update(webhooks).where(is_over).values(**no_secret))
            return connection.execute(sa.delete(webhook_deliveries).where(is_old)).rowcount


def _values(result: AttemptResult, now: datetime, *, is_waiting: bool, is_asked_again: bool) -> dict[str, object]:
    """The columns of a delivery after an attempt.

    One that was ended meanwhile isn't tried again. One that was asked for again, or whose webhook has another URL by
    now, waits as it is, unless it has come after all.
    """
    values: dict[str, object] = {
        "attempted_at": now,
        "response_status": result.status,
        "response_text": without_terminal_codes(result.text) or None,
        "duration_s": result.duration_s,
        "error": result.error,
    }
    if result.error is None:
        values |= {"status": DeliveryStatus.DELIVERED.value, "due_at": None, "ended_at": now}
    elif is_asked_again:
        pass
    elif result.retry_in_s is None:
        values |= {"status": DeliveryStatus.FAILED.value, "due_at": None, "ended_at": now}
    elif is_waiting:
        values["due_at"] = now + timedelta(seconds=result.retry_in_s)
    return values


def _old_secret(row: Any, now: datetime) -> tuple[str, ...]:
    return (row.old_secret,) if row.old_secret and row.old_secret_until > now else ()
