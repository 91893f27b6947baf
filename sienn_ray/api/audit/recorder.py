"""Collects reports for the audit log, bounded, and sends them to the tracker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from sienn_ray.access.audit import AuditOrigin, AuditReport
from sienn_ray.jobs.schema import utc_now

logger = logging.getLogger(__name__)

MAX_WAITING = 1000
_SENT_AT_ONCE = 200
_INTERVAL_S = 1.0
_TIMEOUT_S = 10.0
# Of refusals and failures within a window: those of one caller with one status that are told one by one, those of all,
# and callers whose others are counted apart. Whoever asks ten thousand times must not fill the log.
WINDOW_S = 300.0
MAX_OF_CALLER, MAX_OF_ALL, MAX_CALLERS = 5, 60, 20
DROPPED, REFUSED_OTHERS = "audit_reports_dropped", "others_refused"
_Caller = tuple[str | None, str | None, int | None]


@dataclass
class _Surplus:
    """Requests that are counted, and not told one by one."""

    origin: AuditOrigin
    number: int = 0


class AuditRecorder:
    """Takes reports at any rate; each is sent at least once while the tracker can be asked, and this process lives.

    Args:
        send: Sends reports to the tracker.
        clock_s: A clock that only rises.
    """

    def __init__(
        self,
        send: Callable[[tuple[AuditReport, ...]], Awaitable[None]],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._clock_s = clock_s
        self._waiting: deque[AuditReport] = deque()
        self._num_dropped = 0
        self._window_ends_s = clock_s() + WINDOW_S
        self._num_of_caller: dict[_Caller, int] = {}
        self._num_of_all = 0
        self._surplus: dict[_Caller, _Surplus] = {}
        self._lock = asyncio.Lock()
        self._is_failing = False

    def report(self, origin: AuditOrigin, target_kind: str | None, target_id: str | None, *, is_sampled: bool) -> None:
        """Take what is to be written down.

        Args:
            origin: Who asked for what, and the answer's status.
            target_kind: Kind of what it was about.
            target_id: Its id.
            is_sampled: Whether there may be any number of them, of which some are counted only.
        """
        if is_sampled:
            self._end_window()
            if self._is_surplus(origin):
                return
        self._put(origin, target_kind, target_id)

    def _is_surplus(self, origin: AuditOrigin) -> bool:
        caller = (origin.client, origin.principal_id, origin.status)
        number = self._num_of_caller.get(caller, 0)
        if number < MAX_OF_CALLER and self._num_of_all < MAX_OF_ALL:
            self._num_of_caller[caller] = number + 1
            self._num_of_all += 1
            return False
        if caller not in self._surplus and len(self._surplus) >= MAX_CALLERS:
            caller, origin = (None, None, None), AuditOrigin(action=REFUSED_OTHERS)
        self._surplus.setdefault(caller, _Surplus(origin)).number += 1
        return True

    def _end_window(self, *, at_once: bool = False) -> None:
        """Tell how many there were that weren't told one by one, once the window is over."""
        if not at_once and self._clock_s() < self._window_ends_s:
            return
        self._window_ends_s = self._clock_s() + WINDOW_S
        surplus = list(self._surplus.values())
        self._surplus, self._num_of_caller, self._num_of_all = {}, {}, 0
        for each in surplus:
            self._put(each.origin, num_requests=each.number)

    def _put(
        self,
        origin: AuditOrigin,
        target_kind: str | None = None,
        target_id: str | None = None,
        num_requests: int = 1,
    ) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._num_dropped += num_requests
            return
        report = AuditReport(uuid.uuid4().hex, utc_now(), origin, target_kind, target_id, num_requests)
        self._waiting.append(report)

    async def flush(self) -> None:
        """Send what waits. Never raises: what couldn't be sent waits for the next time, in the same order."""
        self._end_window()
        try:
            async with asyncio.timeout(_TIMEOUT_S), self._lock:
                while self._waiting:
                    batch = tuple(self._waiting)[:_SENT_AT_ONCE]
                    await self._send(batch)
                    for _ in batch:
                        self._waiting.popleft()
                    self._tell_of_dropped()
        except Exception as error:
            if not self._is_failing:
                logger.warning("reports for the audit log couldn't be sent (%s); they wait", type(error).__name__)
            self._is_failing = True
        else:
            self._is_failing = False

    def _tell_of_dropped(self) -> None:
        if self._num_dropped:
            number, self._num_dropped = self._num_dropped, 0
            logger.error("%d reports for the audit log were dropped, since %d waited", number, MAX_WAITING)
            self._put(AuditOrigin(action=DROPPED), num_requests=number)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send every second while the block runs, and when it ends."""
        task = asyncio.create_task(self._flush_regularly())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            self._end_window(at_once=True)
            await self.flush()

    async def _flush_regularly(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL_S)
            await self.flush()
