# SPDX-License-Identifier: Apache-2.0
"""A TCP port for a server that a test starts, chosen by the kernel and held until that server is there."""

import socket
from collections import deque
from typing import Final

KEPT: Final = 64
"""Ports held at once: more than one test needs."""

_held: Final[deque[socket.socket]] = deque()


def free_port() -> int:
    """Return a port of 127.0.0.1 which nobody else who asks the kernel for one gets meanwhile.

    The socket that holds it has SO_REUSEADDR and never listens, so a server that sets the same option, as all of these
    do, may listen there, and a call before it does is refused.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    _held.append(holder)
    if len(_held) > KEPT:
        _held.popleft().close()
    port: int = holder.getsockname()[1]
    return port
