"""Rows as the model reads them, rendered for a few requests at a time and no longer than a request waits."""

from __future__ import annotations

import asyncio

from sienn_ray.api.deps import Renderings
from sienn_ray.datasets.rendered_schema import RenderedPage, RenderingRequest
from sienn_ray.errors import CapacityError

# Each is a process with a tokenizer in it.
_MAX_RUNNING = 2
_RETRY_AFTER_S = 30


class BoundedRenderings:
    """Has rows rendered. One of these in each process.

    Args:
        renderings: Renders.
        timeout_s: Longest wait of one client, its turn included.
    """

    def __init__(self, renderings: Renderings, timeout_s: float) -> None:
        self._renderings = renderings
        self._timeout_s = timeout_s
        self._places = asyncio.Semaphore(_MAX_RUNNING)

    async def render(self, request: RenderingRequest) -> RenderedPage:
        """Render some rows.

        Raises:
            CapacityError: It takes longer than `timeout_s`.
            SiennError: Why it couldn't be done.
        """
        try:
            async with asyncio.timeout(self._timeout_s), self._places:
                return await self._renderings.render(request)
        except TimeoutError:
            raise CapacityError(
                f"the rows weren't rendered within {self._timeout_s:.0f} s (SIENN_STATISTICS_TIMEOUT_S); ask again "
                "later, or for fewer rows",
                retry_after_s=_RETRY_AFTER_S,
            ) from None
