# SPDX-License-Identifier: Apache-2.0
"""Gathers octets into packets by `#SCFG`'s packet size and transmission timeout (TCP-8; commands.md 5.3).

Times are seconds of a clock that only goes forward.
"""

from dataclasses import dataclass
from typing import Final

PACKET_MAX: Final = 1500
"""The greatest packet size; 0 chooses what one segment of the connection holds, as far as that is less."""


@dataclass(frozen=True, slots=True)
class Packets:
    """`size` in octets, 0 for what suits the connection; `timeout` and `keepalive` in seconds, 0 for none."""

    size: int = 300
    timeout: float = 5.0
    keepalive: float = 0.0

    def octets(self, segment: int) -> int:
        """Return how many make a packet on a connection whose segments hold so many."""
        return self.size or max(1, min(segment, PACKET_MAX))


class Packer:
    """Withholds what fills no packet yet; more than a packet goes at once, whole, for cutting it would cost more."""

    def __init__(self, size: int, timeout: float) -> None:
        """`timeout`: seconds that the first octet of one may wait, 0 for as long as it takes to fill it."""
        self._size = size
        self._timeout = timeout
        self._since = 0.0
        self._gathered = bytearray()

    @property
    def due(self) -> float | None:
        """When `flush` is to be called, None for not at all."""
        return self._since + self._timeout if self._gathered and self._timeout else None

    def put(self, data: bytes, now: float) -> bytes:
        """Take octets and return what is to be sent now, b"" for nothing yet."""
        if not self._gathered:
            if len(data) >= self._size:
                return data
            self._since = now
        self._gathered += data
        return self.flush() if len(self._gathered) >= self._size else b""

    def flush(self) -> bytes:
        """Return what waits, for it is to wait no more."""
        gathered = bytes(self._gathered)
        self._gathered.clear()
        return gathered
