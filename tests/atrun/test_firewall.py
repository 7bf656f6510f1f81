# SPDX-License-Identifier: Apache-2.0
"""Who may knock at the TCP door (TCP-2)."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.atrun.firewall import Instruction, admits, socket_filter


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


def passes(program: tuple[Instruction, ...], packet: bytes) -> bool:
    """Run a filter as linux/filter.h has it, for the few instructions that these are made of."""
    at, value = 0, 0
    while True:
        code, if_true, if_false, constant = program[at]
        at += 1
        match code:
            case 0x20:
                offset = constant - 0xFFF00000
                value = int.from_bytes(packet[offset : offset + 4])
            case 0x54:
                value &= constant
            case 0x15:
                at += if_true if value == constant else if_false
            case 0x06:
                return bool(constant)
            case _:
                raise AssertionError(code)


def packet(peer: IPv4Address | IPv6Address) -> bytes:
    """A network header with nothing in it but who sent it."""
    return bytes(12) + peer.packed + bytes(4) if peer.version == 4 else bytes(8) + peer.packed + bytes(16)


addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
rules_and_peers = st.one_of(
    *(
        st.tuples(
            st.lists(st.builds(Accept, st.ip_addresses(v=version), st.ip_addresses(v=version)), max_size=21),
            st.ip_addresses(v=version),
        )
        for version in (4, 6)
    )
)


@given(rules_and_peers, st.data())
def test_the_kernel_s_filter_passes_whom_the_rules_admit(
    given: tuple[list[Accept], IPv4Address | IPv6Address], data: st.DataObject
) -> None:
    rules, peer = given
    others = data.draw(st.lists(st.builds(Accept, addresses, addresses).filter(of_one_family), max_size=3))
    in_a_rule: bool = data.draw(st.booleans())
    if rules and in_a_rule:  # a peer of the last rule, whatever its other bits are
        rule = rules[-1]
        bits = int(rule.mask)
        peer = type(peer)(int(rule.address) & bits | int(peer) & ~bits & (1 << peer.max_prefixlen) - 1)
    program = socket_filter([*others, *rules], peer.version)
    if peer.version == 6 and peer.ipv4_mapped is not None:
        return  # an IPv6 socket of ours takes no such peer (IPV6_V6ONLY)
    assert passes(program, packet(peer)) == admits([*others, *rules], str(peer))


def of_one_family(rule: Accept) -> bool:
    return rule.address.version == rule.mask.version


def test_no_jump_is_too_long_for_its_octet() -> None:
    rules = [accept(f"2001:db8::{number:x}", "ffff:" * 7 + "ffff") for number in range(21)]
    program = socket_filter(rules, 6)
    assert len(program) == 21 * 13 + 1
    assert all(0 <= jump <= 255 for _, *jumps, _ in program for jump in jumps)
