"""The service's numbers for all listeners of a replica: one reading for each owner, however many listen."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends
from fastapi.requests import HTTPConnection

from sienn_ray.api.live.updates import Update, Updates
from sienn_ray.api.schemas.common import ResponseBody

METRICS_S = 5.0

Read = Callable[[], Awaitable[ResponseBody]]


@dataclass
class _Readings:
    """The readings of one owner."""

    num_listeners: int = 0
    last: asyncio.Task[Update] | None = None
    begun_at: float = 0.0


class SharedNumbers:
    """Reads numbers while anybody listens, and hands each reading to all listeners of its owner.

    Args:
        interval_s: Seconds between two readings.
        clock: Seconds.
    """

    def __init__(self, interval_s: float = METRICS_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._owners: dict[str | None, _Readings] = {}

    @property
    def num_owners(self) -> int:
        """Owners of whom somebody listens."""
        return len(self._owners)

    async def updates(self, owner: str | None, read: Read) -> Updates:
        """Tell numbers every few seconds, without an end.

        Args:
            owner: Whose numbers; None is everybody's. All who name an owner have to read the same.
            read: Reads them.
        """
        async with self._listening(owner) as readings:
            while True:
                yield [await self._latest(readings, read)]
                await asyncio.sleep(self._interval_s)

    @contextlib.asynccontextmanager
    async def _listening(self, owner: str | None) -> AsyncIterator[_Readings]:
        readings = self._owners.setdefault(owner, _Readings())
        readings.num_listeners += 1
        try:
            yield readings
        finally:
            readings.num_listeners -= 1
            if readings.num_listeners == 0:
                del self._owners[owner]
                if readings.last is not None:
                    readings.last.cancel()

    async def _latest(self, readings: _Readings, read: Read) -> Update:
        """Wait for a reading that is under way or not old, or else for a new one."""
        now = self._clock()
        if readings.last is None or _has_failed(readings.last) or now - readings.begun_at >= self._interval_s:
            readings.last, readings.begun_at = asyncio.create_task(_reading(read)), now
        last = readings.last
        await asyncio.wait({last})  # who leaves meanwhile doesn't end it for others
        return last.result()


async def _reading(read: Read) -> Update:
    return Update("metrics", (await read()).model_dump_json())


def _has_failed(task: asyncio.Task[Update]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _shared_numbers(connection: HTTPConnection) -> SharedNumbers:
    return cast(SharedNumbers, connection.app.state.shared_numbers)


SharedNumbersDep = Annotated[SharedNumbers, Depends(_shared_numbers)]
