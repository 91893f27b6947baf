"""The dependencies by which a route asks who sends a request, and for a scope."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends
from fastapi.requests import HTTPConnection

from sienn_ray.access.principals import Principal, Scope
from sienn_ray.api.access.callers import principal_of


async def _principal(connection: HTTPConnection) -> Principal:
    return principal_of(connection.scope)


PrincipalDep = Annotated[Principal, Depends(_principal)]


class NeededScope:
    """A dependency that lets through who has one of some scopes.

    Args:
        scopes: The scopes.
    """

    def __init__(self, *scopes: Scope) -> None:
        self.scopes = scopes

    async def __call__(self, connection: HTTPConnection) -> None:
        """Raise `ForbiddenError` for others."""
        principal_of(connection.scope).check(*self.scopes)


def needs(*scopes: Scope) -> Any:
    """Return what a route, or a router, has among its dependencies to ask for one of some scopes.

    Example:
        `router = APIRouter(prefix="/api", dependencies=[needs(Scope.READ, Scope.TRAIN)])`
    """
    return Depends(NeededScope(*scopes))
