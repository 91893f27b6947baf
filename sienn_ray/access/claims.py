"""Claims: things at once and tokens per minute, counted in one place for all replicas.

A claim reserves a place and as many tokens as may be used, and is settled with what was used when it has ended, as
hosted APIs do. The first question about a claim decides, so that the limits hold to the token, however many replicas
ask at the same time; what is claimed takes far longer than the question.

Whoever holds claims reports them every few seconds. Those that nobody reports any more, as their holder was lost, end
with their lease. Where the counting process was replaced, the next reports tell the new one what is open.
"""

from __future__ import annotations

import sys
import threading
import time
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

WINDOW_S = 60.0
RENEW_S = 2.0
LEASE_S = 10.0
# Where nothing says when a place, or tokens that others have reserved, come free.
_RETRY_S = 1.0


@dataclass(frozen=True)
class ClaimLimits:
    """Limits of one bucket; None is any number.

    Args:
        max_open: Claims at once.
        tokens_per_minute: Tokens of claims that are open, or began within the last minute.
    """

    max_open: int | None = None
    tokens_per_minute: int | None = None

    @property
    def is_bounded(self) -> bool:
        """Return whether there is a limit at all."""
        return self != ClaimLimits()


NO_LIMITS = ClaimLimits()


@dataclass(frozen=True)
class Claim:
    """A claim to a place and to tokens.

    Args:
        id: Tells a repeated claim from a second one.
        bucket: What is counted together.
        limits: The limits of that.
        num_tokens: Tokens that may be used.
        num_places: Places that are taken, 1 or 0.
    """

    id: str
    bucket: str
    limits: ClaimLimits
    num_tokens: int = 0
    num_places: int = 1


@dataclass(frozen=True)
class ClaimReport:
    """A holder's report.

    Args:
        open: Claims that it holds.
        ended: Ids of claims that have ended since the last report, with the tokens that were used.
        wanted: A further claim.
    """

    open: tuple[Claim, ...] = ()
    ended: tuple[tuple[str, int], ...] = ()
    wanted: Claim | None = None


class Refusal(StrEnum):
    """Reasons why a claim is refused."""

    OPEN = "open"
    TOKENS = "tokens"


@dataclass(frozen=True)
class ClaimGrant:
    """The answer to a claim.

    Args:
        refusal: Why it is refused; None where it is granted.
        num_open: Places that are taken, this one included.
        tokens_left: Tokens that may be claimed still; None where they aren't limited.
        reset_s: Seconds until all tokens are there again; of a refused claim, until a repeat may be granted.
    """

    refusal: Refusal | None
    num_open: int
    tokens_left: int | None
    reset_s: float


@dataclass
class _Open:
    claim: Claim
    began_at: float
    until: float


@dataclass
class _Bucket:
    open: dict[str, _Open] = field(default_factory=dict)
    # When claims began that have ended, in this order, and the tokens that they used; and the sum of these.
    used: list[tuple[float, int]] = field(default_factory=list)
    num_used: int = 0

    @property
    def num_open(self) -> int:
        return sum(each.claim.num_places for each in self.open.values())

    @property
    def num_tokens(self) -> int:
        return sum(each.claim.num_tokens for each in self.open.values()) + self.num_used

    def use(self, began_at: float, num_tokens: int) -> None:
        """Note what a claim has used."""
        insort(self.used, (began_at, num_tokens))
        self.num_used += num_tokens

    def forget(self, moment: float) -> None:
        """Forget what began until a moment."""
        place = bisect_right(self.used, (moment, sys.maxsize))
        self.num_used -= sum(number for _, number in self.used[:place])
        del self.used[:place]


class ClaimLimiter:
    """Grants claims; safe to use from several threads.

    Args:
        clock: Seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, _Bucket] = {}
        self._bucket_of: dict[str, str] = {}
        # So that a report that comes late doesn't open them again.
        self._ended: OrderedDict[str, float] = OrderedDict()

    def settle(self, report: ClaimReport) -> ClaimGrant | None:
        """Take a report, and decide on the claim that it wants; a repeat changes nothing."""
        with self._lock:
            now = self._clock()
            self._forget(now)
            for claim_id, num_tokens in report.ended:
                self._end(claim_id, num_tokens, now)
            for claim in report.open:
                self._renew(claim, now)
            return None if report.wanted is None else self._decide(report.wanted, now)

    def num_open(self, bucket: str) -> int:
        """Return how many places of a bucket are taken."""
        with self._lock:
            self._forget(self._clock())
            return self._buckets[bucket].num_open if bucket in self._buckets else 0

    def _forget(self, now: float) -> None:
        """Forget what no limit reaches back to, and end claims whose lease is over."""
        for name, bucket in list(self._buckets.items()):
            for claim_id in [claim_id for claim_id, each in bucket.open.items() if each.until < now]:
                # Nobody knows what it has used; no more than it reserved.
                self._end(claim_id, bucket.open[claim_id].claim.num_tokens, now)
            bucket.forget(now - WINDOW_S)
            if not bucket.open and not bucket.used:
                del self._buckets[name]
        while self._ended and next(iter(self._ended.values())) < now:
            self._ended.popitem(last=False)

    def _end(self, claim_id: str, num_tokens: int, now: float) -> None:
        name = self._bucket_of.pop(claim_id, None)
        self._ended[claim_id] = now + LEASE_S
        if name is None:
            return
        bucket = self._buckets[name]
        began_at = bucket.open.pop(claim_id).began_at
        if num_tokens > 0:
            bucket.use(began_at, num_tokens)

    def _renew(self, claim: Claim, now: float) -> None:
        if claim.id in self._ended:
            return
        bucket = self._buckets.setdefault(claim.bucket, _Bucket())
        known = bucket.open.get(claim.id)
        if known is not None:
            known.until = now + LEASE_S
        else:  # granted by a counter that is gone, or while it couldn't be asked
            self._open(bucket, claim, now)

    def _open(self, bucket: _Bucket, claim: Claim, now: float) -> None:
        bucket.open[claim.id] = _Open(claim, now, now + LEASE_S)
        self._bucket_of[claim.id] = claim.bucket

    def _decide(self, claim: Claim, now: float) -> ClaimGrant:
        bucket = self._buckets.setdefault(claim.bucket, _Bucket())
        limits = claim.limits
        if claim.id in self._ended:  # its holder has given it up before it arrived
            return self._grant(bucket, limits, Refusal.OPEN, _RETRY_S)
        if claim.id not in bucket.open:
            if limits.max_open is not None and bucket.num_open + claim.num_places > limits.max_open:
                return self._grant(bucket, limits, Refusal.OPEN, _RETRY_S)
            most = limits.tokens_per_minute
            if most is not None and bucket.num_tokens + claim.num_tokens > most:
                wait_s = self._wait_s(bucket, bucket.num_tokens + claim.num_tokens - most, now)
                return self._grant(bucket, limits, Refusal.TOKENS, wait_s)
            self._open(bucket, claim, now)
        return self._grant(bucket, limits, None, _reset_s(bucket, now))

    def _grant(self, bucket: _Bucket, limits: ClaimLimits, refusal: Refusal | None, wait_s: float) -> ClaimGrant:
        most = limits.tokens_per_minute
        left = None if most is None else max(0, most - bucket.num_tokens)
        return ClaimGrant(refusal, bucket.num_open, left, wait_s)

    def _wait_s(self, bucket: _Bucket, num_tokens: int, now: float) -> float:
        """Seconds until so many tokens are free again; those that are reserved now, as if they were used."""
        reserved = ((each.began_at, each.claim.num_tokens) for each in bucket.open.values())
        return _seconds_until_free(sorted([*bucket.used, *reserved]), num_tokens, now)


def _reset_s(bucket: _Bucket, now: float) -> float:
    """Seconds until all tokens are there again, were nothing else to begin."""
    latest = max([each.began_at for each in bucket.open.values()] + [began_at for began_at, _ in bucket.used[-1:]])
    return max(_RETRY_S, latest + WINDOW_S - now)


def _seconds_until_free(entries: Iterable[tuple[float, int]], num_tokens: int, now: float) -> float:
    wait_s = 0.0
    for began_at, number in entries:
        if num_tokens <= 0:
            break
        num_tokens -= number
        wait_s = max(_RETRY_S, began_at + WINDOW_S - now)
    return wait_s
