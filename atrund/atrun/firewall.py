# SPDX-License-Identifier: Apache-2.0
"""Who may knock at the TCP door (TCP-2): the rules, and the socket filter that the kernel keeps to.

A filter is a program of classic BPF instructions, each (code, jump if true, jump if false, constant).
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Protocol

Address = IPv4Address | IPv6Address
Instruction = tuple[int, int, int, int]


class Rule(Protocol):
    """An ACCEPT rule: a peer of the same family passes if `peer & mask == address & mask`."""

    @property
    def address(self) -> Address:
        """The network's address, of which only the bits under the mask count."""
        ...

    @property
    def mask(self) -> Address:
        """The mask, which may have holes."""
        ...


def address_of(peer: str) -> Address:
    """Return a peer's address without its zone; that of an IPv4 peer at an IPv6 socket is an IPv4 one."""
    address = ip_address(peer.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def admits(rules: Iterable[Rule], peer: str) -> bool:
    """Return whether a rule lets the peer in; an empty list admits nobody. An IPv4-mapped peer matches IPv4 rules."""
    address = address_of(peer)
    return any(
        rule.address.version == address.version and int(address) & int(rule.mask) == int(rule.address) & int(rule.mask)
        for rule in rules
    )


def socket_filter(rules: Iterable[Rule], version: int) -> tuple[Instruction, ...]:
    """Return the program for a socket of IP `version` 4 or 6 that passes what `admits` does, and drops the rest.

    Such a program may read the network header (linux/filter.h, SKF_NET_OFF), where the peer's address stands: at octet
    12 in IPv4 (RFC 791 3.1), at octet 8 in IPv6 (RFC 8200 3).
    """
    program: list[Instruction] = []
    for rule in rules:
        if rule.address.version == version:
            program += _of_rule(rule, _SOURCE[version])
    return (*program, _DROP)


def _of_rule(rule: Rule, source: int) -> list[Instruction]:
    """Compare word by word; the first that differs leads behind this rule."""
    octets, mask = rule.address.packed, rule.mask.packed
    words = [
        (source + at, int.from_bytes(mask[at : at + 4]), int.from_bytes(octets[at : at + 4]))
        for at in range(0, len(octets), 4)
        if any(mask[at : at + 4])
    ]
    steps: list[Instruction] = []
    for number, (at, bits, wanted) in enumerate(words, 1):
        left = 3 * (len(words) - number) + 1
        steps += [(_LOAD, 0, 0, _NET + at), (_AND, 0, 0, bits), (_EQUALS, 0, left, wanted & bits)]
    return [*steps, _PASS]


_LOAD: Final = 0x20
"""BPF_LD | BPF_W | BPF_ABS (linux/bpf_common.h), as the next ones are."""
_AND: Final = 0x54
_EQUALS: Final = 0x15
_RETURN: Final = 0x06
_PASS: Final = (_RETURN, 0, 0, 0xFFFFFFFF)
_DROP: Final = (_RETURN, 0, 0, 0)
_NET: Final = 0xFFF00000
"""SKF_NET_OFF, -0x100000: offsets from there on count from the network header."""
_SOURCE: Final = {4: 12, 6: 8}
