"""The heartbeat of supervision, and what its log says of errors that go on."""

from __future__ import annotations

import logging
import threading

import pytest

from sienn_ray.jobs.supervision.threads import Supervision
from tests.support.fakes_jobs import Seconds


class _Steps:
    """Steps that hang, or fail a number of times."""

    def __init__(self, num_failures: int = 0) -> None:
        self.num_failures = num_failures
        self.released = threading.Event()
        self.released.set()
        self.done = threading.Event()

    def step(self) -> None:
        self.released.wait(20)
        if self.num_failures:
            self.num_failures -= 1
            raise ConnectionError("the database is away")
        self.done.set()

    def needs_close_look(self) -> bool:
        return False


def test_heartbeat_tells_a_step_that_hangs() -> None:
    clock, steps = Seconds(), _Steps()
    steps.released.clear()
    supervision = Supervision(steps, poll_s=2.0, clock_s=clock)
    clock.advance(181)
    assert not supervision.heartbeat().is_stuck
    clock.advance(2)
    beat = supervision.heartbeat()
    assert (beat.what, beat.age_s, beat.limit_s, beat.is_stuck) == ("jobs", 183.0, 182.0, True)
    steps.released.set()
    supervision.close()
    assert supervision.heartbeat().age_s == 0.0


def test_steps_that_wait_for_storage_may_take_longer() -> None:
    clock, steps = Seconds(), _Steps()
    steps.released.clear()
    supervision = Supervision(steps, poll_s=2.0, what="deletions", longest_step_s=3600.0, clock_s=clock)
    clock.advance(3602)
    assert not supervision.heartbeat().is_stuck
    clock.advance(1)
    assert supervision.heartbeat().is_stuck
    steps.released.set()
    supervision.close()


def test_error_that_goes_on_is_logged_with_its_count(caplog: pytest.LogCaptureFixture) -> None:
    steps = _Steps(num_failures=203)
    with caplog.at_level(logging.ERROR):
        supervision = Supervision(steps, poll_s=1e-6)
        assert steps.done.wait(20)
        supervision.close()
    assert [record.getMessage() for record in caplog.records] == [
        f"looking after the jobs failed {number} time(s) in a row" for number in (1, 10, 100, 200)
    ]
