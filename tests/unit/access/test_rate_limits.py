from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from sienn_ray.access.rate_limits import LENT_S, Grant, PermitRequest, RateLimiter, parsed

LIMITS = "100/minute;1000/hour"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("limits.storage.memory.time", SimpleNamespace(time=clock))
    return clock


@pytest.fixture
def limiter(clock: Clock) -> Iterator[RateLimiter]:
    limiter = RateLimiter(clock)
    yield limiter
    assert [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)] == []


def ask(
    limiter: RateLimiter, num_wanted: int = 1, num_used: int = 0, holder: str = "one", limits: str = LIMITS
) -> Grant:
    return limiter.settle(holder, PermitRequest("address 10.0.0.1", limits, num_used, num_wanted))


def test_no_more_pass_than_the_limit(limiter: RateLimiter) -> None:
    grants = [ask(limiter) for _ in range(150)]
    assert sum(grant.num_granted for grant in grants) == 100
    last = grants[-1]
    assert (last.num_granted, last.num_lent, last.limit, last.window_s, last.num_left) == (0, 0, 100, 60, 0)
    assert last.reset_s == pytest.approx(60)


def test_the_window_moves(limiter: RateLimiter, clock: Clock) -> None:
    assert ask(limiter, num_wanted=60).num_granted == 60
    clock.now += 30
    assert ask(limiter, num_wanted=60).num_granted == 40
    clock.now += 31
    grant = ask(limiter, num_wanted=80)
    assert grant.num_granted == 60
    assert grant.reset_s == pytest.approx(29)


def test_the_nearest_limit_counts(limiter: RateLimiter, clock: Clock) -> None:
    for _ in range(10):
        assert ask(limiter, num_wanted=100).num_granted == 100
        clock.now += 61
    grant = ask(limiter)
    assert (grant.num_granted, grant.limit, grant.window_s) == (0, 1000, 3600)
    assert grant.reset_s == pytest.approx(3600 - 610)


def test_what_is_lent_is_not_granted_to_others(limiter: RateLimiter) -> None:
    first = ask(limiter, holder="one")
    assert first.num_lent == 99 // 8
    assert ask(limiter, num_wanted=100, holder="two").num_granted == 99 - first.num_lent


def test_what_is_lent_and_not_used_is_free_again(limiter: RateLimiter, clock: Clock) -> None:
    first = ask(limiter, holder="one")
    ask(limiter, num_wanted=0, num_used=2, holder="one")
    assert ask(limiter, num_wanted=100, holder="two").num_granted == 97
    clock.now += 61
    assert first.num_lent > 2
    ask(limiter, holder="three")
    clock.now += LENT_S + 1.1  # it never reports
    assert ask(limiter, num_wanted=100, holder="two").num_granted == 99


def test_close_to_the_limit_nothing_is_lent(limiter: RateLimiter) -> None:
    assert ask(limiter, num_wanted=93).num_lent == 0
    assert [ask(limiter).num_granted for _ in range(9)] == [1] * 7 + [0] * 2


def test_clients_are_counted_apart(limiter: RateLimiter) -> None:
    ask(limiter, num_wanted=100)
    other = PermitRequest("address 10.0.0.2", LIMITS, num_wanted=1)
    assert limiter.settle("one", other).num_granted == 1


def test_clients_that_are_long_gone_are_forgotten(limiter: RateLimiter, clock: Clock) -> None:
    for number in range(50):
        limiter.settle("one", PermitRequest(f"address {number}", LIMITS, num_wanted=1))
    assert len(limiter._storage.events) == 100
    clock.now += 61
    ask(limiter)
    assert len(limiter._storage.events) == 52  # windows of an hour, and both of the last one
    clock.now += 3600
    ask(limiter)
    assert len(limiter._storage.events) == 2
    assert sum(map(len, limiter._storage.events.values())) == 2


@pytest.mark.parametrize("limits", ["", "many", "100", "100/fortnight", "100/minute;x", "-1/minute"])
def test_other_texts_are_no_limits(limits: str) -> None:
    with pytest.raises(ValueError, match="isn't of the form '100/minute;1000/hour'"):
        parsed(limits)
