"""A limit on guesses: requests for tokens and sessions of one address, right or wrong."""

from __future__ import annotations

import math
from typing import Any, cast

from fastapi import Depends, Request

from sienn_ray.api.access.rate_gate import RateGate
from sienn_ray.api.deps import AllBackendsDep
from sienn_ray.api.http.rate_limits import network_of
from sienn_ray.errors import TooManyRequestsError


async def _token_permit(request: Request, backends: AllBackendsDep) -> None:
    """Take a permit; raises `TooManyRequestsError` where none is left."""
    settings = backends.settings
    if not settings.is_auth_on or not settings.token_rate_limits:
        return
    gate = cast(RateGate, request.app.state.rate_gate)
    passage = await gate.passage(f"tokens {network_of(request.scope)}", settings.token_rate_limits)
    if not passage.is_allowed and passage.grant is not None:
        grant = passage.grant
        raise TooManyRequestsError(
            f"more than {grant.limit} requests for tokens or sessions in {grant.window_s} s (SIENN_TOKEN_RATE_LIMITS)",
            max(1, math.ceil(grant.reset_s)),
        )


def takes_token_permit() -> Any:
    """Return what a route has among its dependencies to be limited so."""
    return Depends(_token_permit)
