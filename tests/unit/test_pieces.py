from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from deployments.pieces import Deliveries, Pace, Pieces, at_the_end
from sienn_ray.errors import EngineError
from sienn_ray.inference.engine import GenerationDelta, TokenLogprob

LONG_S = 3600.0


def delta(text: str) -> GenerationDelta:
    return GenerationDelta(text, (TokenLogprob(1, text, text.encode(), -0.5),))


def texts(*deltas: GenerationDelta) -> list[str]:
    return [each.text for each in deltas]


def test_each_piece_is_given_as_it_comes() -> None:
    async def scenario() -> None:
        pieces = Pieces(lambda: 0.0)
        pieces.put(delta("a"))
        assert await pieces.next() == delta("a")
        waiting = asyncio.ensure_future(pieces.next())
        await asyncio.sleep(0)
        assert not waiting.done()
        pieces.put(delta("b"))
        assert await waiting == delta("b")

    asyncio.run(scenario())


def test_what_came_in_the_meantime_is_one_piece() -> None:
    async def scenario() -> None:
        pieces = Pieces(lambda: 0.0)
        for text in ("a", "b", "c"):
            pieces.put(delta(text))
        piece = await pieces.next()
        assert piece.text == "abc"
        assert [each.token for each in piece.logprobs] == ["a", "b", "c"]
        assert not piece.is_last

    asyncio.run(scenario())


@pytest.mark.parametrize("interval_s", [lambda: LONG_S, at_the_end])
def test_pieces_within_the_interval_are_held_back_and_its_end_is_not_waited_for_at_the_last(
    interval_s: Callable[[], float],
) -> None:
    async def scenario() -> None:
        pieces = Pieces(interval_s)
        pieces.put(delta("a"))
        assert texts(await pieces.next()) == ["a"]  # the first one doesn't wait
        pieces.put(delta("b"))
        waiting = asyncio.ensure_future(pieces.next())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        error = EngineError("lost")
        pieces.put(GenerationDelta("c", error=error))
        last = await asyncio.wait_for(waiting, 60.0)
        assert (last.text, last.error, last.is_last) == ("bc", error, True)

    asyncio.run(scenario())


def test_a_piece_comes_when_the_interval_is_over() -> None:
    async def scenario() -> None:
        pieces = Pieces(lambda: 0.01)
        pieces.put(delta("a"))
        await pieces.next()
        pieces.put(delta("b"))
        assert texts(await asyncio.wait_for(pieces.next(), 60.0)) == ["b"]

    asyncio.run(scenario())


class TestPace:
    @pytest.mark.parametrize(("num_streams", "interval_s"), [(1, 1 / 12), (12, 1.0), (24, 2.0)])
    def test_streams_on_cpus_share_what_pieces_there_are(self, num_streams: int, interval_s: float) -> None:
        pace = Pace(None, num_cpus=2)
        with ExitStack() as stack:
            intervals = [stack.enter_context(pace.stream()) for _ in range(num_streams)]
            assert [each() for each in intervals] == [pytest.approx(interval_s)] * num_streams

    def test_those_that_have_ended_take_none(self) -> None:
        pace = Pace(None, num_cpus=1)
        with pace.stream() as interval_s:
            with pace.stream():
                assert interval_s() == pytest.approx(2 / 6)
            assert interval_s() == pytest.approx(1 / 6)

    @pytest.mark.parametrize("num_cpus", [None, 2])
    def test_an_interval_that_was_chosen_holds(self, num_cpus: int | None) -> None:
        with Pace(0.5, num_cpus).stream() as interval_s:
            assert interval_s() == 0.5

    @pytest.mark.parametrize(("num_streams", "interval_s"), [(1, 0.002), (64, 0.128)])
    def test_streams_of_a_gpu_share_what_its_ingress_can_pass_on(self, num_streams: int, interval_s: float) -> None:
        pace = Pace(None, num_cpus=None)
        with ExitStack() as stack:
            intervals = [stack.enter_context(pace.stream()) for _ in range(num_streams)]
            assert [each() for each in intervals] == [pytest.approx(interval_s)] * num_streams


class CountingLoop(asyncio.SelectorEventLoop):
    """An event loop that counts how often another thread woke it."""

    num_wakes = 0

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> asyncio.Handle:  # type: ignore[override]
        self.num_wakes += 1
        return super().call_soon_threadsafe(*args, **kwargs)


def test_all_deltas_of_a_step_wake_the_loop_once() -> None:
    loop = CountingLoop()
    deliveries, streams = Deliveries(loop), [Pieces(lambda: 0.0) for _ in range(3)]

    async def fetched() -> list[str]:
        return texts(*[await pieces.next() for pieces in streams])

    try:
        for step in ("a", "b"):
            for pieces in streams:
                deliveries.put(pieces, delta(step))
            assert loop.run_until_complete(fetched()) == [step] * 3
        assert loop.num_wakes == 2
    finally:
        loop.close()


def test_deltas_of_many_threads_all_arrive_in_their_order() -> None:
    async def scenario() -> None:
        deliveries, streams = Deliveries(asyncio.get_running_loop()), [Pieces(lambda: 0.0) for _ in range(4)]

        def step(pieces: Pieces) -> None:
            for number in range(200):
                deliveries.put(pieces, GenerationDelta(f"{number} "))
            deliveries.put(pieces, GenerationDelta(error=EngineError("the end")))

        async def whole(pieces: Pieces) -> str:
            text = ""
            while not (piece := await pieces.next()).is_last:
                text += piece.text
            return text + piece.text

        threads = [threading.Thread(target=step, args=(pieces,)) for pieces in streams]
        for thread in threads:
            thread.start()
        found = await asyncio.wait_for(asyncio.gather(*map(whole, streams)), 60.0)
        assert found == ["".join(f"{number} " for number in range(200))] * 4

    asyncio.run(scenario())


def test_a_piece_of_several_deltas_still_tells_that_the_answer_begins_in_reasoning() -> None:
    async def scenario() -> None:
        pieces = Pieces(lambda: 0.0)
        for text in ("Let", " me"):
            pieces.put(GenerationDelta(text, begins_in_reasoning=True))
        assert (await pieces.next()).begins_in_reasoning

    asyncio.run(scenario())
