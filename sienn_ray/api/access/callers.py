"""The caller of a request, as `Authentication` has found out, and what knows callers by their credentials."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends
from fastapi.requests import HTTPConnection
from starlette.types import Scope

from sienn_ray.access.principals import Principal
from sienn_ray.api.access.credentials import Credentials

# The admission of its answers, where these are limited.
ADMISSION = "admission"
# Its key in the state of a request's scope.
PRINCIPAL = "principal"


def principal_of(scope: Scope) -> Principal:
    """Return the caller of a request."""
    principal: Principal = scope["state"][PRINCIPAL]
    return principal


async def _credentials(connection: HTTPConnection) -> Credentials:
    return cast(Credentials, connection.app.state.credentials)


CredentialsDep = Annotated[Credentials, Depends(_credentials)]
