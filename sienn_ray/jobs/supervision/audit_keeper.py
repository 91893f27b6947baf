"""Keeps the audit log within its bounds, and writes down that the service has started."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from sienn_ray.access.audit import AuditOrigin
from sienn_ray.jobs.store.audit_store import AuditStore

logger = logging.getLogger(__name__)

STARTED, STARTED_WITHOUT_AUTHENTICATION = "service_started", "service_started_without_authentication"
_INTERVAL_S = 3600.0


class AuditKeeper:
    """One `step` forgets what is too old or too much, unless the last one was within the hour.

    Args:
        store: The audit log.
        is_auth_on: Whether requests need an API key.
        lifetime_s: Seconds that entries are kept.
        max_rows: Entries that are kept.
        clock_s: A clock that only rises.
    """

    def __init__(
        self,
        store: AuditStore,
        *,
        is_auth_on: bool,
        lifetime_s: float,
        max_rows: int,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._start = STARTED if is_auth_on else STARTED_WITHOUT_AUTHENTICATION
        self._lifetime_s = lifetime_s
        self._max_rows = max_rows
        self._clock_s = clock_s
        self._is_start_written = False
        self._next_s = float("-inf")

    def step(self) -> None:
        """Write down the start, once, and forget what is to go."""
        if not self._is_start_written:
            self._store.note(AuditOrigin(action=self._start))
            self._is_start_written = True
        if self._clock_s() >= self._next_s:
            if number := self._store.prune(self._lifetime_s, self._max_rows):
                logger.info("the %d oldest entries of the audit log are gone", number)
            self._next_s = self._clock_s() + _INTERVAL_S

    def needs_close_look(self) -> bool:
        """Return False: nobody waits for it."""
        return False
