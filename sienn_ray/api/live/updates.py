"""Updates for one listener: in order, each once, from the place on that it was told last."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from sienn_ray.api.deps import Backends
from sienn_ray.api.lists.job_status import status_of
from sienn_ray.api.live.hub import MAX_WAITING, Gone, Item, Listener, LiveHub
from sienn_ray.api.schemas.common import ResponseBody
from sienn_ray.api.schemas.job_history import JobEventBody, MetricPointBody
from sienn_ray.jobs.news_schema import EventNews, NewsCursor, NewsQuery, PointNews
from sienn_ray.jobs.schema import JobRecord

# So that proxies keep the connection, and one whose client has gone is noticed.
HEARTBEAT_S = 15.0
METRICS_S = 5.0


@dataclass(frozen=True)
class Update:
    """An update as a listener gets it.

    Args:
        name: `status`, `event`, `point`, `metrics`, `heartbeat`, `lagging` or `end`.
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


Updates = AsyncGenerator[Update]


async def job_updates(backends: Backends, hub: LiveHub, job_id: str, last_id: str | None) -> Updates:
    """Follow one job until it is at rest: its status, then its events and the points of its curves as they come.

    Args:
        backends: The caller's; what isn't theirs isn't there.
        hub: Knows the news.
        job_id: The job.
        last_id: The id of the last update that the caller has; None begins with what comes now.

    Raises:
        NotFoundError: There is no such job, or it is somebody else's.
        InvalidInputError: Nobody was told this id.
    """
    cursor = None if last_id is None else NewsCursor.parsed(last_id)
    await backends.tracker.job(job_id)
    async with hub.listening(job_id) as listener:
        told = _Told(cursor or await hub.place())
        job = await backends.tracker.job(job_id)
        # The status first, so that a page has something to show; what was missed comes behind it.
        yield told.status(job, backends)
        async for missed in _missed(backends, hub, told, (job_id,)):
            yield missed
        async with aclosing(_items(listener)) as items:
            while not job.status.is_at_rest:
                item = await anext(items, None)
                if isinstance(item, Gone):
                    yield _end("the job was deleted")
                    return
                if isinstance(item, JobRecord):
                    job = item
                update = item if item is None or isinstance(item, Update) else told.update(item, backends)
                if update is not None:
                    yield update
                if item is None:  # behind the word that it lags
                    return
        async for missed in _missed(backends, hub, told, (job_id,)):
            yield missed
    yield _end(f"the job is {job.status.value}")


async def all_updates(backends: Backends, hub: LiveHub, owner: str | None, last_id: str | None) -> Updates:
    """Follow the events of all jobs of an owner, without an end.

    Args:
        backends: The caller's.
        hub: Knows the news.
        owner: Whose jobs; None is everybody's.
        last_id: The id of the last update that the caller has; None begins with what comes now.

    Raises:
        InvalidInputError: Nobody was told this id.
    """
    cursor = None if last_id is None else NewsCursor.parsed(last_id)
    async with hub.listening(owner=owner) as listener:
        told = _Told(cursor or await hub.place())
        yield Update("heartbeat", "{}")  # the answer begins at once
        async for missed in _missed(backends, hub, told, owner=owner):
            yield missed
        async with aclosing(_items(listener)) as items:
            async for item in items:
                update = item if isinstance(item, Update) else told.update(item, backends)
                if update is not None:
                    yield update


async def metric_updates(metrics: Callable[[], Awaitable[ResponseBody]]) -> Updates:
    """Tell the service's numbers every few seconds, without an end.

    Args:
        metrics: Gives them.
    """
    while True:
        yield Update("metrics", (await metrics()).model_dump_json())
        await asyncio.sleep(METRICS_S)


async def _missed(
    backends: Backends, hub: LiveHub, told: _Told, job_ids: tuple[str, ...] = (), owner: str | None = None
) -> Updates:
    """What came behind a listener's place until now, a page at a time."""
    while True:
        news = await hub.since(NewsQuery(told.cursor, job_ids, only_watched=bool(job_ids)))
        items: list[EventNews | PointNews] = [*news.events, *news.points]
        for item in items:
            is_theirs = owner is None or (isinstance(item, EventNews) and item.owner == owner)
            if is_theirs and (update := told.update(item, backends)) is not None:
                yield update
        told.cursor = news.cursor
        if not news.events and not news.points:
            return


async def _items(listener: Listener) -> AsyncGenerator[Item | Update]:
    """News for a listener, with heartbeats between, until it lags behind."""
    beat_at = time.monotonic() + HEARTBEAT_S
    while True:
        item = await listener.next_item(max(0.0, beat_at - time.monotonic()))
        if item is not None:
            yield item
        elif listener.is_lagging:
            words = f"more than {MAX_WAITING} updates wait; come back with the id of the last one that you have"
            yield Update("lagging", json.dumps({"detail": words}))
            return
        if time.monotonic() >= beat_at:
            yield Update("heartbeat", "{}")
            beat_at = time.monotonic() + HEARTBEAT_S


class _Told:
    """What a listener has been told.

    Args:
        cursor: The place behind it.
    """

    def __init__(self, cursor: NewsCursor) -> None:
        self.cursor = cursor
        self._changed_at: datetime | None = None

    def status(self, job: JobRecord, backends: Backends) -> Update:
        """Tell of a job as it is now."""
        self._changed_at = job.updated_at
        return Update("status", status_of(job, backends).model_dump_json(), self.cursor.text)

    def update(self, item: Item, backends: Backends) -> Update | None:
        """Tell of an item, unless it was told before."""
        if isinstance(item, EventNews) and item.event.seq > self.cursor.seq:
            self.cursor = self.cursor.behind(seq=item.event.seq)
            body = JobEventBody(**item.event.model_dump()).model_dump(mode="json")
            return Update("event", json.dumps({"job_id": item.job_id, **body}), self.cursor.text)
        if isinstance(item, PointNews) and item.point.created_at > self.cursor.point_at:
            self.cursor = self.cursor.behind(point_at=item.point.created_at)
            body = MetricPointBody(**item.point.model_dump()).model_dump(mode="json")
            return Update("point", json.dumps({"job_id": item.job_id, **body}), self.cursor.text)
        if isinstance(item, JobRecord) and (self._changed_at is None or item.updated_at > self._changed_at):
            return self.status(item, backends)
        return None


def _end(words: str) -> Update:
    return Update("end", json.dumps({"detail": words}))
