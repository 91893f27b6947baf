"""Delivers to webhooks what waits in the database, a thread for each attempt, with retries and back-off."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Protocol

from sienn_ray.errors import DestinationError, OutOfReachError
from sienn_ray.jobs.schema import utc_now
from sienn_ray.jobs.store.delivery_store import DeliveryStore
from sienn_ray.jobs.supervision.backoff import Backoff
from sienn_ray.jobs.supervision.isolation import is_worth_a_line
from sienn_ray.jobs.webhook_schema import AttemptResult, DeliveryBounds, DueDelivery
from sienn_ray.jobs.webhook_signatures import signed_headers
from sienn_ray.outbound.client import OutboundResponse
from sienn_ray.settings import Settings

logger = logging.getLogger(__name__)

_PER_WEBHOOK = 2
# Parts of all places of which one owner has one, so that it takes several to keep the others waiting.
_PARTS = 4
_FIRST_PAUSE_S, _FACTOR, _LONGEST_PAUSE_S = 5.0, 3.0, 6 * 3600.0
# So that what failed together isn't tried again together.
_JITTER = 0.2
_MAX_RETRY_AFTER_S = 24 * 3600.0
_SWEEP_INTERVAL_S = 3600.0
_WORDS_OF_REDIRECT = "redirects aren't followed, so the webhook needs the URL that it leads to"


class Sender(Protocol):
    """Posts to a server that a user has named; `OutboundClient` does."""

    def post(self, text: str, body: bytes, headers: dict[str, str], caller: str) -> OutboundResponse:
        """See `OutboundClient.post`."""
        ...


@dataclass(frozen=True)
class DeliveryRules:
    """Limits of deliveries.

    Args:
        max_attempts: Attempts of one delivery.
        max_concurrent: Attempts at once.
        give_up_after_s: Seconds of failures after which a webhook is deactivated.
        lifetime_s: Seconds that deliveries are kept after their end.
    """

    max_attempts: int = 12
    max_concurrent: int = 16
    give_up_after_s: float = 5 * 86400.0
    lifetime_s: float = 14 * 86400.0

    @property
    def bounds(self) -> DeliveryBounds:
        """Bounds on attempts at once."""
        per_owner = max(_PER_WEBHOOK, self.max_concurrent // _PARTS)
        return DeliveryBounds(self.max_concurrent, per_owner, _PER_WEBHOOK)


def delivery_rules(settings: Settings) -> DeliveryRules:
    """Return the limits that settings have."""
    return DeliveryRules(
        max_attempts=settings.webhook_max_attempts,
        max_concurrent=settings.max_concurrent_webhooks,
        give_up_after_s=settings.webhook_give_up_after_s,
        lifetime_s=settings.webhook_delivery_lifetime_s,
    )


class WebhookDeliverer:
    """One `step` begins the attempts that are due, and waits for none of them.

    Until its end is written, a delivery waits in the database: one whose attempt was cut off with this process is
    attempted again.

    Args:
        store: What waits.
        sender: Sends it.
        rules: Limits.
        clock: The time.
        clock_s: A clock that only rises.
        draw: Gives a number from 0 to 1.
    """

    def __init__(
        self,
        store: DeliveryStore,
        sender: Sender,
        rules: DeliveryRules | None = None,
        clock: Callable[[], datetime] = utc_now,
        clock_s: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._sender = sender
        self._rules = rules or DeliveryRules()
        self._clock = clock
        self._clock_s = clock_s
        self._draw = draw
        self._lock = threading.Lock()
        # By id, the deliveries that are under way with their threads.
        self._under_way: dict[str, tuple[DueDelivery, threading.Thread]] = {}
        # Of deliveries whose end couldn't be written: they must not be attempted at each step.
        self._backoff = Backoff(clock_s)
        self._next_sweep_s = float("-inf")

    def step(self) -> None:
        """Begin what is due, as far as there is room, and forget what is old."""
        with self._lock:
            under_way = [delivery for delivery, _ in self._under_way.values()]
        for delivery in self._store.due(self._rules.bounds, under_way):
            if self._backoff.is_due(delivery.id):
                self._begin(delivery)
        if self._clock_s() >= self._next_sweep_s:
            self._store.delete_old(self._rules.lifetime_s)
            self._next_sweep_s = self._clock_s() + _SWEEP_INTERVAL_S

    def needs_close_look(self) -> bool:
        """Return whether an attempt is under way, after which there is room for others."""
        with self._lock:
            return bool(self._under_way)

    def join(self) -> None:
        """Wait for the attempts that are under way."""
        with self._lock:
            threads = [thread for _, thread in self._under_way.values()]
        for thread in threads:
            thread.join()

    def _begin(self, delivery: DueDelivery) -> None:
        thread = threading.Thread(target=self._attempt, args=(delivery,), name="webhook", daemon=True)
        with self._lock:
            self._under_way[delivery.id] = (delivery, thread)
        try:
            thread.start()
        except RuntimeError:  # there are too many threads; it waits for a later step
            with self._lock:
                del self._under_way[delivery.id]
            raise

    def _attempt(self, delivery: DueDelivery) -> None:
        try:
            self._store.note(delivery, self._result(delivery), self._rules.give_up_after_s)
        except Exception:  # of the database mostly; it is attempted again, since it still waits
            with self._lock:
                number = self._backoff.failed(delivery.id)
            if is_worth_a_line(number):
                logger.exception("the end of delivery %s couldn't be noted", delivery.id)
        finally:
            with self._lock:
                del self._under_way[delivery.id]

    def _result(self, delivery: DueDelivery) -> AttemptResult:
        started_s = time.perf_counter()
        wanted_s = None
        try:
            response = self._post(delivery)
            result = _read(response)
            if result.error is not None:
                wanted_s = _retry_after_s(response, self._clock())
        except (DestinationError, OutOfReachError) as error:
            result = AttemptResult(None, "", 0.0, error=error.message)
        except Exception:  # nothing, the reading of an answer included, may have it be attempted for ever
            logger.exception("delivery %s failed as nobody foresaw", delivery.id)
            result = AttemptResult(None, "", 0.0, error="a fault of the service; its log has the details")
        retry_in_s = None if result.error is None else self._retry_in_s(delivery, result, wanted_s)
        return replace(result, duration_s=time.perf_counter() - started_s, retry_in_s=retry_in_s)

    def _post(self, delivery: DueDelivery) -> OutboundResponse:
        body = delivery.body.encode()
        headers = signed_headers(delivery.id, int(self._clock().timestamp()), body, delivery.secrets)
        sent = {"Content-Type": "application/json", **headers}
        return self._sender.post(delivery.url, body, sent, delivery.owner)

    def _retry_in_s(self, delivery: DueDelivery, result: AttemptResult, wanted_s: float | None) -> float | None:
        if result.is_gone or delivery.num_tries + 1 >= self._rules.max_attempts:
            return None
        pause_s = min(_FIRST_PAUSE_S * _FACTOR ** min(delivery.num_tries, 20), _LONGEST_PAUSE_S)
        pause_s *= 1 + _JITTER * (2 * self._draw() - 1)
        return max(pause_s, min(wanted_s or 0.0, _MAX_RETRY_AFTER_S))


def _read(response: OutboundResponse) -> AttemptResult:
    text = response.body.decode(errors="replace")
    if HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
        return AttemptResult(response.status, text, 0.0)
    error = f"the receiver answered {response.status}"
    if HTTPStatus.MULTIPLE_CHOICES <= response.status < HTTPStatus.BAD_REQUEST:
        error = f"{error}; {_WORDS_OF_REDIRECT}"
    return AttemptResult(response.status, text, 0.0, error=error, is_gone=response.status == HTTPStatus.GONE)


def _retry_after_s(response: OutboundResponse, now: datetime) -> float | None:
    """Seconds after which a receiver wants to be asked again, as a number or as a date (RFC 9110, section 10.2.3)."""
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
        return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds()
    except (ValueError, OverflowError):  # no date, or one beyond what Python can count
        return None
