"""News of jobs for all listeners of a replica: one question to the tracker, however many listen."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, cast

from fastapi import Depends
from fastapi.requests import HTTPConnection

from sienn_ray.api.deps import Backends
from sienn_ray.api.live.items import EventItem, GoneItem, Item, PointItem, StatusItem
from sienn_ray.api.live.log_feeds import LogFeeds
from sienn_ray.api.live.shared_calls import SharedCalls
from sienn_ray.errors import CapacityError
from sienn_ray.jobs.news_schema import News, NewsCursor, NewsQuery
from sienn_ray.jobs.schema import JobRecord

logger = logging.getLogger(__name__)

# Between two questions; a listener is told within a second.
INTERVAL_S = 0.5
# What may wait for one listener. One that takes nothing for so long is let go, and can come back with its place.
MAX_WAITING = 500
_JOIN_TIMEOUT_S = 30.0


class Listener:
    """A listener, with what waits for it.

    Args:
        job_id: The job that it watches; None takes the events of all jobs.
        owner: Whose jobs those are; None takes everybody's.
    """

    def __init__(self, job_id: str | None, owner: str | None) -> None:
        self.job_id = job_id
        self._owner = owner
        self._waiting: asyncio.Queue[Item] = asyncio.Queue()
        self.is_lagging = False
        # Set once what comes from now on is sure to be heard, or there is a reason why it isn't.
        self.is_settled = asyncio.Event()
        self.refusal: Exception | None = None

    def take(self, item: Item) -> None:
        """Have an item wait, unless too many do."""
        if self._waiting.qsize() >= MAX_WAITING:
            self.is_lagging = True
        else:
            self._waiting.put_nowait(item)

    def wants(self, item: Item) -> bool:
        """Return whether an item is for it."""
        if self.job_id is not None:
            return self.job_id == item.job_id
        return isinstance(item, EventItem) and self._owner in {None, item.owner}

    async def next_items(self, longest_s: float) -> list[Item]:
        """Wait for items, and take all that wait; none where none has come for so long, or where it lags behind."""
        items: list[Item] = []
        if self.is_lagging:
            return items
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                items.append(await self._waiting.get())
        while not self._waiting.empty():
            items.append(self._waiting.get_nowait())
        return items


@dataclass(frozen=True)
class Missed:
    """Events and points behind a place, as items that all who ask from there share.

    Args:
        items: Events, then points.
        cursor: The place behind them.
    """

    items: tuple[EventItem | PointItem, ...]
    cursor: NewsCursor


class LiveHub:
    """Asks the tracker for news while anybody listens, and hands them on.

    Args:
        backends: Those that know what happens to all jobs.
        interval_s: Seconds between two questions.
    """

    def __init__(self, backends: Backends, interval_s: float = INTERVAL_S) -> None:
        self._backends = backends
        self._tracker = backends.tracker
        self._interval_s = interval_s
        self.log_feeds = LogFeeds(backends)
        # Those who come at the same time, as all do once a connection to many has broken, ask the same.
        self._missed: SharedCalls[NewsQuery, Missed] = SharedCalls(self._read_missed)
        self._places: SharedCalls[None, NewsCursor] = SharedCalls(self._read_place)
        self._statuses: SharedCalls[str, tuple[JobRecord, StatusItem]] = SharedCalls(self._read_status)
        self._listeners: set[Listener] = set()
        self._cursor: NewsCursor | None = None
        self._changed_after: datetime | None = None
        self._asking: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()

    @property
    def num_listeners(self) -> int:
        """Listeners of this replica."""
        return len(self._listeners)

    @contextlib.asynccontextmanager
    async def listening(self, job_id: str | None = None, owner: str | None = None) -> AsyncIterator[Listener]:
        """Listen while the block runs. It begins once nothing that comes later can be missed.

        Args:
            job_id: The job to watch; None is all jobs.
            owner: Whose jobs; None is everybody's.

        Raises:
            CapacityError: The tracker doesn't answer.
        """
        listener = Listener(job_id, owner)
        self._listeners.add(listener)
        self._changed_after = None  # told anew, for one who has just come
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_on())
        self._woken.set()
        try:
            try:
                await asyncio.wait_for(listener.is_settled.wait(), _JOIN_TIMEOUT_S)
            except TimeoutError:
                raise CapacityError("the job tracker is away; listen again in a moment") from None
            if listener.refusal is not None:
                raise listener.refusal
            yield listener
        finally:
            self._listeners.discard(listener)
            self._woken.set()

    async def place(self) -> NewsCursor:
        """Return the place where news begins now."""
        return await self._places.ask(None)

    async def missed(self, query: NewsQuery) -> Missed:
        """Return a page of what came behind a place."""
        return await self._missed.ask(query)

    async def status(self, job_id: str) -> tuple[JobRecord, StatusItem]:
        """Return a job as it is now, for one who is known to be let see it.

        Raises:
            NotFoundError: It isn't there any more.
        """
        return await self._statuses.ask(job_id)

    async def _read_place(self, _: None) -> NewsCursor:
        return (await self._tracker.news(NewsQuery(after=None))).cursor

    async def _read_missed(self, query: NewsQuery) -> Missed:
        news = await self._tracker.news(query)
        return Missed((*map(EventItem.of, news.events), *map(PointItem.of, news.points)), news.cursor)

    async def _read_status(self, job_id: str) -> tuple[JobRecord, StatusItem]:
        job = await self._tracker.job(job_id)
        return job, StatusItem.of(job, self._backends)

    async def _ask_on(self) -> None:
        try:
            while self._listeners:
                self._woken.clear()
                try:
                    await self._ask()
                except CapacityError as error:
                    logger.info("no news while the tracker is away (%s)", error.message)
                    self._refuse_newcomers(error)
                except Exception as error:  # listeners are told later
                    logger.warning("news couldn't be had", exc_info=True)
                    self._refuse_newcomers(error)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._interval_s):
                        await self._woken.wait()
        finally:
            self._asking, self._cursor, self._changed_after = None, None, None

    async def _ask(self) -> None:
        heard = tuple(self._listeners)
        watched = Counter(each.job_id for each in heard if each.job_id is not None)
        if self._cursor is None:
            self._cursor = await self._read_place(None)
        only_watched = all(each.job_id is not None for each in heard)
        query = NewsQuery(self._cursor, tuple(watched), self._changed_after, only_watched)
        news = await self._tracker.news(query)
        self._cursor = news.cursor
        if news.changed_at is not None and query.changed_after == self._changed_after:
            self._changed_after = news.changed_at
        self._hand_on(news)
        for each in heard:
            each.is_settled.set()

    def _refuse_newcomers(self, error: Exception) -> None:
        """Send those away who can't be told from which place on they hear."""
        for each in self._listeners:
            if not each.is_settled.is_set():
                each.refusal = error
                each.is_settled.set()

    def _hand_on(self, news: News) -> None:
        items: list[Item] = [
            *map(EventItem.of, news.events),
            *map(PointItem.of, news.points),
            *(StatusItem.of(job, self._backends) for job in news.jobs),
            *map(GoneItem, news.gone),
        ]
        for each in self._listeners:
            for item in items:
                if each.wants(item):
                    each.take(item)


def _hub(connection: HTTPConnection) -> LiveHub:
    return cast(LiveHub, connection.app.state.live_hub)


LiveHubDep = Annotated[LiveHub, Depends(_hub)]
