"""The caller of a request, as `Authentication` has found out, and what knows callers by their credentials."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends
from fastapi.requests import HTTPConnection
from starlette.types import Scope

from sienn_ray.access.principals import NOBODY, Principal
from sienn_ray.api.access.credentials import Credentials

# The admission of its answers, where these are limited.
ADMISSION = "admission"
# Its key in the state of a request's scope.
PRINCIPAL = "principal"


def principal_of(scope: Scope) -> Principal:
    """Return the caller of a request."""
    principal: Principal = scope["state"][PRINCIPAL]
    return principal


def note_proof(scope: Scope, principal: Principal) -> None:
    """Note who a request has proved to be where nobody is asked to, for what is told of it from now on."""
    if principal_of(scope) is NOBODY:
        scope["state"][PRINCIPAL] = principal


async def _credentials(connection: HTTPConnection) -> Credentials:
    return cast(Credentials, connection.app.state.credentials)


CredentialsDep = Annotated[Credentials, Depends(_credentials)]
