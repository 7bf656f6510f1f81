# SPDX-License-Identifier: Apache-2.0
"""A name held by a process for as long as it lives, whatever ends it."""

import hashlib
import socket
from pathlib import Path


def claim(path: Path) -> socket.socket | None:
    """Hold a path's name until the socket is closed or the process ends; None where another holds it.

    The name lies in the kernel's abstract namespace (unix(7)), where nothing is left behind.
    """
    name = hashlib.blake2s(str(path.absolute()).encode(errors="surrogateescape"), digest_size=16).hexdigest()
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        holder.bind(f"\0atrund-{name}")
    except OSError:
        holder.close()
        return None
    return holder


def is_claimed(path: Path) -> bool:
    """Return whether a process holds a path's name."""
    holder = claim(path)
    if holder is not None:
        holder.close()
    return holder is None
