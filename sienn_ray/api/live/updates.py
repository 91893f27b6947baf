"""Updates for one listener: in order, each once, from the place on that it was told last."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from datetime import datetime

from sienn_ray.api.deps import Backends
from sienn_ray.api.live.hub import MAX_WAITING, Listener, LiveHub
from sienn_ray.api.live.items import (
    CaughtUpItem,
    EventItem,
    GoneItem,
    Item,
    LinesItem,
    LogEndItem,
    PointItem,
    StatusItem,
)
from sienn_ray.api.live.log_feeds import LogFeed
from sienn_ray.api.live.log_lines import LinePlace, lines_until_now
from sienn_ray.api.live.places import Place
from sienn_ray.errors import CapacityError
from sienn_ray.jobs.news_schema import NewsCursor, NewsQuery
from sienn_ray.jobs.schema import JobRecord

# So that proxies keep the connection, and one whose client has gone is noticed.
HEARTBEAT_S = 15.0
# A program ends some seconds after its job; its last lines are waited for.
LOG_END_S = 15.0


@dataclass(frozen=True)
class Update:
    """An update as a listener gets it.

    Args:
        name: `status`, `event`, `point`, `log`, `metrics`, `heartbeat`, `lagging` or `end`.
        data: Its JSON.
        id: The place behind it, from which a listener can go on; None where it isn't one.
    """

    name: str
    data: str
    id: str | None = None

    def as_event(self) -> bytes:
        """Return a server-sent event."""
        if self.name == "heartbeat":
            return b": heartbeat\n\n"
        place = f"id: {self.id}\n" if self.id else ""
        return f"{place}event: {self.name}\ndata: {self.data}\n\n".encode()

    def as_message(self) -> str:
        """Return the text of a WebSocket's message."""
        return f'{{"event": "{self.name}", "id": {json.dumps(self.id)}, "data": {self.data}}}'


# As many at a time as are there.
Updates = AsyncGenerator[list[Update]]


@dataclass(frozen=True)
class Wish:
    """Choice of a listener: from which place on it hears of a job, and whether of its log.

    Args:
        last_id: The id of the last update that it has; None begins with what comes now.
        logs: Lines of the log too.
        tail: So many lines that are there already come first, for one that has no id.
    """

    last_id: str | None = None
    logs: bool = True
    tail: int = 0


async def job_updates(backends: Backends, hub: LiveHub, job_id: str, wish: Wish) -> Updates:
    """Follow one job until it is at rest: its status, then events, points of its curves and lines of its log.

    Args:
        backends: The caller's; what isn't theirs isn't there.
        hub: Knows the news.
        job_id: The job.
        wish: What the caller wants to hear.

    Raises:
        NotFoundError: There is no such job, or it is somebody else's.
        InvalidInputError: Nobody was told this id.
        CapacityError: The tracker, or Ray with the log so far, doesn't answer.
    """
    place = None if wish.last_id is None else Place.parsed(wish.last_id)
    job = await backends.tracker.job(job_id)
    async with AsyncExitStack() as stack:
        listener = await stack.enter_async_context(hub.listening(job_id))
        told = _Told(place or Place(await hub.place()))
        feed = None
        if wish.logs:
            feed = await stack.enter_async_context(hub.log_feeds.listening(job_id, listener.take))
        # The status first, so that a page has something to show; what was missed comes behind it.
        job, status = await hub.status(job_id)
        yield [told.status(status)]
        async for missed in _missed(hub, told, (job_id,)):
            yield missed
        if feed is not None:
            async for missed in _missed_lines(backends, feed, told, job, wish.tail):
                yield missed
        async for updates in _until_rest(listener, told, job, has_log=wish.logs):
            yield updates
            if updates[-1].name in {"end", "lagging"}:
                return
        async for missed in _missed(hub, told, (job_id,)):
            yield missed
    yield [_end(f"the job is {told.job_status or job.status.value}")]


async def all_updates(hub: LiveHub, owner: str | None, last_id: str | None) -> Updates:
    """Follow the events of all jobs of an owner, without an end.

    Args:
        hub: Knows the news.
        owner: Whose jobs; None is everybody's.
        last_id: The id of the last update that the caller has; None begins with what comes now.

    Raises:
        InvalidInputError: Nobody was told this id.
    """
    place = None if last_id is None else Place.parsed(last_id)
    async with hub.listening(owner=owner) as listener:
        told = _Told(place or Place(await hub.place()))
        yield [Update("heartbeat", "{}")]  # the answer begins at once
        async for missed in _missed(hub, told, owner=owner):
            yield missed
        async with aclosing(_items(listener)) as items:
            async for some in items:
                if updates := [update for item in some if (update := told.update(item)) is not None]:
                    yield updates


async def _until_rest(listener: Listener, told: _Told, job: JobRecord, *, has_log: bool) -> Updates:
    """Yield what happens until the job is at rest and its log, if it is wanted, has ended."""
    is_at_rest, is_log_over = job.status.is_at_rest, not has_log
    rest_at = time.monotonic()
    async with aclosing(_items(listener)) as items:
        while not (is_at_rest and (is_log_over or time.monotonic() - rest_at > LOG_END_S)):
            updates: list[Update] = []
            for item in await anext(items):
                if isinstance(item, GoneItem):
                    yield [*updates, _end("the job was deleted")]
                    return
                if isinstance(item, LogEndItem):
                    is_log_over = True
                if isinstance(item, StatusItem) and item.is_at_rest != is_at_rest:
                    is_at_rest, rest_at = item.is_at_rest, time.monotonic()
                if (update := told.update(item)) is not None:
                    updates.append(update)
            if updates:
                yield updates


async def _missed(hub: LiveHub, told: _Told, job_ids: tuple[str, ...] = (), owner: str | None = None) -> Updates:
    """What came behind a listener's place until now, a page at a time."""
    while True:
        missed = await hub.missed(NewsQuery(told.news, job_ids, only_watched=bool(job_ids), owner=owner))
        if updates := [update for item in missed.items if (update := told.update(item)) is not None]:
            yield updates
        told.go_on_from(missed.cursor)
        if not missed.items:
            return


async def _missed_lines(backends: Backends, feed: LogFeed, told: _Told, job: JobRecord, tail: int) -> Updates:
    """Lines behind a listener's place, or the last ones for one that has none."""
    if told.lines is None and tail == 0:
        return
    # Until then, nothing is handed on.
    try:
        await asyncio.wait_for(feed.is_caught_up.wait(), LOG_END_S)
    except TimeoutError:
        raise CapacityError(
            "the job's log can't be read at the moment; come back in a moment, or follow the job with logs=false"
        ) from None
    until = feed.place
    recent = None if told.lines is None else feed.recent(told.lines)
    if recent is not None:
        if updates := [update for item in recent if (update := told.update(item)) is not None]:
            yield updates
        return
    begin = LinePlace(job.attempt) if told.lines is None else told.lines
    found = (LinesItem.of(job.id, lines) async for lines in lines_until_now(job, backends, begin))
    if told.lines is not None:
        async for item in found:
            if (update := told.update(item)) is not None:
                yield [update]
            if item.lines.end >= until:  # what comes behind it waits for this listener already
                return
        return
    last: deque[LinesItem] = deque()
    num_lines = 0
    async for item in found:
        last.append(item)
        num_lines += len(item.lines.texts)
        while num_lines - len(last[0].lines.texts) >= tail:
            num_lines -= len(last.popleft().lines.texts)
    told.lines = begin
    if last:
        first = last[0].lines
        told.lines = LinePlace(first.attempt, first.first - 1 + max(0, num_lines - tail))
    if updates := [update for item in last if (update := told.update(item)) is not None]:
        yield updates


async def _items(listener: Listener) -> AsyncGenerator[list[Item | Update]]:
    """News for a listener, with heartbeats between, until it lags behind."""
    beat_at = time.monotonic() + HEARTBEAT_S
    while True:
        items: list[Item | Update] = [*await listener.next_items(max(0.0, beat_at - time.monotonic()))]
        if not items and listener.is_lagging:
            words = f"more than {MAX_WAITING} updates wait; come back with the id of the last one that you have"
            yield [Update("lagging", json.dumps({"detail": words}))]
            return
        if time.monotonic() >= beat_at:
            items.append(Update("heartbeat", "{}"))
            beat_at = time.monotonic() + HEARTBEAT_S
        if items:
            yield items


class _Told:
    """What a listener has been told.

    Args:
        place: The place behind it.
    """

    def __init__(self, place: Place) -> None:
        self.news = place.news
        # None until it is known which lines are new.
        self.lines = place.lines
        self.job_status = ""
        self._changed_at: datetime | None = None

    def go_on_from(self, news: NewsCursor) -> None:
        """Note that there is nothing more before a place."""
        self.news = news

    def status(self, item: StatusItem) -> Update:
        """Tell of a job as it is now."""
        self._changed_at, self.job_status = item.changed_at, item.status
        return Update("status", item.data, self._id)

    def update(self, item: Item | Update) -> Update | None:
        """Tell of an item, unless it was told before."""
        match item:
            case Update():
                return item
            case EventItem() if item.seq > self.news.seq:
                self.news = self.news.behind(seq=item.seq)
                return Update("event", item.data, self._id)
            case PointItem() if item.changed_at > self.news.point_at:
                self.news = self.news.behind(point_at=item.changed_at)
                return Update("point", item.data, self._id)
            case StatusItem() if self._changed_at is None or item.changed_at > self._changed_at:
                return self.status(item)
            case CaughtUpItem() if self.lines is None:
                self.lines = item.place
            case LinesItem() if self.lines is not None and (rest := item.behind(self.lines)) is not None:
                self.lines = rest.lines.end
                return Update("log", rest.data, self._id)
        return None

    @property
    def _id(self) -> str:
        return Place(self.news, self.lines).text


def _end(words: str) -> Update:
    return Update("end", json.dumps({"detail": words}))
