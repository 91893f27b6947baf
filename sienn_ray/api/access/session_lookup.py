"""Sessions of browsers: made, looked up at the tracker and remembered for seconds, and ended."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from sienn_ray.access.claim_rules import owner_at
from sienn_ray.access.principals import Credential, Principal
from sienn_ray.access.remembered import Remembered
from sienn_ray.access.secret_texts import random_text, sha256_of
from sienn_ray.access.sessions import SessionRecord, binding_of
from sienn_ray.api.access.key_lookup import ADMIN_KEY_ID, LIFETIME_S, KeyLookup
from sienn_ray.errors import InvalidTokenError
from sienn_ray.jobs.schema import utc_now
from sienn_ray.jobs.tracker_protocol import Tracker

_MAX_REMEMBERED = 10_000
# That a session is used is noted this often within its idle timeout.
_NOTES_PER_TIMEOUT = 10


class SessionLookup:
    """Finds the caller whom a session stands for.

    Args:
        tracker: Has the sessions.
        keys: Knows API keys, with which the sessions end that were made with them.
        admin_key: The key that settings have, if there is one.
        lifetime_s: Seconds after which a session ends.
        idle_timeout_s: Seconds without a request after which it ends.
        issuer: The outside issuer at which browsers log in, if they may: sessions of other logins count no more.
        clock: Seconds, for what is remembered.
        now: The time.
    """

    def __init__(
        self,
        tracker: Tracker,
        keys: KeyLookup,
        admin_key: str | None,
        *,
        lifetime_s: float,
        idle_timeout_s: float,
        issuer: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._tracker = tracker
        self._keys = keys
        self._admin_key = admin_key
        self._lifetime_s = lifetime_s
        self._idle_timeout_s = idle_timeout_s
        self._issuer = issuer
        self._clock = clock
        self._now = now
        self._remembered: Remembered[SessionRecord | None] = Remembered(_MAX_REMEMBERED)

    async def begin(self, principal: Principal, client_id: str | None = None) -> tuple[str, SessionRecord]:
        """Make a session.

        Args:
            principal: The caller, who has just proved to be the one.
            client_id: The prefix of the API key, if it was one.

        Returns:
            The secret of its cookie, and its record.
        """
        secret, now = random_text(), self._now()
        is_bound = client_id == ADMIN_KEY_ID and self._admin_key is not None
        record = SessionRecord(
            sha256=sha256_of(secret),
            owner=principal.owner,
            scopes=principal.scopes,
            client_id=client_id,
            binding=binding_of(secret, self._admin_key or "") if is_bound else None,
            created_at=now,
            seen_at=now,
            expires_at=now + timedelta(seconds=self._lifetime_s),
        )
        await self._tracker.add_session(record)
        return secret, record

    async def principal_of(self, secret: str, *, is_use: bool = True) -> Principal:
        """Return the caller who sends a session's cookie.

        Args:
            secret: That of the cookie.
            is_use: Whether it comes with a request, so that the session isn't idle.

        Raises:
            InvalidTokenError: There is no such session, or not any more.
        """
        record = await self._record(sha256_of(secret))
        if record is None:
            raise InvalidTokenError("the session isn't known; log in again")
        if fault := record.fault_at(self._now(), self._idle_timeout_s):
            raise InvalidTokenError(f"the session {fault}; log in again")
        if record.client_id is None and not self._is_of_issuer(record):
            raise InvalidTokenError("the session is of a login at an issuer that isn't asked any more; log in again")
        if is_use:
            await self._note_use(record)
        if record.client_id is None:
            return record.principal
        if record.client_id == ADMIN_KEY_ID and not self._is_of_admin_key(record, secret):
            raise InvalidTokenError("the session was made with another admin key; log in again")
        principal = await self._keys.principal_of_client(record.client_id)
        return replace(principal, credential=Credential.SESSION)

    async def end_all_of(self, owner: str) -> int:
        """End all sessions of an owner, and return how many; replicas may remember them for seconds."""
        return await self._tracker.end_sessions(owner)

    async def end(self, secret: str) -> None:
        """End a session for good, if there is one; other replicas may remember it for seconds."""
        sha256 = sha256_of(secret)
        await self._tracker.end_session(sha256)
        self._remembered.forget(sha256)

    def _is_of_issuer(self, record: SessionRecord) -> bool:
        return self._issuer is not None and record.owner.startswith(owner_at(self._issuer, ""))

    def _is_of_admin_key(self, record: SessionRecord, secret: str) -> bool:
        if self._admin_key is None or record.binding is None:
            return False
        return hmac.compare_digest(record.binding, binding_of(secret, self._admin_key))

    async def _record(self, sha256: str) -> SessionRecord | None:
        if known := self._remembered.get(sha256, self._clock()):
            return known[0]
        record = await self._tracker.session_of_hash(sha256)
        self._remembered.put(sha256, record, self._clock() + LIFETIME_S)
        return record

    async def _note_use(self, record: SessionRecord) -> None:
        """Note that a valid session is used, unless that was noted lately."""
        if self._now() - record.seen_at >= timedelta(seconds=self._idle_timeout_s / _NOTES_PER_TIMEOUT):
            await self._tracker.touch_session(record.sha256)
            self._remembered.forget(record.sha256)  # read again, with what was noted
