"""Usage by day, API key and model."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query

from sienn_ray.access.owners import OWNER_PATTERN
from sienn_ray.access.principals import Scope
from sienn_ray.access.usage import UsageGroup, UsageQuery
from sienn_ray.api.access.scopes import PrincipalDep, needs
from sienn_ray.api.deps import BackendsDep
from sienn_ray.api.http.errors import documented
from sienn_ray.api.lists.paging import MAX_LIMIT
from sienn_ray.api.monitoring.monitoring import MonitoringDep
from sienn_ray.api.schemas.api_keys import KEY_ID
from sienn_ray.api.schemas.usage import Day, GroupName, UsageResponse
from sienn_ray.catalog import CATALOG
from sienn_ray.errors import InvalidInputError
from sienn_ray.jobs.naming import PRINTABLE_PATTERN

router = APIRouter(prefix="/api", tags=["Access"])

_MAX_OFFSET = 10_000_000


@router.get(
    "/usage",
    summary="What was used?",
    responses=documented(HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE),
    dependencies=[needs(*Scope)],
)
async def get_usage(
    backends: BackendsDep,
    principal: PrincipalDep,
    monitoring: MonitoringDep,
    first_day: Annotated[
        Day | None, Query(alias="from", description="The first day, in UTC.", examples=["2026-11-01"])
    ] = None,
    last_day: Annotated[
        Day | None, Query(alias="to", description="The last day, in UTC.", examples=["2026-11-30"])
    ] = None,
    key: Annotated[
        str | None, Query(max_length=64, pattern=PRINTABLE_PATTERN, description="Id of an API key.", examples=[KEY_ID])
    ] = None,
    model: Annotated[
        str | None,
        Query(
            max_length=200,
            pattern=PRINTABLE_PATTERN,
            description="A base model, or the job of an adapter.",
            examples=[CATALOG[0].id],
        ),
    ] = None,
    owner: Annotated[
        str | None,
        Query(pattern=OWNER_PATTERN, description="Whose, for admins; by default all.", examples=["ada"]),
    ] = None,
    group_by: Annotated[
        list[GroupName] | None,
        Query(
            max_length=len(UsageGroup),
            description="What rows are of; may be given more than once. By default `day`.",
            examples=[["day", "model"]],
        ),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Rows at the most.", examples=[100])] = 100,
    offset: Annotated[int, Query(ge=0, le=_MAX_OFFSET, description="Rows to pass over.", examples=[0])] = 0,
) -> UsageResponse:
    """Requests, tokens, seconds and bytes: one's own, or, for an admin, those of all owners.

    What the last seconds used, on other replicas, may be missing still.
    """
    if first_day is not None and last_day is not None and first_day > last_day:
        raise InvalidInputError(f"from={first_day} is behind to={last_day}; ask for days that follow each other")
    is_of_all = owner is None and principal.is_admin
    query = UsageQuery(
        first_day=first_day,
        last_day=last_day,
        owner=None if is_of_all else principal.owner_asked_for(owner),
        key_id=key,
        model=model,
        group_by=tuple(dict.fromkeys(group_by or [UsageGroup.DAY])),
        limit=limit,
        offset=offset,
    )
    await monitoring.usage_flusher.flush()
    return UsageResponse.of(await backends.tracker.usage(query), offset)
