"""A replica's side of claims: asks for each, renews those that are open, and settles those that have ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

from sienn_ray.access.claims import RENEW_S, Claim, ClaimGrant, ClaimLimits, ClaimReport
from sienn_ray.errors import CapacityError
from sienn_ray.jobs.tracker_protocol import Tracker

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Held:
    """A claim at the gate.

    Args:
        claim: The claim.
        grant: What the tracker said; None where it couldn't be asked, and the claim holds all the same.
    """

    claim: Claim
    grant: ClaimGrant | None

    @property
    def is_granted(self) -> bool:
        """Return whether it holds."""
        return self.grant is None or self.grant.refusal is None

    @property
    def retry_after_s(self) -> int:
        """Whole seconds after which a refused claim may be granted."""
        return 1 if self.grant is None else max(1, math.ceil(self.grant.reset_s))


@dataclass(frozen=True)
class _Settled:
    """Whether the tracker took a report, and what it said to the claim in it."""

    is_told: bool
    grant: ClaimGrant | None = None


class ClaimGate:
    """Claims for the requests of one replica.

    Where the tracker can't be asked, claims hold; it learns of them by the next report.

    Args:
        tracker: Counts for all replicas.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._open: dict[str, Claim] = {}
        self._ended: dict[str, int] = {}
        self._has_ended = asyncio.Event()

    async def claim(self, bucket: str, limits: ClaimLimits, num_tokens: int = 0, num_places: int = 1) -> Held:
        """Claim a place and tokens; who has a claim that is granted ends it."""
        claim = Claim(uuid.uuid4().hex, bucket, limits, num_tokens, num_places)
        try:
            grant = (await self._settle(claim)).grant
        except asyncio.CancelledError:  # it may have been granted
            self._ended[claim.id] = 0
            self._has_ended.set()
            raise
        held = Held(claim, grant)
        if held.is_granted:
            self._open[claim.id] = claim
        return held

    def end(self, held: Held, num_tokens: int = 0) -> None:
        """End a claim, of which so many tokens were used; a repeat changes nothing."""
        if self._open.pop(held.claim.id, None) is not None:
            self._ended[held.claim.id] = num_tokens
            self._has_ended.set()

    @property
    def num_open(self) -> int:
        """Claims that are held here."""
        return len(self._open)

    async def report(self) -> bool:
        """Tell the tracker what is open and what has ended; what it can't be told now, it is told later.

        Returns:
            Whether it could be told.
        """
        self._has_ended.clear()
        return not (self._open or self._ended) or (await self._settle(None)).is_told

    async def _settle(self, wanted: Claim | None) -> _Settled:
        ended = dict(self._ended)
        report = ClaimReport(() if wanted else tuple(self._open.values()), tuple(ended.items()), wanted)
        try:
            grant = await self._tracker.settle_claims(report)
        except CapacityError as error:
            logger.warning("claims can't be looked at (%s); they hold", error.message)
            return _Settled(is_told=False)
        except Exception:  # a request waits for this answer
            logger.exception("claims can't be looked at; they hold")
            return _Settled(is_told=False)
        for claim_id in ended:
            self._ended.pop(claim_id, None)
        return _Settled(is_told=True, grant=grant)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Report while the block runs: at once when a claim has ended, and every few seconds."""
        task = asyncio.create_task(self._report_regularly())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await self.report()

    async def _report_regularly(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RENEW_S):
                    await self._has_ended.wait()
            if not await self.report():  # the tracker is away
                await asyncio.sleep(RENEW_S)
