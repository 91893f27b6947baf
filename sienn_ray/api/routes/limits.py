"""Quotas of owners: what one may store, and have waiting and running."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query

from sienn_ray.access.owners import OWNER_PATTERN
from sienn_ray.access.principals import Scope
from sienn_ray.api.access.scopes import PrincipalDep, needs
from sienn_ray.api.deps import BackendsDep
from sienn_ray.api.http.errors import documented
from sienn_ray.api.schemas.limits import OwnerLimits, SetLimitsRequest

router = APIRouter(prefix="/api/limits", tags=["Access"])

_RESPONSES = documented(HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE)

OwnerQuery = Annotated[
    str | None,
    Query(pattern=OWNER_PATTERN, description="Whose, for admins; by default the caller's own.", examples=["ada"]),
]


@router.get("", summary="What may I have, and what do I have?", responses=_RESPONSES, dependencies=[needs(*Scope)])
async def get_limits(backends: BackendsDep, principal: PrincipalDep, owner: OwnerQuery = None) -> OwnerLimits:
    """An owner's quotas, with what is used of them."""
    return OwnerLimits.of(await backends.tracker.quota_state(principal.owner_asked_for(owner)))


@router.put("", summary="Set the limits of an owner", responses=_RESPONSES, dependencies=[needs(Scope.ADMIN)])
async def set_limits(body: SetLimitsRequest, backends: BackendsDep) -> OwnerLimits:
    """Give an owner bounds of its own, in place of all that it had; without any, the service's settings hold.

    What there is beyond a bound stays; nothing is added to it.
    """
    return OwnerLimits.of(await backends.tracker.set_owner_quotas(body.owner, body.quotas))
