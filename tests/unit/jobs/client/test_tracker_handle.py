from __future__ import annotations

import pytest

from sienn_ray.errors import CapacityError
from sienn_ray.jobs.client.tracker_handle import TrackerHandle


class Registry:
    """Names each actor that it is asked for by its number."""

    def __init__(self) -> None:
        self.num_asked = 0
        self.now = 100.0
        self.is_empty = False

    def find(self) -> str:
        if self.is_empty:
            raise CapacityError("the job tracker isn't running at the moment; try again in a moment")
        self.num_asked += 1
        return f"tracker {self.num_asked}"

    def clock(self) -> float:
        return self.now


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def handle(registry: Registry) -> TrackerHandle:
    return TrackerHandle(registry.find, registry.clock)


def test_tracker_is_not_looked_up_for_each_report(registry: Registry, handle: TrackerHandle) -> None:
    for _ in range(50):
        assert handle.get() == "tracker 1"
        registry.now += 0.1
    assert registry.num_asked == 1


def test_tracker_is_looked_up_anew_after_seconds(registry: Registry, handle: TrackerHandle) -> None:
    handle.get()
    registry.now += 5.1
    assert handle.get() == "tracker 2"


def test_dead_tracker_is_looked_up_anew_at_once(handle: TrackerHandle) -> None:
    handle.get()
    handle.forget()
    assert handle.get() == "tracker 2"


def test_none_is_said_until_there_is_one(registry: Registry, handle: TrackerHandle) -> None:
    registry.is_empty = True
    for _ in range(2):
        with pytest.raises(CapacityError):
            handle.get()
    registry.is_empty = False
    assert handle.get() == "tracker 1"
