"""Bodies about the quotas of owners."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field

from sienn_ray.access.owners import OWNER_PATTERN
from sienn_ray.access.quotas import Quotas, QuotaState
from sienn_ray.api.schemas.common import RequestBody, ResponseBody

# A database's BIGINT, as far as every JSON parser holds it exactly, and its INTEGER.
_MAX_BYTES, _MAX_NUMBER = 2**53 - 1, 2**31 - 1

_Bytes = Annotated[int | None, Field(ge=0, le=_MAX_BYTES)]
_Number = Annotated[int | None, Field(ge=0, le=_MAX_NUMBER)]


class SetLimitsRequest(RequestBody):
    """All bounds that one owner is to have of its own; where a field is null, the service's setting holds."""

    owner: str = Field(pattern=OWNER_PATTERN, description="Whose limits they are.", examples=["ada"])
    max_stored_bytes: _Bytes = Field(
        None, description="Bytes of datasets, adapters and exports.", examples=[50 * 1024**3]
    )
    max_pending_jobs: _Number = Field(None, description="Jobs that wait.", examples=[20])
    max_running_jobs: _Number = Field(None, description="Jobs that run.", examples=[2])
    max_open_exports: _Number = Field(None, description="Exports that wait or run.", examples=[4])
    max_exports: _Number = Field(None, description="Exports that wait, run or are kept.", examples=[100])
    max_statistics: _Number = Field(None, description="Datasets whose statistics are computed at once.", examples=[1])

    @property
    def quotas(self) -> Quotas:
        """The bounds."""
        return Quotas(**self.model_dump(exclude={"owner"}))


class Quota(ResponseBody):
    """One quota of an owner."""

    used: int = Field(description="What there is now.", examples=[3])
    limit: int | None = Field(description="What there may be; null is any number.", examples=[20])
    is_own: bool = Field(description="Whether an admin has set it for this owner.", examples=[False])


class OwnerLimits(ResponseBody):
    """The quotas of one owner, with what is used of them."""

    owner: str = Field(description="Whose they are.", examples=["ada"])
    stored_bytes: Quota = Field(description="Bytes of datasets, adapters and exports.")
    pending_jobs: Quota = Field(description="Jobs that wait.")
    running_jobs: Quota = Field(description="Jobs that run.")
    open_exports: Quota = Field(description="Exports that wait or run.")
    exports: Quota = Field(description="Exports that wait, run or are kept.")
    statistics: Quota = Field(description="Datasets whose statistics are computed now.")

    @classmethod
    def of(cls, state: QuotaState) -> Self:
        """Return what an owner is told of its quotas."""
        return cls(owner=state.owner, **{name: _quota(state, name) for name in cls.model_fields.keys() - {"owner"}})


def _quota(state: QuotaState, name: str) -> Quota:
    bound = f"max_{name}"
    return Quota(
        used=getattr(state.use, name),
        limit=getattr(state.quotas, bound),
        is_own=getattr(state.own, bound) is not None,
    )
