"""Lines of logs in live updates: each once, in order, over reconnects, broken connections and attempts."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

import pytest

from sienn_ray.api.deps import Backends
from sienn_ray.api.live import hub as hub_module
from sienn_ray.api.live import log_feeds as log_feeds_module
from sienn_ray.api.live.hub import LiveHub
from sienn_ray.api.live.log_feeds import LogFeeds
from sienn_ray.api.live.log_lines import MAX_LINE_BYTES, MAX_LINES, LinePlace, LineSplitter, LogLines
from sienn_ray.api.live.updates import Update, Updates, Wish, job_updates
from sienn_ray.errors import CapacityError, NotFoundError
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.supervision.kept_log import KeptLog
from sienn_ray.jobs.supervision.ray_jobs import submission_id_of
from sienn_ray.settings import Settings
from sienn_ray.storage_keys import attempt_log_key
from tests.support.fakes_api import dataset_record, job_record
from tests.support.fakes_backends import fake_backends
from tests.support.in_process_tracker import InProcessTracker

INTERVAL_S = 0.005
LIMIT_S = 20


class GrowingLogs:
    """`JobLogs` of attempts whose programs still print, over connections that may break.

    Attributes:
        num_open: Streams that are read.
        num_follows: Streams that were opened to go on.
    """

    def __init__(self) -> None:
        self._texts: dict[str, bytes] = {}
        self._ended: set[str] = set()
        self._changed = asyncio.Condition()
        self._num_breaks = 0
        self.num_open = 0
        self.num_follows = 0

    async def write(self, attempt: int, text: bytes) -> None:
        """Print something."""
        async with self._changed:
            key = submission_id_of("job-1", attempt)
            self._texts[key] = self._texts.get(key, b"") + text
            self._changed.notify_all()

    async def end(self, attempt: int) -> None:
        """End an attempt's program."""
        async with self._changed:
            self._ended.add(submission_id_of("job-1", attempt))
            self._changed.notify_all()

    async def break_all(self) -> None:
        """Have all open streams fail."""
        async with self._changed:
            self._num_breaks += 1
            self._changed.notify_all()

    async def stream(self, submission_id: str, *, tail: int | None, follow: bool) -> AsyncGenerator[bytes]:
        """See `JobLogs.stream`."""
        assert tail is None
        if submission_id not in self._texts:
            raise NotFoundError("there is no such log")
        num_breaks, sent = self._num_breaks, 0
        self.num_open += 1
        self.num_follows += follow
        try:
            while True:
                if self._num_breaks > num_breaks:
                    raise CapacityError("the connection broke")
                text = self._texts[submission_id][sent : sent + 7]
                sent += len(text)
                if text:
                    yield text
                elif not follow or submission_id in self._ended:
                    return
                else:
                    async with self._changed:
                        await self._changed.wait()
        finally:
            self.num_open -= 1


@pytest.fixture
def logs() -> GrowingLogs:
    return GrowingLogs()


@pytest.fixture
def backends(settings: Settings, tracker: InProcessTracker, logs: GrowingLogs) -> Backends:
    tracker.put(dataset_record(), job_record(status=JobStatus.RUNNING, attempt=1))
    return fake_backends(settings, tracker=tracker, job_logs=logs)


@pytest.fixture
def hub(backends: Backends) -> LiveHub:
    hub = LiveHub(backends, INTERVAL_S)
    hub.log_feeds = LogFeeds(backends, INTERVAL_S)
    return hub


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, LIMIT_S))


def numbered(updates: list[Update]) -> list[tuple[int, int, str]]:
    """Attempt, number and text of all lines."""
    found = []
    for each in updates:
        if each.name == "log":
            data = json.loads(each.data)
            found += [(data["attempt"], data["first_line"] + n, text) for n, text in enumerate(data["lines"])]
    return found


async def until_line(updates: Updates, text: str) -> list[Update]:
    """Updates up to the one with a line."""
    found: list[Update] = []
    while not any(line == text for _, _, line in numbered(found)):
        found += await anext(updates)
    return found


async def rest_of(updates: Updates) -> list[Update]:
    return [each async for some in updates for each in some]


async def finish(tracker: InProcessTracker, logs: GrowingLogs, attempt: int = 1) -> None:
    """End the job, and its program after it."""
    await tracker.cancel_job("job-1")
    await asyncio.sleep(3 * INTERVAL_S)
    await logs.write(attempt, b"the last words\nwithout an end")
    await logs.end(attempt)


def test_new_lines_come_and_the_last_ones_are_waited_for(
    backends: Backends, tracker: InProcessTracker, hub: LiveHub, logs: GrowingLogs
) -> None:
    async def listen() -> list[Update]:
        await logs.write(1, b"old\nolder\nhal")
        updates = job_updates(backends, hub, "job-1", Wish())
        found = await anext(updates)
        await hub.log_feeds._feeds["job-1"].is_caught_up.wait()
        rest = asyncio.create_task(rest_of(updates))
        await logs.write(1, b"f\r\nnew\n")
        await finish(tracker, logs)
        return found + await rest

    found = run(listen())
    assert numbered(found) == [
        (1, 3, "half"), (1, 4, "new"), (1, 5, "the last words"), (1, 6, "without an end"),
    ]  # fmt: skip
    assert found[-1].name == "end"
    assert (hub.log_feeds.num_feeds, logs.num_open) == (0, 0)


@pytest.mark.parametrize("seed", range(6))
def test_reconnects_lose_and_repeat_no_line(
    backends: Backends, tracker: InProcessTracker, hub: LiveHub, logs: GrowingLogs, seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    chance = random.Random(seed)
    monkeypatch.setattr(log_feeds_module, "MAX_RECENT_LINES", chance.choice([3, 1000]))
    written: list[tuple[int, int, str]] = []

    async def print_on() -> None:
        for attempt in (1, 2):
            if attempt == 2:
                # The connection to a node goes with the node.
                await logs.end(1)
                tracker.put(job_record(id="job-1", status=JobStatus.RUNNING, attempt=2))
            for number in range(1, 16):
                written.append((attempt, number, f"attempt {attempt} line {number}"))
                await logs.write(attempt, f"attempt {attempt} line {number}\n".encode())
                if chance.random() < 0.2:
                    await logs.break_all()
                await asyncio.sleep(chance.choice([0, 0, INTERVAL_S]))
        await tracker.cancel_job("job-1")
        await logs.end(2)

    async def listen() -> list[Update]:
        printing = asyncio.create_task(print_on())
        found: list[Update] = []
        last_id = "0.0.0.0"
        while not found or found[-1].name != "end":
            updates = job_updates(backends, hub, "job-1", Wish(last_id))
            try:
                for _ in range(chance.randint(1, 5)):
                    some: list[Update] = await anext(updates, [])
                    found += some
                    last_id = next((each.id for each in reversed(some) if each.id), last_id)
            except CapacityError:
                pass  # of a log that is read again for one who comes back
            finally:
                await updates.aclose()
            await asyncio.sleep(chance.choice([0, INTERVAL_S]))
        await printing
        return found

    assert numbered(run(listen())) == written
    assert logs.num_open == 0


def test_many_listeners_follow_one_log(
    backends: Backends, tracker: InProcessTracker, hub: LiveHub, logs: GrowingLogs
) -> None:
    async def listen() -> list[list[Update]]:
        await logs.write(1, b"before\n")
        streams = [job_updates(backends, hub, "job-1", Wish("0.0.0.0")) for _ in range(50)]
        heard = await asyncio.gather(*(until_line(stream, "before") for stream in streams))
        assert logs.num_follows == 1
        rest = [asyncio.create_task(rest_of(stream)) for stream in streams]
        await finish(tracker, logs)
        return [first + last for first, last in zip(heard, await asyncio.gather(*rest), strict=True)]

    found = run(listen())
    assert {tuple(text for _, _, text in numbered(each)) for each in found} == {
        ("before", "the last words", "without an end")
    }
    assert (logs.num_follows, logs.num_open) == (1, 0)


@pytest.mark.parametrize(("tail", "first"), [(0, 9), (1, 8), (5, 4), (100, 1)])
def test_as_many_of_the_last_lines_as_are_asked_for(
    backends: Backends, tracker: InProcessTracker, hub: LiveHub, logs: GrowingLogs, tail: int, first: int
) -> None:
    async def listen() -> list[Update]:
        await logs.write(1, b"".join(b"line %d\n" % number for number in range(1, 9)))
        updates = job_updates(backends, hub, "job-1", Wish(tail=tail))
        found = await until_line(updates, "line 8") if tail else await anext(updates)
        await hub.log_feeds._feeds["job-1"].is_caught_up.wait()
        rest = asyncio.create_task(rest_of(updates))
        await finish(tracker, logs)
        return found + await rest

    lines = numbered(run(listen()))
    assert [number for _, number, _ in lines] == list(range(first, 11))
    assert lines[-1] == (1, 10, "without an end")


def test_logs_are_left_out_on_request(
    backends: Backends, tracker: InProcessTracker, hub: LiveHub, logs: GrowingLogs
) -> None:
    async def listen() -> list[Update]:
        await logs.write(1, b"a line\n")
        updates = job_updates(backends, hub, "job-1", Wish("0.0", logs=False))
        found = await anext(updates)
        await tracker.cancel_job("job-1")
        return found + await rest_of(updates)

    assert {each.name for each in run(listen())} == {"status", "event", "end"}
    assert logs.num_follows == 0


def test_a_log_that_was_kept_goes_on_behind_a_place(
    backends: Backends, tracker: InProcessTracker, hub: LiveHub, logs: GrowingLogs
) -> None:
    """Also where its middle was left out, lines have the numbers that they had."""
    kept = KeptLog(120)
    for number in range(1, 101):
        kept.add(b"line %d\n" % number)
    backends.storage.write_bytes(attempt_log_key("job-1", 1), kept.content())
    run(tracker.cancel_job("job-1"))
    updates = job_updates(backends, hub, "job-1", Wish("0.0.1.5"))
    first, *others = numbered(run(rest_of(updates)))
    assert first == (1, 6, "line 6")
    words = next(each for each in others if "left out here" in each[2])
    assert all(text == f"line {number}" for _, number, text in others if (1, number, text) != words)
    assert others[-1] == (1, 100, "line 100")


def test_a_listener_that_lags_is_let_go(backends: Backends, hub: LiveHub, logs: GrowingLogs) -> None:
    async def listen() -> list[Update]:
        updates = job_updates(backends, hub, "job-1", Wish("0.0.0.0"))
        await logs.write(1, b"line 0\n")
        found = await until_line(updates, "line 0")
        (listener,) = hub._listeners
        number = 0
        while not listener.is_lagging:
            number += 1
            await logs.write(1, b"line %d\n" % number)
            await asyncio.sleep(0)
        found += await rest_of(updates)
        return found

    found = run(listen())
    assert found[-1].name == "lagging"
    assert [number for _, number, _ in numbered(found)] == list(range(1, len(numbered(found)) + 1))


def test_a_long_log_that_was_there_makes_nobody_lag(
    backends: Backends, tracker: InProcessTracker, hub: LiveHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listeners hear the end of a job with more lines than may wait for them."""
    monkeypatch.setattr(hub_module, "MAX_WAITING", 3)
    num_lines = 10 * MAX_LINES
    text = b"".join(b"line %d\n" % number for number in range(1, num_lines + 1))
    backends.storage.write_bytes(attempt_log_key("job-1", 1), text)
    run(tracker.cancel_job("job-1"))
    assert run(rest_of(job_updates(backends, hub, "job-1", Wish())))[-1].name == "end"
    found = run(rest_of(job_updates(backends, hub, "job-1", Wish("0.0.0.0"))))
    assert found[-1].name == "end"
    assert [number for _, number, _ in numbered(found)] == list(range(1, num_lines + 1))


class TestSplitter:
    def test_lines_have_numbers_wherever_chunks_end(self) -> None:
        text = b"first\n\nthird \xc3\xa4\xff\nfourth"
        for size in range(1, len(text)):
            splitter = LineSplitter(2)
            found = [each for start in range(0, len(text), size) for each in splitter.add(text[start : start + size])]
            found += splitter.finish()
            assert [(each.attempt, each.first + n, line) for each in found for n, line in enumerate(each.texts)] == [
                (2, 1, "first"), (2, 2, ""), (2, 3, "third ä\ufffd"), (2, 4, "fourth"),
            ]  # fmt: skip

    def test_a_long_line_says_how_much_of_it_is_missing(self) -> None:
        (lines,) = LineSplitter(1).add(b"x" * (MAX_LINE_BYTES + 5) + b"\n")
        assert lines.texts[0].endswith("x... [5 more bytes]")

    def test_a_line_without_an_end_is_bounded(self) -> None:
        splitter = LineSplitter(1)
        for _ in range(100):
            assert splitter.add(b"x" * MAX_LINE_BYTES) == []
        (lines,) = splitter.add(b"\nnext\n")
        assert lines.texts[0].endswith(f"... [{99 * MAX_LINE_BYTES} more bytes]")
        assert lines.texts[1] == "next"

    def test_credentials_are_hidden(self) -> None:
        (lines,) = LineSplitter(1).add(b"postgresql://ada:secret@db/jobs\n")  # kingfisher:ignore
        assert lines.texts == ("postgresql://[hidden]@db/jobs",)

    @pytest.mark.parametrize(
        ("place", "expected"),
        [
            (LinePlace(0, 9), LogLines(2, 3, ("a", "b"))),
            (LinePlace(2, 0), LogLines(2, 3, ("a", "b"))),
            (LinePlace(2, 3), LogLines(2, 4, ("b",))),
            (LinePlace(2, 4), None),
            (LinePlace(3, 0), None),
        ],
    )
    def test_lines_behind_a_place(self, place: LinePlace, expected: LogLines | None) -> None:
        assert LogLines(2, 3, ("a", "b")).behind(place) == expected
