"""A replica's side of rate limits: most requests pass by permits that it was lent, without asking."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from sienn_ray.access.rate_limits import LENT_S, Grant, PermitRequest
from sienn_ray.errors import CapacityError
from sienn_ray.jobs.tracker_protocol import Tracker

logger = logging.getLogger(__name__)

# How often what was used is reported of clients that ask for nothing more.
_REPORT_S = LENT_S / 2
# Clients that are remembered between their requests.
_MAX_CLIENTS = 10_000


@dataclass
class _Client:
    """The permits of one client, as this replica knows them."""

    limits: str
    num_lent: int = 0
    num_used: int = 0
    lent_until: float = 0.0
    # Until when it is known that nothing is left.
    full_until: float = 0.0
    grant: Grant | None = None
    waiting: list[asyncio.Future[Grant | None]] = field(default_factory=list)
    asking: asyncio.Task[None] | None = None


@dataclass(frozen=True)
class Passage:
    """Outcome of a request at the gate.

    Args:
        is_allowed: Whether it may go on.
        grant: What is known of the client's limits; None where nobody could be asked.
    """

    is_allowed: bool
    grant: Grant | None


class RateGate:
    """Lets requests pass while their client is within its limits.

    Where the tracker can't be asked, requests pass: they mostly need it themselves, and have their own answer then.

    Args:
        tracker: Counts for all replicas.
        clock: Seconds.
    """

    def __init__(self, tracker: Tracker, clock: Callable[[], float] = time.monotonic) -> None:
        self._tracker = tracker
        self._clock = clock
        self._holder = uuid.uuid4().hex
        self._clients: OrderedDict[str, _Client] = OrderedDict()

    async def passage(self, bucket: str, limits: str) -> Passage:
        """Take a permit for a request of a client.

        Args:
            bucket: Whose requests are counted together.
            limits: The client's limits, as `100/minute;1000/hour`.
        """
        client = self._client(bucket, limits)
        if client.num_lent > 0 and self._clock() < client.lent_until and client.grant is not None:
            client.num_lent -= 1
            client.num_used += 1
            return Passage(True, client.grant)
        if self._clock() < client.full_until:
            return Passage(False, client.grant)
        answer: asyncio.Future[Grant | None] = asyncio.get_running_loop().create_future()
        client.waiting.append(answer)
        if client.asking is None:
            client.asking = asyncio.create_task(self._ask(bucket, client))
        grant = await answer
        return Passage(grant is not None or client.grant is None, client.grant)

    def _client(self, bucket: str, limits: str) -> _Client:
        client = self._clients.get(bucket)
        if client is None or client.limits != limits:
            client = self._clients[bucket] = _Client(limits)
        self._clients.move_to_end(bucket)
        if len(self._clients) > _MAX_CLIENTS:
            self._clients.popitem(last=False)
        return client

    async def _ask(self, bucket: str, client: _Client) -> None:
        """Ask for all that wait, as long as some do."""
        try:
            while client.waiting:
                waiting, client.waiting = client.waiting, []
                waiting = [each for each in waiting if not each.done()]
                await self._settle(bucket, client, len(waiting))
                num_granted = len(waiting) if client.grant is None else client.grant.num_granted
                for number, each in enumerate(waiting):
                    if not each.done():
                        each.set_result(client.grant if number < num_granted else None)
        finally:
            client.asking = None

    async def _settle(self, bucket: str, client: _Client, num_wanted: int) -> None:
        num_used, client.num_used, client.num_lent = client.num_used, 0, 0
        asked_at = self._clock()
        try:
            request = PermitRequest(bucket, client.limits, num_used, num_wanted)
            client.grant = await self._tracker.settle_permits(self._holder, request)
        except CapacityError as error:
            logger.warning("rate limits can't be looked at (%s); requests pass", error.message)
            client.grant = None
        except Exception:  # requests wait for this answer, and must not wait for ever
            logger.exception("rate limits can't be looked at; requests pass")
            client.grant = None
        else:
            client.num_lent, client.lent_until = client.grant.num_lent, asked_at + LENT_S
            client.full_until = asked_at + client.grant.reset_s if client.grant.num_left == 0 else 0.0

    async def report(self) -> None:
        """Report what was used of permits that have run out."""
        now = self._clock()
        for bucket, client in list(self._clients.items()):
            if client.num_used and client.asking is None and now >= client.lent_until:
                await self._settle(bucket, client, 0)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Report regularly while the block runs."""
        task = asyncio.create_task(self._report_regularly())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _report_regularly(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_S)
            try:
                await self.report()
            except Exception:  # it must go on for other clients
                logger.warning("rate limits couldn't be reported", exc_info=True)
