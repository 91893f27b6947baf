"""Rate limits: requests of one client within moving windows, counted in one place for all replicas.

Replicas don't ask for each request. A replica that asks is lent some permits, an eighth of what is left, for a second;
it reports later which of them it has used, and the others are free again. What is lent counts as used meanwhile, so
that all replicas together never let through more than the limit, and close to it each request is asked for.

The moving window is that of the package `limits`.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

# How long permits are lent. A holder reports within that time, and a little later nobody waits for it any more.
LENT_S = 1.0
_GRACE_S = 1.0
_LENT_SHARE = 8
_MAX_LENT = 64
# Clients with lent permits that are remembered.
_MAX_BUCKETS = 100_000
_TIDY_EVERY_S = 60.0


@dataclass(frozen=True)
class PermitRequest:
    """A replica's report on one client, and what it asks for.

    Args:
        bucket: Whose requests are counted together: an address or a key.
        limits: Limits, as `100/minute;1000/hour`.
        num_used: Lent permits that were used since the last report; the others are given back.
        num_wanted: Requests that wait for a permit now.
    """

    bucket: str
    limits: str
    num_used: int = 0
    num_wanted: int = 0


@dataclass(frozen=True)
class Grant:
    """The answer to a replica.

    Args:
        num_granted: Waiting requests that may go on.
        num_lent: Permits for later ones, within `LENT_S`.
        limit: The number of the limit that is nearest.
        window_s: Its seconds.
        num_left: Requests that it still lets through.
        reset_s: Seconds until it lets through another one once none is left.
    """

    num_granted: int
    num_lent: int
    limit: int
    window_s: int
    num_left: int
    reset_s: float


class RateLimiter:
    """Counts requests and lends permits, for all replicas; safe to use from several threads.

    Args:
        clock: Seconds since the epoch, as `limits` has them.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._storage = MemoryStorage()
        # It would look through all clients in a thread of its own, up to a hundred times a second.
        self._storage.timer.cancel()
        self._storage.timer.join()
        self._storage.timer = _Alive()
        self._tidied_at = clock()
        self._windows = MovingWindowRateLimiter(self._storage)
        self._lock = threading.Lock()
        # By bucket and holder: how many are lent, and until when.
        self._lent: OrderedDict[str, dict[str, tuple[int, float]]] = OrderedDict()

    def settle(self, holder: str, request: PermitRequest) -> Grant:
        """Take a report, and grant permits.

        Args:
            holder: The replica.
            request: Its report.
        """
        with self._lock:
            self._tidy()
            items = parsed(request.limits)
            others = self._lent_to_others(request.bucket, holder)
            self._count(items, request.bucket, request.num_used)
            nearest, num_left = self._nearest(items, request.bucket)
            num_free = max(0, num_left - others)
            num_granted = min(request.num_wanted, num_free)
            self._count(items, request.bucket, num_granted)
            num_lent = min(_MAX_LENT, (num_free - num_granted) // _LENT_SHARE) if request.num_wanted else 0
            self._lend(request.bucket, holder, num_lent)
            starts_at, _ = self._windows.get_window_stats(nearest, request.bucket)
            return Grant(
                num_granted=num_granted,
                num_lent=num_lent,
                limit=nearest.amount,
                window_s=nearest.get_expiry(),
                num_left=max(0, num_left - num_granted),
                reset_s=max(0.0, starts_at - self._clock()),
            )

    def _tidy(self) -> None:
        """Forget requests that no window reaches back to."""
        now = self._clock()
        if now < self._tidied_at + _TIDY_EVERY_S:
            return
        self._tidied_at = now
        for key, entries in list(self._storage.events.items()):
            while entries and entries[-1].expiry <= now:
                entries.pop()
            if not entries:
                self._storage.clear(key)

    def _lent_to_others(self, bucket: str, holder: str) -> int:
        """Permits that others hold; those of the holder itself are settled with this report."""
        now = self._clock()
        holders = self._lent.get(bucket, {})
        for name in [name for name, (_, until) in holders.items() if name == holder or until < now]:
            del holders[name]
        if not holders:
            self._lent.pop(bucket, None)
        return sum(number for number, _ in holders.values())

    def _lend(self, bucket: str, holder: str, number: int) -> None:
        if number:
            self._lent.setdefault(bucket, {})[holder] = (number, self._clock() + LENT_S + _GRACE_S)
            self._lent.move_to_end(bucket)
            if len(self._lent) > _MAX_BUCKETS:
                self._lent.popitem(last=False)

    def _count(self, items: tuple[RateLimitItem, ...], bucket: str, number: int) -> None:
        for item in items:
            _, num_left = self._windows.get_window_stats(item, bucket)
            if counted := min(number, num_left):
                self._windows.hit(item, bucket, cost=counted)

    def _nearest(self, items: tuple[RateLimitItem, ...], bucket: str) -> tuple[RateLimitItem, int]:
        """The limit that lets through the fewest requests now, and how many."""
        left = [(self._windows.get_window_stats(item, bucket)[1], item) for item in items]
        num_left, nearest = min(left, key=lambda each: each[0])
        return nearest, num_left


class _Alive(threading.Timer):
    """A timer that is always about to ring, and never does."""

    def __init__(self) -> None:
        super().__init__(0.0, lambda: None)

    def is_alive(self) -> bool:
        """Return True."""
        return True


@lru_cache(maxsize=256)
def parsed(limits: str) -> tuple[RateLimitItem, ...]:
    """Return the limits in a text.

    Raises:
        ValueError: It has none, or something else.

    Example:
        >>> [(item.amount, item.get_expiry()) for item in parsed("100/minute;1000/hour")]
        [(100, 60), (1000, 3600)]
    """
    try:
        return tuple(parse_many(limits))
    except ValueError:
        raise ValueError(f"{limits!r} isn't of the form '100/minute;1000/hour'") from None
