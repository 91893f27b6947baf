"""Quotas of owners in the job database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime

import sqlalchemy as sa

from sienn_ray.access.quotas import Quotas, QuotaState
from sienn_ray.jobs.store import quota_checks
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.quota_checks import QuotaChecks
from sienn_ray.jobs.store.tables import owner_limits


class QuotaStore:
    """Reads and writes owners' quotas; every method is one transaction.

    Args:
        database: Where they are kept.
        clock: The time.
        checks: Knows the bounds of owners who have none of their own.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime], checks: QuotaChecks) -> None:
        self._database = database
        self._clock = clock
        self._checks = checks

    def state(self, owner: str) -> QuotaState:
        """Return the quotas of an owner, and what there is now."""
        with self._database.reading() as connection:
            return self._state(connection, owner)

    def set_own(self, owner: str, quotas: Quotas) -> QuotaState:
        """Give an owner bounds of its own, in place of those that it had; None leaves the settings' one.

        What there is beyond a bound stays.
        """
        with self._database.writing() as connection:
            connection.execute(sa.delete(owner_limits).where(owner_limits.c.owner == owner))
            if quotas != Quotas():
                values = {**asdict(quotas), "owner": owner, "updated_at": self._clock()}
                connection.execute(sa.insert(owner_limits).values(**values))
            return self._state(connection, owner)

    def _state(self, connection: sa.Connection, owner: str) -> QuotaState:
        own = quota_checks.own_quotas(connection, owner)
        return QuotaState(
            owner=owner,
            own=own,
            quotas=self._checks.defaults.overridden_by(own),
            use=quota_checks.use_of(connection, owner),
        )
