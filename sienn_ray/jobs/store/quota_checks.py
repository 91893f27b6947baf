"""Checks of an owner's quotas, each in the transaction that writes what it is about.

Writers come one after the other (`Database.writing`), so that what is counted here is what there is when the row is
written, whoever else asks at the same time. Nothing is counted that has no bound.
"""

from __future__ import annotations

import sqlalchemy as sa

from sienn_ray.access.quotas import Quotas, QuotaUse, too_many_bytes
from sienn_ray.errors import QuotaExceededError, TooManyRequestsError
from sienn_ray.jobs.export_schema import ExportStatus
from sienn_ray.jobs.store import queue
from sienn_ray.jobs.store.tables import datasets, exports, jobs, owner_limits

# A place comes free when a fine-tune starts, or an export ends.
_JOB_RETRY_AFTER_S, _EXPORT_RETRY_AFTER_S = 60, 30
_OPEN = (ExportStatus.PENDING.value, ExportStatus.RUNNING.value)
_KEPT = (*_OPEN, ExportStatus.COMPLETED.value)
_EXPORTS_OF_JOBS = exports.join(jobs, jobs.c.id == exports.c.job_id)
_COLUMNS = tuple(owner_limits.c[name] for name in Quotas.__dataclass_fields__)


def own_quotas(connection: sa.Connection, owner: str) -> Quotas:
    """Return the bounds that an admin has set for an owner."""
    row = connection.execute(sa.select(*_COLUMNS).where(owner_limits.c.owner == owner)).mappings().first()
    return Quotas() if row is None else Quotas(**row)


def use_of(connection: sa.Connection, owner: str) -> QuotaUse:
    """Return what an owner has now."""
    return QuotaUse(
        stored_bytes=_stored_bytes(connection, owner),
        pending_jobs=queue.length(connection, owner),
        running_jobs=queue.num_running(connection, owner),
        open_exports=_num_exports(connection, owner, _OPEN),
        exports=_num_exports(connection, owner, _KEPT),
    )


class QuotaChecks:
    """Refuses what is beyond the quotas of its owner.

    Args:
        defaults: Bounds of owners who have none of their own.
    """

    def __init__(self, defaults: Quotas) -> None:
        self.defaults = defaults

    def quotas_of(self, connection: sa.Connection, owner: str) -> Quotas:
        """Return the bounds that hold for an owner."""
        return self.defaults.overridden_by(own_quotas(connection, owner))

    def check_dataset(self, connection: sa.Connection, owner: str, size_bytes: int) -> None:
        """Let a dataset be added.

        Raises:
            QuotaExceededError: Its owner would store too much.
        """
        limit = self.quotas_of(connection, owner).max_stored_bytes
        if limit is not None and (stored := _stored_bytes(connection, owner)) + size_bytes > limit:
            raise too_many_bytes(stored, limit, f"this file has {size_bytes}")

    def check_job(self, connection: sa.Connection, owner: str) -> None:
        """Let a job wait, whose run will store an adapter.

        Raises:
            TooManyRequestsError: As many of its owner's jobs wait as may.
            QuotaExceededError: Its owner's storage is full.
        """
        quotas = self.quotas_of(connection, owner)
        if (limit := quotas.max_pending_jobs) is not None and (number := queue.length(connection, owner)) >= limit:
            raise TooManyRequestsError(
                f"{number} of your jobs wait already, and you may have {limit} (SIENN_OWNER_MAX_PENDING_JOBS, or a "
                "limit of your own); try again when some of them have started, or cancel some",
                retry_after_s=_JOB_RETRY_AFTER_S,
            )
        self._check_storage(connection, owner, quotas, "a fine-tune would add an adapter")

    def check_export(self, connection: sa.Connection, owner: str) -> None:
        """Let an export wait.

        Raises:
            TooManyRequestsError: As many of its owner's exports wait or run as may.
            QuotaExceededError: As many of its owner's exports are kept as may, or its owner's storage is full.
        """
        quotas = self.quotas_of(connection, owner)
        limit = quotas.max_open_exports
        if limit is not None and (number := _num_exports(connection, owner, _OPEN)) >= limit:
            raise TooManyRequestsError(
                f"{number} of your exports wait or run already, and you may have {limit} "
                "(SIENN_OWNER_MAX_OPEN_EXPORTS, or a limit of your own); try again when one has ended, or cancel one",
                retry_after_s=_EXPORT_RETRY_AFTER_S,
            )
        limit = quotas.max_exports
        if limit is not None and (number := _num_exports(connection, owner, _KEPT)) >= limit:
            raise QuotaExceededError(
                f"you have {number} exports, and may have {limit} (SIENN_OWNER_MAX_EXPORTS, or a limit of your own); "
                "delete some (DELETE /api/exports/{job_id}/{export_id}), or ask an admin for more"
            )
        self._check_storage(connection, owner, quotas, "an export would add to them")

    def _check_storage(self, connection: sa.Connection, owner: str, quotas: Quotas, what: str) -> None:
        """The size of what comes isn't known yet, so that the last one that is let in may go beyond the bound."""
        limit = quotas.max_stored_bytes
        if limit is not None and (stored := _stored_bytes(connection, owner)) >= limit:
            raise too_many_bytes(stored, limit, what)


def _stored_bytes(connection: sa.Connection, owner: str) -> int:
    completed = exports.c.status == ExportStatus.COMPLETED.value
    sums = (
        sa.select(sa.func.sum(datasets.c.size_bytes)).where(datasets.c.owner == owner),
        sa.select(sa.func.sum(jobs.c.adapter_bytes)).where(jobs.c.owner == owner),
        sa.select(sa.func.sum(exports.c.size_bytes))
        .select_from(_EXPORTS_OF_JOBS)
        .where(jobs.c.owner == owner, completed),
    )
    return sum(int(connection.scalar(each) or 0) for each in sums)


def _num_exports(connection: sa.Connection, owner: str, statuses: tuple[str, ...]) -> int:
    of_owner = (jobs.c.owner == owner, exports.c.status.in_(statuses))
    query = sa.select(sa.func.count()).select_from(_EXPORTS_OF_JOBS).where(*of_owner)
    return connection.scalar(query) or 0
