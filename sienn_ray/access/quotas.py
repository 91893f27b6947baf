"""Quotas of one owner: how much it may keep, and have waiting or running, at once."""

from __future__ import annotations

from dataclasses import dataclass, fields

from sienn_ray.errors import QuotaExceededError


@dataclass(frozen=True)
class Quotas:
    """Bounds on what one owner has; None is any number.

    Args:
        max_stored_bytes: Bytes of datasets, adapters of completed jobs and completed exports.
        max_pending_jobs: Jobs that wait.
        max_running_jobs: Jobs that run; further ones wait.
        max_open_exports: Exports that wait or run.
        max_exports: Exports that wait, run or are kept.
        max_statistics: Datasets whose statistics are computed at once.
    """

    max_stored_bytes: int | None = None
    max_pending_jobs: int | None = None
    max_running_jobs: int | None = None
    max_open_exports: int | None = None
    max_exports: int | None = None
    max_statistics: int | None = None

    def overridden_by(self, own: Quotas) -> Quotas:
        """Return these quotas, but for those that an owner has bounds of its own for.

        Example:
            >>> Quotas(max_exports=5, max_running_jobs=2).overridden_by(Quotas(max_exports=50)).max_exports
            50
        """
        return Quotas(**{**_known(self), **_known(own)})


@dataclass(frozen=True)
class QuotaUse:
    """Use of one owner's quotas at the moment; see `Quotas`."""

    stored_bytes: int
    pending_jobs: int
    running_jobs: int
    open_exports: int
    exports: int
    # Not known to the database.
    statistics: int = 0


@dataclass(frozen=True)
class QuotaState:
    """The quotas of one owner, and what they are about.

    Args:
        owner: The owner.
        own: Bounds that an admin has set for this owner.
        quotas: The bounds that hold, those of the settings included.
        use: What there is.
    """

    owner: str
    own: Quotas
    quotas: Quotas
    use: QuotaUse

    @property
    def room_bytes(self) -> int | None:
        """Bytes that it may store still; None is any number."""
        limit = self.quotas.max_stored_bytes
        return None if limit is None else max(0, limit - self.use.stored_bytes)


def statistics_bucket(owner: str) -> str:
    """Return the bucket in which an owner's computations of statistics are claimed; see `claims`."""
    return f"statistics {owner}"


def too_many_bytes(stored: int, limit: int, what: str) -> QuotaExceededError:
    """The error of an owner whose storage is full.

    Args:
        stored: Bytes that are stored.
        limit: Bytes that may be.
        what: What would be added.
    """
    return QuotaExceededError(
        f"you store {stored} bytes and may store {limit} (SIENN_OWNER_MAX_STORED_BYTES, or a limit of your own), and "
        f"{what}; delete datasets, jobs or exports, or ask an admin for more"
    )


def _known(quotas: Quotas) -> dict[str, int]:
    values = {each.name: getattr(quotas, each.name) for each in fields(Quotas)}
    return {name: value for name, value in values.items() if value is not None}
