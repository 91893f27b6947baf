"""Addresses that a request to a server may go to which a user has named.

What counts is the address that is connected, never a name. Public is what the registries of the IANA have as globally
reachable (iana-ipv4-special-registry, iana-ipv6-special-registry). They are written down here, since Python's own table
changes with its version.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SPECIAL = {
    "0.0.0.0/8": "this network",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "a carrier's NAT",
    "127.0.0.0/8": "loopback",
    "169.254.0.0/16": "link-local",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "reserved",
    "192.0.2.0/24": "documentation",
    "192.31.196.0/24": "reserved",
    "192.52.193.0/24": "reserved",
    "192.88.99.0/24": "a relay of 6to4",
    "192.168.0.0/16": "private",
    "192.175.48.0/24": "reserved",
    "198.18.0.0/15": "benchmarks",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
    "::/128": "unspecified",
    "::1/128": "loopback",
    "::/96": "an embedded IPv4 address",
    "64:ff9b::/96": "NAT64",
    "64:ff9b:1::/48": "NAT64",
    "fc00::/7": "private",
    "fe80::/10": "link-local",
    "fec0::/10": "private",
    "ff00::/8": "multicast",
    "2001::/23": "reserved",
    "2001:db8::/32": "documentation",
    "2002::/16": "6to4",
    "3fff::/20": "documentation",
}
_SPECIAL_NETWORKS = tuple((ipaddress.ip_network(text), words) for text, words in _SPECIAL.items())
# All other IPv6 is reserved.
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# Of ISATAP: an IPv4 address in the lower half of any IPv6 address (RFC 5214).
_ISATAP_MASK, _ISATAP = 0xFDFFFFFF, 0x00005EFE
# Who may ask these is given a machine's credentials. Not all are in a network that is special for others.
_METADATA = frozenset(
    map(
        ipaddress.ip_address,
        ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254"),
    )
)


@dataclass(frozen=True)
class AddressRules:
    """Addresses that may be connected: public ones, and those that an operator allows.

    Args:
        allowed: Networks that are allowed all the same. An address of a cloud's metadata has to be named alone.
    """

    allowed: tuple[Network, ...] = ()

    @classmethod
    def parsed(cls, networks: Iterable[str]) -> AddressRules:
        """Return the rules with networks such as `10.0.0.0/8` or `192.168.1.7`.

        Raises:
            ValueError: One is no network.
        """
        return cls(tuple(ipaddress.ip_network(text) for text in networks))

    def fault_of(self, address: Address) -> str | None:
        """Say why an address mustn't be connected, or None if it may be."""
        plain = without_mapping(address)
        holding = [each for each in self.allowed if each.version == plain.version and plain in each]
        if plain in _METADATA:
            is_named = any(each.num_addresses == 1 for each in holding)
            return None if is_named else "that of a cloud's metadata"
        return None if holding else _kind_of(plain)


def without_mapping(address: Address) -> Address:
    """Return an address without a zone; what is an IPv4 address in IPv6 (`::ffff:10.0.0.1`) as that."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    return address.ipv4_mapped or ipaddress.IPv6Address(int(address))


def _kind_of(address: Address) -> str | None:
    """What an address is that isn't public, in words."""
    for network, words in _SPECIAL_NETWORKS:
        if network.version == address.version and address in network:
            return words
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address not in _GLOBAL_UNICAST:
        return "reserved"
    return "ISATAP" if (int(address) >> 32) & _ISATAP_MASK == _ISATAP else None
