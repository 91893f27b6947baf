"""The caller of a request, as `Authentication` has found out."""

from __future__ import annotations

from starlette.types import Scope

from sienn_ray.access.principals import Principal

# The admission of its answers, where these are limited.
ADMISSION = "admission"
# Its key in the state of a request's scope.
PRINCIPAL = "principal"


def principal_of(scope: Scope) -> Principal:
    """Return the caller of a request."""
    principal: Principal = scope["state"][PRINCIPAL]
    return principal
