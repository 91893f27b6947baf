"""Which addresses a request may go to."""

from __future__ import annotations

import ipaddress
import random
from typing import Any

import pytest

from sienn_ray.outbound.addresses import AddressRules

PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700:4700::1111", "2a00:1450::1"]
NOT_PUBLIC = [
    ("0.0.0.0", "this network"),
    ("0.1.2.3", "this network"),
    ("10.0.0.1", "private"),
    ("100.64.0.1", "a carrier's NAT"),
    ("100.127.255.255", "a carrier's NAT"),
    ("127.0.0.1", "loopback"),
    ("127.255.255.254", "loopback"),
    ("169.254.0.1", "link-local"),
    ("169.254.169.254", "that of a cloud's metadata"),
    ("169.254.170.2", "that of a cloud's metadata"),
    ("100.100.100.200", "that of a cloud's metadata"),
    ("168.63.129.16", "that of a cloud's metadata"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "private"),
    ("192.0.0.8", "reserved"),
    ("192.0.2.1", "documentation"),
    ("192.88.99.1", "a relay of 6to4"),
    ("192.168.1.1", "private"),
    ("198.18.0.1", "benchmarks"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.250", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "reserved"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("::7f00:1", "an embedded IPv4 address"),
    ("::ffff:127.0.0.1", "loopback"),
    ("::ffff:10.1.2.3", "private"),
    ("::ffff:169.254.169.254", "that of a cloud's metadata"),
    ("64:ff9b::7f00:1", "NAT64"),
    ("64:ff9b::808:808", "NAT64"),
    ("64:ff9b:1::a00:1", "NAT64"),
    ("100::1", "reserved"),
    ("fc00::1", "private"),
    ("fd00:ec2::254", "that of a cloud's metadata"),
    ("fe80::1", "link-local"),
    ("fe80::1%eth0", "link-local"),
    ("fec0::1", "private"),
    ("ff02::1", "multicast"),
    ("2001::1", "reserved"),
    ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "reserved"),
    ("2001:db8::1", "documentation"),
    ("2002:7f00:1::", "6to4"),
    ("3fff::1", "documentation"),
    ("5f00::1", "reserved"),
    ("4000::1", "reserved"),
    ("2a00:1450::5efe:a00:1", "ISATAP"),
    ("2a00:1450::200:5efe:127.0.0.1", "ISATAP"),
]


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_allowed(text: str) -> None:
    assert AddressRules().fault_of(ipaddress.ip_address(text)) is None


@pytest.mark.parametrize(("text", "words"), NOT_PUBLIC)
def test_others_are_not(text: str, words: str) -> None:
    assert AddressRules().fault_of(ipaddress.ip_address(text)) == words


@pytest.mark.parametrize("num_bits", [32, 128])
def test_nothing_is_public_that_python_knows_not_to_be(num_bits: int) -> None:
    """Anywhere in each network that Python's own table has, and in all of the space."""
    draw = random.Random(7)
    kind = ipaddress.IPv4Address if num_bits == 32 else ipaddress.IPv6Address
    constants: Any = vars(kind)["_constants"]
    numbers = [
        int(network.network_address) + draw.randrange(network.num_addresses)
        for network in constants._private_networks
        for _ in range(50)
    ]
    numbers += [draw.getrandbits(num_bits) for _ in range(2000)]
    missed = {
        str(kind(number))
        for number in numbers
        if not kind(number).is_global and AddressRules().fault_of(kind(number)) is None
    }
    assert missed == set()


@pytest.mark.parametrize("text", ["127.0.0.1", "::ffff:127.0.0.1", "10.9.8.7", "fd12::1"])
def test_an_operator_allows_networks(text: str) -> None:
    rules = AddressRules.parsed(["127.0.0.0/8", "10.9.8.7", "fd12::/16"])
    assert rules.fault_of(ipaddress.ip_address(text)) is None
    assert rules.fault_of(ipaddress.ip_address("10.9.8.6")) == "private"


@pytest.mark.parametrize("text", ["169.254.169.254", "168.63.129.16", "fd00:ec2::254"])
def test_metadata_is_allowed_by_name_only(text: str) -> None:
    address = ipaddress.ip_address(text)
    assert AddressRules.parsed(["0.0.0.0/0", "::/0"]).fault_of(address) == "that of a cloud's metadata"
    assert AddressRules.parsed([text]).fault_of(address) is None


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0", "all", ""])
def test_what_is_no_network_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=r"does not appear|has host bits"):
        AddressRules.parsed([text])
