"""Answers that stay open: who hears them is looked at again and again, and not only when they begin."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar, cast

from fastapi.requests import HTTPConnection

from sienn_ray.access.principals import EVERYBODY, NOBODY, Principal
from sienn_ray.api.access.callers import PRINCIPAL
from sienn_ray.api.access.credentials import Credentials
from sienn_ray.errors import CapacityError, InvalidTokenError

# Between two looks, most of which ask nobody. With the time that keys are remembered for, it makes five seconds.
INTERVAL_S = 1.0

T = TypeVar("T")


async def while_allowed(connection: HTTPConnection, items: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """The items of a stream, for as long as its listener's credentials stand for the same caller.

    While nobody can say, as while the tracker is away, the stream goes on.

    Args:
        connection: The listener's request, or its WebSocket.
        items: The stream, which ends with this one.

    Raises:
        UnauthorizedError: The key was revoked, the session ended, the token expired, or it may less than it might.
    """
    principal: Principal = connection.scope.get("state", {}).get(PRINCIPAL, NOBODY)
    async with aclosing(items):
        if principal is EVERYBODY or principal is NOBODY:
            async for item in items:
                yield item
            return
        watch = _Watch(connection, principal)
        watching = asyncio.create_task(watch.run())
        try:
            while True:
                try:
                    async with watch.waiting():
                        item = await anext(items)
                except StopAsyncIteration:
                    return
                yield item
        finally:
            watching.cancel()


class _Watch:
    """Looks at a caller's credentials regularly, and interrupts the wait for what they mustn't hear any more.

    Args:
        connection: Has the credentials.
        principal: Whom they stood for.
    """

    def __init__(self, connection: HTTPConnection, principal: Principal) -> None:
        self._scope = connection.scope
        self._credentials = cast(Credentials, connection.app.state.credentials)
        self._principal = principal
        self._fault: Exception | None = None
        self._wait: asyncio.Timeout | None = None

    @contextlib.asynccontextmanager
    async def waiting(self) -> AsyncGenerator[None]:
        """Wait in the block until a fault is found; raises that, also where it was found before."""
        if self._fault is not None:
            raise self._fault
        try:
            async with asyncio.timeout(None) as self._wait:
                yield
        except TimeoutError:
            if self._fault is None:
                raise
            raise self._fault from None
        finally:
            self._wait = None

    async def run(self) -> None:
        """Look until there is a fault."""
        while self._fault is None:
            await asyncio.sleep(INTERVAL_S)
            try:
                await self._look()
            except CapacityError:
                continue
            except Exception as error:  # raised where the stream is waited for
                self._fault = error
        if self._wait is not None:
            self._wait.reschedule(asyncio.get_running_loop().time())

    async def _look(self) -> None:
        now = await self._credentials.principal_again(self._scope)
        if now.owner != self._principal.owner or not now.scopes >= self._principal.scopes:
            raise InvalidTokenError("this was opened by who might do more, or by somebody else; open it again")
