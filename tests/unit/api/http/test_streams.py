from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from starlette.requests import ClientDisconnect, Request

from sienn_ray.api.http.streams import StartedStream, gathered, merged, unless_gone


class Source:
    """A stream of some letters, that then hangs, ends or fails; it knows whether it is closed."""

    def __init__(self, letters: str, *, hangs: bool = False, error: Exception | None = None) -> None:
        self._letters, self._hangs, self._error = letters, hangs, error
        self.is_closed = False

    async def stream(self) -> AsyncGenerator[str]:
        try:
            for letter in self._letters:
                yield letter
            if self._error is not None:
                raise self._error
            if self._hangs:
                await asyncio.Event().wait()
        finally:
            self.is_closed = True


async def taken(sources: list[Source], most: int = 100) -> list[tuple[int, str]]:
    stream = merged([source.stream() for source in sources])
    found: list[tuple[int, str]] = []
    try:
        async for item in stream:
            found.append(item)
            if len(found) == most:
                break
    finally:
        await stream.aclose()
    return found


def test_merged_has_every_item_in_the_order_of_its_stream() -> None:
    found = asyncio.run(taken([Source("abc"), Source(""), Source("xy")]))
    assert "".join(item for place, item in found if place == 0) == "abc"
    assert "".join(item for place, item in found if place == 2) == "xy"
    assert len(found) == 5
    assert [place for place, _ in found[:4]] == [0, 2, 0, 2]


def test_merged_goes_on_while_one_is_silent() -> None:
    sources = [Source("", hangs=True), Source("xyz")]
    assert asyncio.run(taken(sources, most=3)) == [(1, "x"), (1, "y"), (1, "z")]
    assert [source.is_closed for source in sources] == [True, True]


def test_error_of_one_stream_closes_the_others() -> None:
    sources = [Source("a", hangs=True), Source("x", error=ValueError("of the second"))]
    with pytest.raises(ValueError, match="of the second"):
        asyncio.run(taken(sources))
    assert [source.is_closed for source in sources] == [True, True]


def test_merged_can_be_cancelled_while_it_waits() -> None:
    sources = [Source("", hangs=True), Source("", hangs=True)]

    async def wait_for_a_moment() -> None:
        async with asyncio.timeout(0.05):
            await taken(sources)

    with pytest.raises(TimeoutError):
        asyncio.run(wait_for_a_moment())
    assert [source.is_closed for source in sources] == [True, True]


def test_gathered_cancels_the_others_when_one_fails() -> None:
    is_cancelled = False

    async def wait() -> int:
        nonlocal is_cancelled
        try:
            return await asyncio.Event().wait()
        except asyncio.CancelledError:
            is_cancelled = True
            raise

    async def fail() -> int:
        await asyncio.sleep(0)
        raise ValueError("too bad")

    async def run() -> list[int]:
        return await gathered([wait(), fail()])

    with pytest.raises(ValueError, match="too bad"):
        asyncio.run(run())
    assert is_cancelled


def test_begun_gives_its_first_item_first_and_can_be_closed_before_it() -> None:
    source = Source("ab", hangs=True)

    async def run() -> list[str]:
        stream = source.stream()
        begun = StartedStream(await anext(stream), stream)
        found = [await anext(begun), await anext(begun)]
        await begun.aclose()
        return found

    assert asyncio.run(run()) == ["a", "b"]
    assert source.is_closed


def request_with(*messages: str) -> Request:
    """A request whose server has these messages, and then none for ever."""
    pending = list(messages)

    async def receive() -> dict[str, str]:
        if not pending:
            await asyncio.Event().wait()
        return {"type": pending.pop(0)}

    return Request({"type": "http"}, receive)


def test_work_is_cancelled_when_the_client_goes() -> None:
    source = Source("", hangs=True)

    async def run() -> None:
        await unless_gone(request_with("http.request", "http.disconnect"), anext(source.stream()))

    with pytest.raises(ClientDisconnect):
        asyncio.run(run())
    assert source.is_closed


def test_work_ends_with_its_result_or_its_error_while_the_client_waits() -> None:
    async def run(source: Source) -> str:
        return await unless_gone(request_with(), anext(source.stream()))

    assert asyncio.run(run(Source("a"))) == "a"
    with pytest.raises(ValueError, match="its own"):
        asyncio.run(run(Source("", error=ValueError("its own"))))
