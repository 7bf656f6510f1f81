# SPDX-License-Identifier: Apache-2.0
"""A serial port with a device at it, for tests in virtual time: what it takes, and when, a test says."""

import asyncio

from atrund.relay import Listener


class Line:
    """Takes at most `room` octets until a test gives it more; what the device says waits while it is not read."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self._got = bytearray()
        self.said = bytearray()
        self.reads = self.watches = self.closed = False
        self.opened_at: list[int] = []
        self.most_waiting = 0
        self._receiver: Listener | None = None

    @property
    def got(self) -> bytes:
        """What the device was sent."""
        return bytes(self._got)

    # What the relay says.

    def listen(self, receiver: Listener) -> None:
        self._receiver = receiver
        self.read(on=True)

    def read(self, *, on: bool) -> None:
        self.reads = on
        if on and self.said:
            asyncio.get_running_loop().call_soon(self._deliver)

    def write(self, data: bytes) -> int:
        assert data
        taken = data[: self.room]
        self.room -= len(taken)
        self._got += taken
        return len(taken)

    def watch_room(self, *, on: bool) -> None:
        self.watches = on

    async def close(self, unsent: bytes = b"") -> None:
        self._receiver = None
        await asyncio.sleep(0.5)
        self._got += unsent
        self.closed = True

    # What a test says.

    def give_room(self, octets: int) -> None:
        """Let the port take so many more."""
        self.room += octets
        while self.room and self.watches and self._receiver is not None:
            self._receiver.has_room()

    def say(self, data: bytes) -> None:
        """Let the device say something."""
        self.said += data
        self._deliver()

    def unplug(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost("unplugged")

    def _deliver(self) -> None:
        while self.reads and self.said and self._receiver is not None:
            piece, self.said = bytes(self.said[:4096]), self.said[4096:]
            self._receiver.received(piece)
