from __future__ import annotations

import asyncio

from deployments.pieces import Pieces
from sienn_ray.errors import EngineError
from sienn_ray.inference.engine import GenerationDelta, TokenLogprob

LONG_S = 3600.0


def delta(text: str) -> GenerationDelta:
    return GenerationDelta(text, (TokenLogprob(1, text, text.encode(), -0.5),))


def texts(*deltas: GenerationDelta) -> list[str]:
    return [each.text for each in deltas]


def test_each_piece_is_given_as_it_comes() -> None:
    async def scenario() -> None:
        pieces = Pieces(0.0)
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
        pieces = Pieces(0.0)
        for text in ("a", "b", "c"):
            pieces.put(delta(text))
        piece = await pieces.next()
        assert piece.text == "abc"
        assert [each.token for each in piece.logprobs] == ["a", "b", "c"]
        assert not piece.is_last

    asyncio.run(scenario())


def test_pieces_within_the_interval_are_held_back_and_its_end_is_not_waited_for_at_the_last() -> None:
    async def scenario() -> None:
        pieces = Pieces(LONG_S)
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
        pieces = Pieces(0.01)
        pieces.put(delta("a"))
        await pieces.next()
        pieces.put(delta("b"))
        assert texts(await asyncio.wait_for(pieces.next(), 60.0)) == ["b"]

    asyncio.run(scenario())
