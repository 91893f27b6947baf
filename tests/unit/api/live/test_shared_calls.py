"""Equal questions that many ask at a time: one call answers them, and none gets an answer older than its question."""

from __future__ import annotations

import asyncio

import pytest

from sienn_ray.api.live.shared_calls import SharedCalls
from sienn_ray.errors import CapacityError


class Source:
    """Answers with the number of the call, each when a test lets it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.has_begun, self.let_go = asyncio.Event(), asyncio.Event()

    async def __call__(self, question: str) -> int:
        self.asked.append(question)
        number = len(self.asked)
        self.has_begun.set()
        await self.let_go.wait()
        if self.error is not None:
            raise self.error
        return number


async def _begun(source: Source, *tasks: asyncio.Task[int]) -> None:
    await source.has_begun.wait()
    for _ in tasks:
        await asyncio.sleep(0)


def test_two_calls_answer_hundreds() -> None:
    async def run() -> None:
        source = Source()
        calls = SharedCalls(source)
        first = asyncio.create_task(calls.ask("a"))
        await _begun(source)
        others = [asyncio.create_task(calls.ask("a")) for _ in range(300)]
        await asyncio.sleep(0)
        source.let_go.set()
        assert await first == 1
        # They asked after the first call had begun, which may have read before.
        assert set(await asyncio.gather(*others)) == {2}
        assert source.asked == ["a", "a"]

    asyncio.run(run())


def test_who_asks_later_gets_a_later_answer() -> None:
    async def run() -> None:
        source = Source()
        source.let_go.set()
        calls = SharedCalls(source)
        assert [await calls.ask("a") for _ in range(3)] == [1, 2, 3]

    asyncio.run(run())


def test_other_questions_do_not_wait() -> None:
    async def run() -> None:
        source = Source()
        calls = SharedCalls(source)
        answers = [asyncio.create_task(calls.ask(question)) for question in "ab"]
        await _begun(source, *answers)
        assert source.asked == ["a", "b"]
        source.let_go.set()
        assert await asyncio.gather(*answers) == [1, 2]

    asyncio.run(run())


def test_who_leaves_does_not_end_it_for_others() -> None:
    async def run() -> None:
        source = Source()
        calls = SharedCalls(source)
        first = asyncio.create_task(calls.ask("a"))
        await _begun(source)
        leaves, stays = (asyncio.create_task(calls.ask("a")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        leaves.cancel()
        await asyncio.sleep(0)
        source.let_go.set()
        assert await stays == 2

    asyncio.run(run())


def test_failure_is_told_to_all_who_asked_and_not_to_those_behind() -> None:
    async def run() -> None:
        source = Source()
        source.error = CapacityError("the job tracker is away; try again in a moment")
        calls = SharedCalls(source)
        first = asyncio.create_task(calls.ask("a"))
        await _begun(source)
        second = asyncio.create_task(calls.ask("a"))
        await asyncio.sleep(0)
        source.let_go.set()
        for each in (first, second):
            with pytest.raises(CapacityError):
                await each
        source.error = None
        assert await calls.ask("a") == 3

    asyncio.run(run())
