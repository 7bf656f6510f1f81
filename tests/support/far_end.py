# SPDX-License-Identifier: Apache-2.0
"""The far end of client mode, in a test's own event loop: takes calls, and can go away and come back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from atrund.config.values import Config, Sms, Tcp, TcpClient
from tests.support.calling import Caller
from tests.support.virtual import House, config, running
from tests.support.waiting import ready


class FarEnd:
    """Listens on loopback. `calls`: those that came, in order; `at`: when."""

    def __init__(self) -> None:
        self.calls: list[Caller] = []
        self.at: list[float] = []
        self.port = 0
        self.drops = False
        """Whether it takes calls and closes them at once."""
        self._taken = 0
        self._came = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        """Take calls, at the port of before if there was one."""
        self._server = await asyncio.start_server(self._call, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def deaf(self) -> None:
        """Take no more: the kernel refuses calls from now on."""
        assert self._server is not None
        self._server.close()

    async def call(self, within: float = 30.0) -> Caller:
        """Wait for the next call."""
        async with asyncio.timeout(within):
            while len(self.calls) <= self._taken:
                self._came.clear()
                await self._came.wait()
        self._taken += 1
        return self.calls[self._taken - 1]

    def close(self) -> None:
        self.deaf()
        for call in self.calls:
            call.writer.transport.abort()

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.at.append(asyncio.get_running_loop().time())
        self.calls.append(Caller(reader, writer))
        self._came.set()
        if self.drops:
            writer.close()


def calls_out(far: FarEnd, tcp: Tcp | None = None, **options: Any) -> Config:  # noqa: ANN401 - any option
    """The configuration of a daemon in client mode; `options` are those of `tcp.client`."""
    client = TcpClient(**{"enabled": True, "host": "127.0.0.1", "port": far.port, **options})
    return config(tcp=replace(tcp or Tcp(), client=client), sms=Sms())


@contextlib.asynccontextmanager
async def called(
    tcp: Tcp | None = None,
    *,
    listens: bool = True,
    drops: bool = False,
    **options: Any,  # noqa: ANN401 - any option
) -> AsyncIterator[tuple[House, FarEnd]]:
    """A daemon in client mode, and whom it calls."""
    far = FarEnd()
    await far.listen()
    if not listens:
        far.deaf()
    far.drops = drops
    try:
        async with running(calls_out(far, tcp, **options)) as house:
            await ready(house)
            yield house, far
    finally:
        far.close()
