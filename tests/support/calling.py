# SPDX-License-Identifier: Apache-2.0
"""The TCP door of a daemon under virtual time, and whoever calls there."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from ipaddress import ip_address
from typing import Any

from atrund.atrun.secrets import Secret
from atrund.config.values import FirewallRule, Recovery, Sms, Tcp, TcpUser
from tests.support.virtual import House, config, running
from tests.support.waiting import ready

HERE = FirewallRule(ip_address("127.0.0.1"), ip_address("255.255.255.255"))
LOGIN = b"operator\rgeheim\r"


@contextlib.asynccontextmanager
async def door(word: str = "geheim", recovery: Recovery | None = None, **options: Any) -> AsyncIterator[House]:  # noqa: ANN401 - any option
    users = (TcpUser("operator", Secret(word)),)
    given = {"port": 0, "firewall": (HERE,), "users": users, **options}
    async with running(config(tcp=Tcp(enabled=True, **given), sms=Sms(), recovery=recovery or Recovery())) as house:
        await ready(house)
        yield house


class Caller:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, line: bytes, final: bytes = b"\r\nOK\r\n") -> bytes:
        self.writer.write(line)
        return await self.reader.readuntil(final)

    async def rest(self) -> bytes:
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := await self.reader.read(65536):
                found += piece
        return found


@contextlib.asynccontextmanager
async def calling(house: House, *, login: bool = True) -> AsyncIterator[Caller]:
    assert house.daemon.tcp is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", house.daemon.tcp.ports[0])
    try:
        if login:
            writer.write(LOGIN)
        yield Caller(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
