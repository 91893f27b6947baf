"""API keys of requests, looked up at the tracker and remembered for seconds."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable

from sienn_ray.access.api_keys import ApiKey, ApiKeyRecord, sha256_of
from sienn_ray.access.principals import ADMIN_OWNER, ALL_SCOPES, Principal
from sienn_ray.errors import UnauthorizedError
from sienn_ray.jobs.schema import utc_now
from sienn_ray.jobs.tracker_protocol import Tracker

# How long a revoked key may still be let in by a replica that has just seen it.
LIFETIME_S = 5.0
# Prefixes that are remembered, those that there are no keys of included.
_MAX_REMEMBERED = 10_000
ADMIN_KEY_ID = "SIENN_ADMIN_KEY"


class KeyLookup:
    """Finds the caller that an API key stands for.

    Args:
        tracker: Has the keys.
        admin_key: A key that settings have, with which one may do everything.
        clock: Seconds, for what is remembered.
    """

    def __init__(
        self, tracker: Tracker, admin_key: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tracker = tracker
        # Hashes are as long as each other, so that comparing them tells nothing of the length.
        self._admin_sha256 = None if admin_key is None else sha256_of(admin_key)
        self._clock = clock
        self._remembered: OrderedDict[str, tuple[float, ApiKeyRecord | None]] = OrderedDict()

    async def principal_of(self, text: str) -> Principal:
        """Return the caller who sends a key.

        Raises:
            UnauthorizedError: It is no key, or not a valid one; the message says no more about one that isn't known.
        """
        if self._admin_sha256 is not None and hmac.compare_digest(sha256_of(text), self._admin_sha256):
            return Principal(ADMIN_OWNER, ALL_SCOPES, ADMIN_KEY_ID)
        key = ApiKey.parsed(text)
        record = None if key is None else await self._record(key.prefix)
        if key is None or record is None or not record.is_of(key):
            raise UnauthorizedError("the API key isn't valid")
        if fault := record.fault_at(utc_now()):
            raise UnauthorizedError(f"the API key '{record.name}' {fault}; ask an admin for another one")
        return record.principal

    async def _record(self, prefix: str) -> ApiKeyRecord | None:
        known = self._remembered.get(prefix)
        if known is None or self._clock() > known[0] + LIFETIME_S:
            known = (self._clock(), await self._tracker.api_key_of_prefix(prefix))
            self._remembered[prefix] = known
            self._remembered.move_to_end(prefix)
            if len(self._remembered) > _MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        return known[1]
