"""Blocking work in threads that is never left alone, even when the request that asked for it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


async def run_to_end(
    executor: Executor,
    function: Callable[..., T],
    *args: object,
    on_cancel: Callable[[Future[T]], None] | None = None,
) -> T:
    """Run a function in a thread; a caller that is cancelled continues only when the thread is done with it.

    Else the thread would still be at files that the caller closes and deletes.

    Args:
        executor: Whose threads.
        function: What to run.
        args: Its arguments.
        on_cancel: Called when the caller is cancelled, to have the thread end sooner.
    """
    job = executor.submit(function, *args)
    waiting = asyncio.wrap_future(job)
    is_cancelled = False
    while not waiting.done():
        try:
            await asyncio.wait({waiting})
        except asyncio.CancelledError:
            is_cancelled = True
            if on_cancel:
                on_cancel(job)
    if is_cancelled:
        if not waiting.cancelled():
            waiting.exception()  # looked at, so that asyncio doesn't report it as lost
        raise asyncio.CancelledError
    return waiting.result()


@asynccontextmanager
async def entered(executor: Executor, context: AbstractContextManager[T]) -> AsyncIterator[T]:
    """Enter and leave a blocking context manager without holding up other requests."""
    leave: Any = context.__exit__
    try:
        value = await run_to_end(executor, context.__enter__)
    except asyncio.CancelledError as error:
        await run_to_end(executor, leave, type(error), error, None)
        raise
    try:
        yield value
    except BaseException as error:
        await run_to_end(executor, leave, type(error), error, error.__traceback__)
        raise
    await run_to_end(executor, leave, None, None, None)
