# SPDX-License-Identifier: Apache-2.0
"""Who may knock at the TCP door (TCP-2)."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Protocol

Address = IPv4Address | IPv6Address


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


def admits(rules: Iterable[Rule], peer: str) -> bool:
    """Return whether a rule lets the peer in; an empty list admits nobody. An IPv4-mapped peer matches IPv4 rules."""
    address = ip_address(peer.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(
        rule.address.version == address.version and int(address) & int(rule.mask) == int(rule.address) & int(rule.mask)
        for rule in rules
    )
