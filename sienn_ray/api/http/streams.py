"""Several streams or coroutines at the same time, all of which are cancelled once nobody waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Collection, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from starlette.requests import ClientDisconnect, Request

T = TypeVar("T")


class StartedStream(AsyncIterator[T], Generic[T]):
    """A stream whose first item has come, so that it is known to work.

    Args:
        first: That item.
        rest: The stream behind it.
    """

    def __init__(self, first: T, rest: AsyncGenerator[T]) -> None:
        self._first = [first]
        self._rest = rest

    async def __anext__(self) -> T:
        return self._first.pop() if self._first else await anext(self._rest)

    async def aclose(self) -> None:
        """End the stream, wherever it is."""
        await self._rest.aclose()


async def merged(streams: Sequence[AsyncGenerator[T]]) -> AsyncGenerator[tuple[int, T]]:
    """The items of several streams as they come, each with its stream's place.

    Whatever ends this one, be it an error of one of them, ends all of them.
    """
    pending = {_next_of(stream): place for place, stream in enumerate(streams)}
    try:
        while pending:
            done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for item in sorted(done, key=lambda each: pending[each]):
                place = pending.pop(item)
                if isinstance(item.exception(), StopAsyncIteration):
                    continue
                yield place, item.result()
                pending[_next_of(streams[place])] = place
    finally:
        await _cancel(pending)
        for stream in streams:
            await stream.aclose()


def _next_of(stream: AsyncGenerator[T]) -> asyncio.Future[T]:
    return asyncio.ensure_future(anext(stream))


async def unless_silent(items: AsyncGenerator[T], longest_s: float) -> AsyncGenerator[T]:
    """The items of a stream, for as long as they keep coming.

    Args:
        items: The stream, which ends with this one.
        longest_s: Longest wait for one item.

    Raises:
        TimeoutError: None has come for so long.
    """
    async with aclosing(items):
        while True:
            try:
                async with asyncio.timeout(longest_s):
                    item = await anext(items)
            except StopAsyncIteration:
                return
            yield item


async def gathered(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines at the same time, and return their results. The first error cancels the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await _cancel(tasks)


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Wait for a result, and cancel the work when the client disconnects before.

    Args:
        request: The client's request, whose body has been read.
        work: What the client waits for.

    Raises:
        ClientDisconnect: The client has gone.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        await _cancel([task, gone])


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _cancel(tasks: Collection[asyncio.Future[Any]]) -> None:
    """Cancel what still runs, and wait until it has cleaned up."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
