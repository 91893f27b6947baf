"""Check that a base model is available, with a deadline for the hub."""

from __future__ import annotations

import asyncio

from sienn_ray import catalog
from sienn_ray.errors import CapacityError
from sienn_ray.settings import Settings

# Several questions to the hub, each with its own deadline.
_TIMEOUT_FACTOR = 3


async def check_base_model(base_model: str, settings: Settings) -> None:
    """Check that a base model is available.

    Raises:
        InvalidBaseModelError: It can't.
        CapacityError: The hub doesn't answer.
    """
    timeout_s = settings.hub_timeout_s * _TIMEOUT_FACTOR
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.to_thread(catalog.resolve, base_model, settings.hub_timeout_s)
    except TimeoutError:
        raise CapacityError(
            f"the model hub hasn't said within {timeout_s:.0f} s if it has '{base_model}'", retry_after_s=30
        ) from None
