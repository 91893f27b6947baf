"""Claims to places and tokens."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from sienn_ray.access.claims import (
    LEASE_S,
    NO_LIMITS,
    WINDOW_S,
    Claim,
    ClaimGrant,
    ClaimLimiter,
    ClaimLimits,
    ClaimReport,
    Refusal,
)


class Seconds:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def limiter(seconds: Seconds) -> ClaimLimiter:
    return ClaimLimiter(seconds)


TWO = ClaimLimits(max_open=2)
HUNDRED = ClaimLimits(tokens_per_minute=100)


def claim(name: str, limits: ClaimLimits, num_tokens: int = 0, bucket: str = "key", num_places: int = 1) -> Claim:
    return Claim(name, bucket, limits, num_tokens, num_places)


def ask(limiter: ClaimLimiter, wanted: Claim, *ended: tuple[str, int]) -> ClaimGrant:
    grant = limiter.settle(ClaimReport(ended=ended, wanted=wanted))
    assert grant is not None
    return grant


def end(limiter: ClaimLimiter, name: str, num_tokens: int = 0) -> None:
    assert limiter.settle(ClaimReport(ended=((name, num_tokens),))) is None


class TestPlaces:
    def test_the_edge(self, limiter: ClaimLimiter) -> None:
        assert [ask(limiter, claim(name, TWO)).refusal for name in "abc"] == [None, None, Refusal.OPEN]
        assert ask(limiter, claim("d", TWO, bucket="other")).refusal is None
        end(limiter, "a")
        grant = ask(limiter, claim("c", TWO))
        assert (grant.refusal, grant.num_open, grant.tokens_left) == (None, 2, None)

    def test_an_end_comes_before_what_is_wanted_in_the_same_report(self, limiter: ClaimLimiter) -> None:
        for name in "ab":
            ask(limiter, claim(name, TWO))
        assert ask(limiter, claim("c", TWO), ("a", 0)).refusal is None

    def test_a_repeated_claim_is_the_same(self, limiter: ClaimLimiter) -> None:
        for _ in range(3):
            assert ask(limiter, claim("a", TWO)).num_open == 1

    def test_a_claim_without_a_place(self, limiter: ClaimLimiter) -> None:
        for name in "ab":
            ask(limiter, claim(name, TWO))
        assert ask(limiter, claim("c", TWO, num_places=0)).refusal is None

    def test_claims_that_nobody_reports_end_with_their_lease(self, limiter: ClaimLimiter, seconds: Seconds) -> None:
        held = claim("a", TWO)
        for name in "ab":
            ask(limiter, claim(name, TWO))
        for _ in range(3):
            seconds.now_s += LEASE_S - 1
            limiter.settle(ClaimReport(open=(held,)))
        assert limiter.num_open("key") == 1, "the holder of the other one was lost"
        seconds.now_s += LEASE_S + 1
        assert limiter.num_open("key") == 0

    def test_a_new_counter_learns_what_is_open(self, seconds: Seconds) -> None:
        successor = ClaimLimiter(seconds)
        successor.settle(ClaimReport(open=(claim("a", TWO), claim("b", TWO))))
        assert ask(successor, claim("c", TWO)).refusal is Refusal.OPEN

    def test_a_report_that_comes_late_opens_nothing_again(self, limiter: ClaimLimiter) -> None:
        ask(limiter, claim("a", TWO))
        end(limiter, "a")
        limiter.settle(ClaimReport(open=(claim("a", TWO),)))
        assert limiter.num_open("key") == 0

    def test_a_claim_that_was_given_up_before_it_came_is_refused(self, limiter: ClaimLimiter) -> None:
        end(limiter, "a")
        assert ask(limiter, claim("a", TWO)).refusal is Refusal.OPEN


class TestTokens:
    def test_the_edge(self, limiter: ClaimLimiter) -> None:
        assert ask(limiter, claim("a", HUNDRED, 60)).tokens_left == 40
        assert ask(limiter, claim("b", HUNDRED, 41)).refusal is Refusal.TOKENS
        assert ask(limiter, claim("c", HUNDRED, 40)).tokens_left == 0

    def test_what_was_reserved_and_not_used_comes_back(self, limiter: ClaimLimiter) -> None:
        ask(limiter, claim("a", HUNDRED, 100))
        end(limiter, "a", 10)
        end(limiter, "a", 10)  # a repeat
        assert ask(limiter, claim("b", HUNDRED, 90)).refusal is None

    def test_more_than_was_reserved_counts_too(self, limiter: ClaimLimiter) -> None:
        ask(limiter, claim("a", HUNDRED, 50))
        end(limiter, "a", 90)
        assert ask(limiter, claim("b", HUNDRED, 11)).refusal is Refusal.TOKENS

    def test_the_window_moves(self, limiter: ClaimLimiter, seconds: Seconds) -> None:
        ask(limiter, claim("a", HUNDRED, 60))
        end(limiter, "a", 60)
        seconds.now_s += 40
        ask(limiter, claim("b", HUNDRED, 40))
        end(limiter, "b", 40)
        refused = ask(limiter, claim("c", HUNDRED, 30))
        assert (refused.refusal, refused.reset_s) == (Refusal.TOKENS, 20)
        assert ask(limiter, claim("c", HUNDRED, 70)).reset_s == 60
        seconds.now_s += 20
        granted = ask(limiter, claim("c", HUNDRED, 30))
        assert (granted.refusal, granted.tokens_left, granted.reset_s) == (None, 30, 60)

    def test_what_takes_longer_than_the_window_counts_while_it_runs(
        self, limiter: ClaimLimiter, seconds: Seconds
    ) -> None:
        held = claim("a", HUNDRED, 80)
        ask(limiter, held)
        for _ in range(10):
            seconds.now_s += 9
            limiter.settle(ClaimReport(open=(held,)))
        assert ask(limiter, claim("b", HUNDRED, 30)).refusal is Refusal.TOKENS
        end(limiter, "a", 80)
        assert ask(limiter, claim("b", HUNDRED, 100)).refusal is None

    def test_the_tokens_of_a_lost_holder_count_as_used(self, limiter: ClaimLimiter, seconds: Seconds) -> None:
        ask(limiter, claim("a", HUNDRED, 80))
        seconds.now_s += LEASE_S + 1
        assert ask(limiter, claim("b", HUNDRED, 30)).refusal is Refusal.TOKENS
        seconds.now_s += WINDOW_S
        assert ask(limiter, claim("b", HUNDRED, 30)).refusal is None


def test_nothing_is_left_of_what_is_over(limiter: ClaimLimiter, seconds: Seconds) -> None:
    for number in range(50):
        ask(limiter, claim(f"a{number}", NO_LIMITS, 5, bucket=f"key-{number}"))
        end(limiter, f"a{number}", 5)
    seconds.now_s += WINDOW_S + LEASE_S + 1
    limiter.settle(ClaimReport())
    assert (limiter._buckets, limiter._bucket_of, limiter._ended) == ({}, {}, {})


@pytest.mark.parametrize("seed", range(5))
def test_no_window_has_more_than_the_limit(seed: int) -> None:
    """Random claims, ends and times: what began within any minute is within the limit, and so are places."""
    draw, seconds = random.Random(seed), Seconds()
    limiter, limits = ClaimLimiter(seconds), ClaimLimits(max_open=5, tokens_per_minute=1000)
    open_: dict[str, Claim] = {}
    began: list[tuple[float, int]] = []
    used: dict[str, tuple[float, int]] = {}
    for number in range(600):
        seconds.now_s += draw.random() * 2
        limiter.settle(ClaimReport(open=tuple(open_.values())))
        if open_ and draw.random() < 0.5:
            name = draw.choice(sorted(open_))
            num_tokens = draw.randint(0, open_.pop(name).num_tokens)
            used[name] = (used[name][0], num_tokens)
            end(limiter, name, num_tokens)
        wanted = claim(f"c{number}", limits, draw.randint(1, 300))
        if ask(limiter, wanted).refusal is None:
            open_[wanted.id] = wanted
            used[wanted.id] = (seconds.now_s, wanted.num_tokens)
            assert len(open_) <= 5
            began = [each for each in used.values() if each[0] > seconds.now_s - WINDOW_S]
            assert sum(tokens for _, tokens in began) <= 1000
    assert len(used) > 60, "it lets through what it may"


def test_threads_at_the_same_time(limiter: ClaimLimiter) -> None:
    limits = ClaimLimits(tokens_per_minute=1000)

    def asking(number: int) -> Callable[[], bool]:
        return lambda: ask(limiter, claim(f"c{number}", limits, 7)).refusal is None

    with ThreadPoolExecutor(8) as threads:
        granted = list(threads.map(lambda work: work(), [asking(number) for number in range(400)]))
    assert sum(granted) == 142
