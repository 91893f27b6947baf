"""The service's numbers: read once for all listeners of an owner, and only while there are some."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from starlette.testclient import TestClient

from sienn_ray.api.live.shared_numbers import SharedNumbers
from sienn_ray.api.live.updates import Updates
from sienn_ray.api.schemas.common import ResponseBody
from sienn_ray.errors import CapacityError
from tests.support.in_process_tracker import InProcessTracker

INTERVAL_S = 10.0


class Number(ResponseBody):
    """The number of a reading."""

    number: int


class Numbers:
    """Readings that are counted, and wait while a test says so."""

    def __init__(self) -> None:
        self.num_begun = 0
        self.error: Exception | None = None
        self.has_begun, self.has_ended, self.let_go = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.let_go.set()

    async def __call__(self) -> Number:
        self.num_begun += 1
        number = self.num_begun
        self.has_begun.set()
        try:
            await self.let_go.wait()
        finally:
            self.has_ended.set()
        if self.error is not None:
            raise self.error
        return Number(number=number)


class Clock:
    """Seconds that go by when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shared(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> SharedNumbers:
    """Between two readings of a listener the clock goes on, and nobody waits."""
    made = SharedNumbers(INTERVAL_S, clock)
    sleep = asyncio.sleep

    async def pass_time(seconds: float) -> None:
        clock.now += seconds
        await sleep(0)

    monkeypatch.setattr("sienn_ray.api.live.shared_numbers.asyncio.sleep", pass_time)
    return made


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 20))


async def number_of(updates: Updates) -> int:
    (update,) = await anext(updates)
    assert update.name == "metrics"
    number: int = json.loads(update.data)["number"]
    return number


def test_those_who_come_within_the_interval_share_a_reading(shared: SharedNumbers, clock: Clock) -> None:
    async def test() -> None:
        read = Numbers()
        listeners = [shared.updates("ada", read) for _ in range(100)]
        assert await asyncio.gather(*map(number_of, listeners)) == [1] * 100
        clock.now += INTERVAL_S / 2
        late = shared.updates("ada", read)
        assert await number_of(late) == 1
        clock.now += INTERVAL_S / 2
        assert await number_of(shared.updates("ada", read)) == 2
        for each in (*listeners, late):
            await each.aclose()

    run(test)


def test_a_listener_is_told_new_numbers_each_time(shared: SharedNumbers) -> None:
    async def test() -> None:
        updates = shared.updates("ada", Numbers())
        assert [await number_of(updates) for _ in range(3)] == [1, 2, 3]

    run(test)


def test_owners_have_readings_of_their_own(shared: SharedNumbers) -> None:
    async def test() -> None:
        readers = {owner: Numbers() for owner in ("ada", "bob", None)}
        for owner, read in readers.items():
            await number_of(shared.updates(owner, read))
        assert [each.num_begun for each in readers.values()] == [1, 1, 1]

    run(test)


def test_nothing_is_kept_once_nobody_listens(shared: SharedNumbers) -> None:
    async def test() -> None:
        read = Numbers()
        first, second = shared.updates("ada", read), shared.updates("ada", read)
        await number_of(first)
        await number_of(second)
        await first.aclose()
        assert shared.num_owners == 1
        await second.aclose()
        assert shared.num_owners == 0
        assert await number_of(shared.updates("ada", read)) == 2

    run(test)


def test_who_leaves_during_a_reading_does_not_end_it_for_others(shared: SharedNumbers) -> None:
    async def test() -> None:
        read = Numbers()
        read.let_go.clear()
        leaving, staying = (asyncio.create_task(number_of(shared.updates("ada", read))) for _ in range(2))
        await read.has_begun.wait()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        read.let_go.set()
        assert await staying == 1

    run(test)


def test_the_last_who_leaves_ends_the_reading(shared: SharedNumbers) -> None:
    async def test() -> None:
        read = Numbers()
        read.let_go.clear()
        leaving = asyncio.create_task(number_of(shared.updates("ada", read)))
        await read.has_begun.wait()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await read.has_ended.wait()
        assert shared.num_owners == 0

    run(test)


def test_a_reading_that_fails_is_told_and_not_kept(shared: SharedNumbers) -> None:
    async def test() -> None:
        read = Numbers()
        other = shared.updates("ada", read)
        await number_of(other)
        read.error = CapacityError("the job tracker is away")
        with pytest.raises(CapacityError, match="the job tracker is away"):
            await number_of(other)
        keeps = shared.updates("ada", read)
        with pytest.raises(CapacityError):
            await number_of(keeps)
        read.error = None
        assert await number_of(shared.updates("ada", read)) == 4

    run(test)


def test_listeners_over_http_cost_the_tracker_one_reading(client: TestClient, tracker: InProcessTracker) -> None:
    with client.websocket_connect("/api/ws/metrics") as first, client.websocket_connect("/api/ws/metrics") as second:
        told = [each.receive_json() for each in (first, second)]
        assert client.get("/api/events/metrics?limit=1").status_code == 200
    assert told[0] == told[1]
    assert tracker.calls.count("overview") == 1
