"""API keys of requests, looked up at the tracker and remembered for seconds."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable

from sienn_ray.access.api_keys import ApiKey, ApiKeyRecord
from sienn_ray.access.principals import ADMIN_OWNER, ALL_SCOPES, Credential, Principal
from sienn_ray.access.remembered import Remembered
from sienn_ray.access.secret_texts import sha256_of
from sienn_ray.errors import InvalidTokenError
from sienn_ray.jobs.schema import utc_now
from sienn_ray.jobs.tracker_protocol import Tracker

# How long a revoked key may still be let in by a replica that has just seen it; see `open_answers` for one more second.
LIFETIME_S = 4.0
# Prefixes that are remembered, those that there are no keys of included.
_MAX_REMEMBERED = 10_000
ADMIN_KEY_ID = "SIENN_ADMIN_KEY"
_ADMIN = Principal(ADMIN_OWNER, ALL_SCOPES, ADMIN_KEY_ID, credential=Credential.API_KEY)


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
        self._remembered: Remembered[ApiKeyRecord | None] = Remembered(_MAX_REMEMBERED)

    async def principal_of(self, text: str) -> Principal:
        """Return the caller who sends a key.

        Raises:
            InvalidTokenError: It is no key, or not a valid one; the message says no more about one that isn't known.
        """
        if self.is_admin_key(text):
            return _ADMIN
        key = ApiKey.parsed(text)
        record = None if key is None else await self._record(key.prefix)
        if key is None or record is None or not record.is_of(key):
            raise InvalidTokenError("the API key isn't valid")
        return _principal_of(record)

    async def principal_of_client(self, client_id: str) -> Principal:
        """Return the caller of a key by its prefix, which proves nothing; for tokens and sessions made with it.

        Raises:
            InvalidTokenError: There is no such key, or it isn't valid any more.
        """
        if client_id == ADMIN_KEY_ID and self._admin_sha256 is not None:
            return _ADMIN
        record = await self._record(client_id)
        if record is None:
            raise InvalidTokenError("the API key that this comes from isn't there any more")
        return _principal_of(record)

    def is_admin_key(self, text: str) -> bool:
        """Return whether a text is the key that settings have, in the same time whether it is or not."""
        return self._admin_sha256 is not None and hmac.compare_digest(sha256_of(text), self._admin_sha256)

    async def _record(self, prefix: str) -> ApiKeyRecord | None:
        if known := self._remembered.get(prefix, self._clock()):
            return known[0]
        until = self._clock() + LIFETIME_S
        record = await self._tracker.api_key_of_prefix(prefix)
        self._remembered.put(prefix, record, until)
        return record


def _principal_of(record: ApiKeyRecord) -> Principal:
    if fault := record.fault_at(utc_now()):
        raise InvalidTokenError(f"the API key '{record.name}' {fault}; ask an admin for another one")
    return record.principal
