"""Limits of requests to servers that users name."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sienn_ray.outbound.addresses import AddressRules


@dataclass(frozen=True)
class OutboundRules:
    """Limits of such requests.

    Args:
        addresses: Which may be connected.
        allows_http: Whether a request may go without encryption.
        timeout_s: Seconds for all of it: lookup, connection, request and answer.
        max_response_bytes: Bytes of an answer that are read.
        setting: Name of the setting that allows further networks, for messages.
    """

    addresses: AddressRules
    allows_http: bool = False
    timeout_s: float = 15.0
    max_response_bytes: int = 1024
    setting: str = ""

    def within(self, timeout_s: float) -> OutboundRules:
        """Return the same rules with so many seconds at the most."""
        return replace(self, timeout_s=min(self.timeout_s, timeout_s))
