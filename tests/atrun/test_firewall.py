# SPDX-License-Identifier: Apache-2.0
"""Who may knock at the TCP door (TCP-2)."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.atrun.firewall import admits


@dataclass(frozen=True)
class Accept:
    address: IPv4Address | IPv6Address
    mask: IPv4Address | IPv6Address


def accept(address: str, mask: str) -> Accept:
    return Accept(ip_address(address), ip_address(mask))


HOME = accept("217.0.0.0", "255.0.0.0")
HOLED = accept("10.0.0.7", "255.0.0.255")
SIX = accept("2001:db8::", "ffff:ffff::")
ANY = Accept(IPv4Address(0), IPv4Address(0))
ANY_SIX = accept("::", "::")


@pytest.mark.parametrize("peer", ["127.0.0.1", "217.1.2.3", "::1", "2001:db8::1", "::ffff:217.1.2.3"])
def test_an_empty_list_admits_nobody(peer: str) -> None:
    assert not admits([], peer)


@pytest.mark.parametrize(
    ("rule", "peer", "admitted"),
    [
        (HOME, "217.1.2.3", True),
        (HOME, "217.255.255.255", True),
        (HOME, "216.255.255.255", False),
        (HOME, "218.0.0.0", False),
        (accept("217.9.9.9", "255.0.0.0"), "217.1.2.3", True),
        (accept("212.141.112.216", "255.255.255.255"), "212.141.112.216", True),
        (accept("212.141.112.216", "255.255.255.255"), "212.141.112.217", False),
        (HOLED, "10.1.2.7", True),
        (HOLED, "10.255.255.7", True),
        (HOLED, "10.1.2.8", False),
        (HOLED, "11.0.0.7", False),
        (ANY, "203.0.113.5", True),
        # an IPv4 peer on a dual-stack socket
        (HOME, "::ffff:217.1.2.3", True),
        (HOME, "::ffff:218.1.2.3", False),
        (HOME, "::ffff:d901:203", True),
        (ANY_SIX, "::ffff:217.1.2.3", False),
        # the two families never match each other
        (ANY, "2001:db8::1", False),
        (ANY, "::", False),
        (ANY, "::217.1.2.3", False),
        (ANY_SIX, "217.1.2.3", False),
        (SIX, "2001:db8:1::1", True),
        (SIX, "2001:db9::1", False),
        (accept("fe80::", "ffc0::"), "fe80::1%eth0", True),
        (accept("fe80::", "ffc0::"), "fec0::1%eth0", False),
        (accept("fe80::1", "ffc0::ffff"), "fe80:0:0:7::1%2", True),
    ],
)
def test_a_rule_compares_what_lies_under_its_mask(rule: Accept, peer: str, *, admitted: bool) -> None:
    assert admits([rule], peer) is admitted


def test_one_of_several_rules_is_enough() -> None:
    assert admits([HOLED, SIX, HOME], "217.1.2.3")
    assert not admits([HOLED, SIX, HOME], "218.1.2.3")


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), st.ip_addresses(v=4))
def test_a_mapped_peer_fares_as_the_same_peer_unmapped(peer: IPv4Address, rule: IPv4Address, mask: IPv4Address) -> None:
    rules = [Accept(rule, mask)]
    assert admits(rules, f"::ffff:{peer}") is admits(rules, str(peer))
    assert admits(rules, str(peer)) is (int(peer) & int(mask) == int(rule) & int(mask))
