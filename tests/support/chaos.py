# SPDX-License-Identifier: Apache-2.0
"""A program: a TCP proxy that delays, stalls and cuts what goes through it, by chance from a seed.

`PORT SEED` leads to a port of this host; the first line on standard output is its own. Each fault is a line more.
SIGUSR1 makes it calm: from then on it passes on what it gets, and cuts nothing.
"""

import asyncio
import contextlib
import random
import signal
import socket
import struct
import sys
from typing import Final

PIECE_MAX: Final = 1500
"""Octets that are passed on at a time: about what fits into a segment, so that packets are cut in the middle, too."""
LIFE: Final = (1_000, 60_000)
"""Octets after which a connection is cut, by chance between these two: one to a hundred requests' worth."""
DELAYED: Final = 0.2
DELAY: Final = 0.01
"""How many of the pieces are late, and by how many seconds at most."""
STALLED: Final = 0.01
STALL: Final = 0.3
"""How many pieces are late for longer."""
SILENT: Final = 0.25
SILENCE: Final = 0.4
"""How many cuts come after so many seconds in which nothing goes through, as when a network goes away."""


class Proxy:
    """All connections."""

    def __init__(self, port: int, seed: str) -> None:
        self._port = port
        self._seed = seed
        self._count = 0
        self._calm = False

    async def serve(self) -> None:
        """Serve for ever."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._calm_down)
        _say(str(server.sockets[0].getsockname()[1]))
        await server.serve_forever()

    def _calm_down(self) -> None:
        self._calm = True
        _say("calm")

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count += 1
        chance = random.Random(f"{self._seed} {self._count}")  # noqa: S311 - faults are to come again with the seed
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        life = Life(chance.randint(*LIFE))
        ways = [
            self._pass_on(reader, far_writer, life, random.Random(chance.random())),  # noqa: S311 - as above
            self._pass_on(far_reader, writer, life, random.Random(chance.random())),  # noqa: S311 - as above
        ]
        tasks = [asyncio.ensure_future(way) for way in ways]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if life.over and chance.random() < SILENT:
            _say(f"silence {self._count}")
            life.silent = True
            await asyncio.sleep(SILENCE)
        for task in tasks:
            task.cancel()
        for end in (writer, far_writer):
            _break(end)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, life: "Life", chance: random.Random
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(chance.randint(1, PIECE_MAX)):
                if not self._calm:
                    piece = piece[: life.spend(len(piece))]
                    await self._hold_back(chance)
                if life.silent:
                    await asyncio.sleep(SILENCE)
                writer.write(piece)
                await writer.drain()
                if life.over:
                    _say(f"cut {self._count}")
                    return

    async def _hold_back(self, chance: random.Random) -> None:
        if chance.random() < STALLED:
            _say(f"stall {self._count}")
            await asyncio.sleep(chance.random() * STALL)
        elif chance.random() < DELAYED:
            await asyncio.sleep(chance.random() * DELAY)


class Life:
    """How many octets a connection has left, both ways together."""

    def __init__(self, left: int) -> None:
        self._left = left
        self.over = False
        self.silent = False

    def spend(self, octets: int) -> int:
        """Take octets, and return how many there were."""
        taken = min(octets, self._left)
        self._left -= taken
        self.over = not self._left
        return taken


def _break(writer: asyncio.StreamWriter) -> None:
    """End with a reset, so that nothing more arrives."""
    if (end := writer.get_extra_info("socket")) is not None:
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    asyncio.run(Proxy(int(sys.argv[1]), sys.argv[2]).serve())
