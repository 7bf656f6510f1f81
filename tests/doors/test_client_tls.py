# SPDX-License-Identifier: Apache-2.0
"""Client mode by TLS: with whom it speaks, and what is said where it doesn't (TCP-13)."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atrund.doors.certificates import Certificates
from atrund.doors.connection import Connection
from atrund.doors.dialling import Far, LookUps, open_call, ways
from atrund.tls import Files, client_context, server_context
from tests.support.certificates import Authority, Pair


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("far.example", "DNS:far.example", "IP:127.0.0.1")


class Made(asyncio.Protocol):
    """Stands for a connection."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


async def call(files: Files, port: int, server_name: str = "", timeout: float = 10.0) -> Made:
    made = Made()

    def make() -> Connection:
        return made  # type: ignore[return-value]  # which is no session, and need not be

    far = Far("127.0.0.1", port, timeout, tls=True, server_name=server_name)
    certificates = Certificates(lambda: files, client_context, "tcp.client.tls")
    await open_call(far, make, LookUps(), lambda: certificates)
    assert made.transport is not None
    return made


@contextlib.asynccontextmanager
async def listening(context: ssl.SSLContext | None) -> AsyncIterator[int]:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(writer)
        if context is None:
            writer.write(b"220 far.example\r\n")

    calls: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in calls:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@pytest.mark.parametrize("name", ["", "far.example"])
async def test_a_far_end_that_is_who_was_called(authority: Authority, pair: Pair, name: str) -> None:
    async with listening(server_context(Files(*pair))) as port:
        made = await call(Files(ca=authority.file), port, name)
        assert made.transport is not None
        assert made.transport.get_extra_info("ssl_object").version() == "TLSv1.3"
        made.transport.abort()


async def test_a_far_end_that_asks_for_a_certificate(authority: Authority, pair: Pair) -> None:
    async with listening(server_context(Files(*pair, authority.file))) as port:
        own = authority.issue("gateway")
        made = await call(Files(*own, authority.file), port)
        assert made.transport is not None
        made.transport.abort()
        made = await call(Files(ca=authority.file), port)
        await asyncio.wait_for(made.lost, 10)  # in TLS 1.3 the far end looks at it behind our handshake


async def test_why_it_speaks_with_nobody_else(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    def said(port: int, what: str) -> str:
        return rf"127\.0\.0\.1 port {port}: {what}"

    ours, gone = Files(ca=authority.file), Files(ca=tmp_path / "gone")
    async with listening(server_context(Files(*pair))) as port:
        with pytest.raises(OSError, match=said(port, "its certificate is of no authority that is trusted here")):
            await call(Files(ca=Authority(tmp_path, "elsewhere").file), port)
        with pytest.raises(OSError, match=said(port, "its certificate is for another name than was called")):
            await call(ours, port, "near.example")
        with pytest.raises(OSError, match=said(port, r"tcp\.client\.tls: ca: No such file or directory")):
            await call(gone, port)
    async with listening(server_context(Files(*authority.issue("old", "IP:127.0.0.1", days=-1)))) as port:
        with pytest.raises(OSError, match=said(port, "its certificate has expired")):
            await call(ours, port)
    async with listening(None) as port:
        with pytest.raises(OSError, match=said(port, "it does not speak TLS")):
            await call(ours, port)


async def test_a_far_end_that_never_shakes_hands(authority: Authority) -> None:
    """The time for a call has the handshake in it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(OSError, match=rf"port {port}: no answer within 0\.5 s"):
            await call(Files(ca=authority.file), port, timeout=0.5)


async def test_without_certificates_nobody_is_called_in_clear_text() -> None:
    async with listening(None) as port:
        with pytest.raises(OSError, match="nobody speaks TLS here"):
            await open_call(Far("127.0.0.1", port, 10.0, tls=True), lambda: pytest.fail("called"), LookUps())


def test_tls_goes_any_way() -> None:
    assert ways(Far("a", 1, 1.0), "192.0.2.1") == ()
    assert ways(Far("a", 1, 1.0, tls=True), "192.0.2.1") == ("",)
    assert ways(Far("a", 1, 1.0, "wwan0", tls=True), "192.0.2.1") == ("wwan0",)
