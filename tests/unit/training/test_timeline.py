from __future__ import annotations

import pickle
import time

import pytest

from sienn_ray.training.timeline import Timeline


class ManualClock:
    """Seconds that only move when told."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000.0)


def test_each_moment_has_the_seconds_since_the_one_before(clock: ManualClock) -> None:
    timeline = Timeline(990.0, clock)
    timeline.mark("start")
    clock.now = 1_002.5
    timeline.mark("load")
    assert timeline.seconds() == {"start": 10.0, "load": 2.5, "total": 12.5}
    assert list(timeline.seconds()) == ["start", "load", "total"]


def test_nothing_was_spent_before_the_first_mark(clock: ManualClock) -> None:
    timeline = Timeline(990.0, clock)
    clock.now = 2_000.0
    assert timeline.seconds() == {"total": 0.0}


def test_a_moment_that_is_past_can_be_named(clock: ManualClock) -> None:
    timeline = Timeline(990.0, clock)
    timeline.mark("accepted", at=993.0)
    timeline.mark("start")
    assert timeline.seconds() == {"accepted": 3.0, "start": 7.0, "total": 10.0}


def test_clocks_of_two_machines_never_make_less_than_nothing(clock: ManualClock) -> None:
    timeline = Timeline(1_005.0, clock)
    timeline.mark("start")
    assert timeline.seconds() == {"start": 0.0, "total": 0.0}


def test_a_second_mark_of_a_name_adds_to_the_total_alone(clock: ManualClock) -> None:
    timeline = Timeline(1_000.0, clock)
    for now in (1_001.0, 1_005.0):
        clock.now = now
        timeline.mark("start_workers")
    clock.now = 1_006.0
    timeline.mark("load")
    assert timeline.seconds() == {"start_workers": 1.0, "load": 1.0, "total": 6.0}


def test_it_is_complete_once_said(clock: ManualClock) -> None:
    timeline = Timeline(1_000.0, clock)
    assert not timeline.is_complete
    timeline.complete()
    assert timeline.is_complete


def test_it_goes_on_in_another_process() -> None:
    timeline = Timeline(time.time() - 5.0)
    timeline.mark("start")
    copied = pickle.loads(pickle.dumps(timeline))
    assert copied.seconds() == timeline.seconds()
    copied.mark("load")
    assert copied.seconds()["start"] == pytest.approx(5.0, abs=1.0)
    assert list(copied.seconds()) == ["start", "load", "total"]
    assert "load" not in timeline.seconds()
