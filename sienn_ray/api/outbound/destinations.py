"""Checks of URLs that users name, before anything is sent to them."""

from __future__ import annotations

from sienn_ray.api.deps import Backends
from sienn_ray.outbound.client import OutboundClient

# Of a lookup that somebody waits for at the other end of a request.
_LONGEST_CHECK_S = 5.0


async def checked_webhook_url(text: str, backends: Backends, owner: str) -> str:
    """Return the URL of a webhook in its one spelling.

    Args:
        text: The URL as its owner has written it.
        backends: Whose settings and resolver count.
        owner: Who is to have the webhook; of each owner a few names are looked up at once.

    Raises:
        DestinationError: Nothing is sent there.
        OutOfReachError: Nobody said in time what its host means.
    """
    rules = backends.settings.webhook_rules.within(_LONGEST_CHECK_S)
    return (await OutboundClient(rules, backends.resolver).checked(text, owner)).text
