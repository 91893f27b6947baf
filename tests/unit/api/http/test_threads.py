from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from sienn_ray.api.http.threads import entered, run_to_end


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def test_result_and_error_come_back(executor: ThreadPoolExecutor) -> None:
    def fail() -> None:
        raise KeyError("no")

    assert asyncio.run(run_to_end(executor, divmod, 7, 2)) == (3, 1)
    with pytest.raises(KeyError, match="no"):
        asyncio.run(run_to_end(executor, fail))


def test_cancelled_caller_waits_for_its_thread(executor: ThreadPoolExecutor) -> None:
    started, go_on, is_done = threading.Event(), threading.Event(), False

    def work() -> None:
        nonlocal is_done
        started.set()
        assert go_on.wait(30)
        is_done = True

    async def test() -> None:
        task = asyncio.create_task(run_to_end(executor, work))
        await asyncio.to_thread(started.wait, 30)
        for _ in range(3):  # however often it is cancelled
            task.cancel()
            await asyncio.sleep(0.01)
            assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert is_done

    asyncio.run(test())


def test_job_that_has_not_begun_can_be_called_off(executor: ThreadPoolExecutor) -> None:
    go_on = threading.Event()
    calls: list[object] = []

    def call_off(job: Future[Any]) -> None:
        job.cancel()

    async def test() -> None:
        first = asyncio.create_task(run_to_end(executor, go_on.wait, 30))
        second = asyncio.create_task(run_to_end(executor, calls.append, 1, on_cancel=call_off))
        await asyncio.sleep(0.01)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        go_on.set()
        assert await first is True

    asyncio.run(test())
    assert calls == []


class Log:
    """A context manager that blocks on its way in and writes down how it is left."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.left_with: list[str] = []

    @contextmanager
    def open(self) -> Iterator[int]:
        assert self.go_on.wait(30)
        try:
            yield 3
        except BaseException as error:
            self.left_with.append(type(error).__name__)
            raise
        self.left_with.append("nothing")


def test_context_is_left_as_its_block_ends(executor: ThreadPoolExecutor) -> None:
    log = Log()
    log.go_on.set()

    async def test(error: Exception | None) -> None:
        async with entered(executor, log.open()) as value:
            assert value == 3
            if error:
                raise error

    asyncio.run(test(None))
    with pytest.raises(ValueError, match="bad"):
        asyncio.run(test(ValueError("bad")))
    assert log.left_with == ["nothing", "ValueError"]


def test_context_is_left_when_the_caller_is_cancelled_on_its_way_in(executor: ThreadPoolExecutor) -> None:
    log = Log()

    async def enter() -> None:
        async with entered(executor, log.open()):
            raise AssertionError("the block must not run")

    async def test() -> None:
        task = asyncio.create_task(enter())
        await asyncio.sleep(0.02)
        task.cancel()
        log.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(test())
    assert log.left_with == ["CancelledError"]
