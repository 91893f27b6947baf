"""The logs of watched jobs: each is followed once for all listeners of a replica."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from sienn_ray.api.deps import Backends
from sienn_ray.api.live.items import CaughtUpItem, LinesItem, LogEndItem, LogItem
from sienn_ray.api.live.log_lines import LinePlace, LineSplitter, LogLines, log_in_slices
from sienn_ray.errors import CapacityError, NotFoundError
from sienn_ray.jobs.schema import JobRecord

logger = logging.getLogger(__name__)

# Between two looks at a job that waits for its next attempt.
POLL_S = 1.0
# Kept for listeners that come back; what is older is read again for each of them.
MAX_RECENT_LINES = 2000

Take = Callable[[LogItem], None]


class LogFeed:
    """The log of one job, as it grows.

    Args:
        job_id: The job.
        backends: See `Backends`.
        poll_s: Seconds between two looks at a job that waits.
    """

    def __init__(self, job_id: str, backends: Backends, poll_s: float) -> None:
        self._job_id = job_id
        self._backends = backends
        self._poll_s = poll_s
        self._takers: list[Take] = []
        self._recent: deque[LinesItem] = deque()
        self._num_recent = 0
        self._place = LinePlace()
        # Set once what was there when the first listener came has been read.
        self.is_caught_up = asyncio.Event()
        self._has_ended = False
        self._following: asyncio.Task[None] | None = None

    @property
    def place(self) -> LinePlace:
        """The place behind the last line that was read."""
        return self._place

    def recent(self, place: LinePlace) -> list[LinesItem] | None:
        """Return the lines behind a place, up to the feed's; None where more has come since than is kept."""
        if not self.is_caught_up.is_set() or not self._recent:
            return None
        first = self._recent[0].lines
        if place < LinePlace(first.attempt, first.first - 1):
            return None
        return [rest for item in self._recent if (rest := item.behind(place)) is not None]

    def join(self, take: Take) -> None:
        """Have lines handed to one who listens, from now on."""
        self._takers.append(take)
        if self.is_caught_up.is_set():
            take(CaughtUpItem(self._job_id, self._place))
        if self._has_ended:
            take(LogEndItem(self._job_id))
        elif self._following is None:
            self._following = asyncio.create_task(self._follow())

    def leave(self, take: Take) -> bool:
        """Hand no more to one who listened; says whether nobody is left, which ends the feed."""
        self._takers.remove(take)
        if not self._takers and self._following is not None:
            self._following.cancel()
        return not self._takers

    async def _follow(self) -> None:
        try:
            await self._follow_attempts()
        except Exception:  # the job goes on without its log
            logger.warning("the log of job %s can't be followed", self._job_id, exc_info=True)
        self._has_ended = True
        self._catch_up()
        self._hand_on(LogEndItem(self._job_id))

    async def _follow_attempts(self) -> None:
        attempt = 0
        while True:
            job = None
            with contextlib.suppress(CapacityError):
                try:
                    job = await self._backends.tracker.job(self._job_id)
                except NotFoundError:
                    return
                attempt = attempt or max(job.attempt, 1)
                # A connection may break just before the next attempt begins: what is left of one comes before it.
                while attempt <= job.attempt and await self._read(job, attempt):
                    attempt += 1
                self._catch_up()
            if job is not None and job.status.is_at_rest:
                return
            await asyncio.sleep(self._poll_s)

    async def _read(self, job: JobRecord, attempt: int) -> bool:
        """Follow the log of an attempt; says whether nothing more is to be had of it."""
        try:
            if not self.is_caught_up.is_set():
                await self._take(job, attempt, follow=False)
                self._catch_up()
            await self._take(job, attempt, follow=True)
        except NotFoundError:
            # The last one is yet to be submitted, or was lost with its cluster, which is noticed soon.
            return attempt < job.attempt
        return True

    async def _take(self, job: JobRecord, attempt: int, *, follow: bool) -> None:
        splitter = LineSplitter(attempt)
        async with aclosing(log_in_slices(job, attempt, self._backends, follow=follow)) as slices:
            async for each in slices:
                self._keep(splitter.add(each))
        if follow:
            self._keep(splitter.finish())

    def _catch_up(self) -> None:
        if not self.is_caught_up.is_set():
            self.is_caught_up.set()
            self._hand_on(CaughtUpItem(self._job_id, self._place))

    def _keep(self, found: list[LogLines]) -> None:
        for lines in found:
            # The log is read from its first line each time.
            rest = lines.behind(self._place)
            if rest is None:
                continue
            item = LinesItem.of(self._job_id, rest)
            self._place = rest.end
            self._recent.append(item)
            self._num_recent += len(rest.texts)
            while self._num_recent > MAX_RECENT_LINES and len(self._recent) > 1:
                self._num_recent -= len(self._recent.popleft().lines.texts)
            # What was there before anybody listened is read by those who want it, once all of it is known.
            if self.is_caught_up.is_set():
                self._hand_on(item)

    def _hand_on(self, item: LogItem) -> None:
        for take in self._takers:
            take(item)


class LogFeeds:
    """The feeds of watched jobs, each while anybody listens.

    Args:
        backends: See `Backends`.
        poll_s: Seconds between two looks at a job that waits.
    """

    def __init__(self, backends: Backends, poll_s: float = POLL_S) -> None:
        self._backends = backends
        self._poll_s = poll_s
        self._feeds: dict[str, LogFeed] = {}

    @property
    def num_feeds(self) -> int:
        """Logs that are followed."""
        return len(self._feeds)

    @contextlib.asynccontextmanager
    async def listening(self, job_id: str, take: Take) -> AsyncIterator[LogFeed]:
        """Hand a job's lines to one who listens while the block runs.

        Args:
            job_id: The job.
            take: Called with lines, and with the log's end.
        """
        feed = self._feeds.setdefault(job_id, LogFeed(job_id, self._backends, self._poll_s))
        feed.join(take)
        try:
            yield feed
        finally:
            if feed.leave(take):
                del self._feeds[job_id]
