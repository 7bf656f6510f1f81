# SPDX-License-Identifier: Apache-2.0
"""Sees to it that a peer that is gone is noticed, and that nothing small waits for more (TCP-8, TCP-9)."""

import socket
from typing import Final

UNHEARD_MAX: Final = 120.0
"""Seconds that what was sent may go unacknowledged, or untaken, before the connection ends: outages of a cellular link
are shorter, and until then a peer that is gone keeps its place."""
PROBES: Final = 4
"""How often a silent peer is asked within that time before it counts as gone: one question may be lost on the way."""


def set_up(link: socket.socket, keepalive: float) -> None:
    """Send at once, and end with `ETIMEDOUT` what was not heard of for `UNHEARD_MAX` seconds.

    A silent peer is asked for a sign of life after `keepalive` seconds, 0 for never (`#SCFGEXT`). TCP_USER_TIMEOUT
    counts from its last sign (tcp(7)), so that it has to leave the keepalive its time.
    """
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if keepalive:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, round(keepalive)))
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, round(UNHEARD_MAX / PROBES)))
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1 if keepalive else 0)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round((keepalive + UNHEARD_MAX) * 1000))
