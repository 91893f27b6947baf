"""Checks of URLs that users name, before anything is sent to them."""

from __future__ import annotations

import asyncio

from sienn_ray.api.deps import Backends
from sienn_ray.outbound.client import OutboundClient

# Of a lookup that somebody waits for at the other end of a request.
_LONGEST_CHECK_S = 5.0


async def checked_webhook_url(text: str, backends: Backends) -> str:
    """Return the URL of a webhook in its one spelling.

    Raises:
        DestinationError: Nothing is sent there.
    """
    rules = backends.settings.webhook_rules.within(_LONGEST_CHECK_S)
    client = OutboundClient(rules, backends.resolver)
    return (await asyncio.to_thread(client.checked, text)).text
