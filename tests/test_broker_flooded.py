# SPDX-License-Identifier: Apache-2.0
"""More than was agreed, faster than it can be taken, or what is no MQTT: memory and the connection hold."""

import asyncio
import gc
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from atrund.broker import client, connection
from atrund.broker.connection import Connection
from atrund.broker.settings import Incoming
from tests.support.fake_broker import BASE, SETTINGS, FakeBroker, no_pauses, scene, until

TOPIC = BASE + "at/request"
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    no_pauses(monkeypatch)


def packet(kind: int, body: bytes) -> bytes:
    """A packet of any length (MQTT 3.1.1 2.2.3)."""
    length, left = b"", len(body)
    while not length or length[-1] & 0x80:
        length += bytes((left & 0x7F | (0x80 if left > 0x7F else 0),))
        left >>= 7
    return bytes((kind,)) + length + body


def text(topic: bytes) -> bytes:
    return len(topic).to_bytes(2, "big") + topic


def files() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@asynccontextmanager
async def opened(fake: FakeBroker, on_message: Callable[[Incoming], None]) -> AsyncIterator[Connection]:
    """A connection alone."""
    port = await fake.start()
    settings = replace(SETTINGS, port=port, version5=fake.version5)
    made = Connection(settings, asyncio.get_running_loop(), (BASE + "status", "x"), on_message, 0.0)
    try:
        await made.open()
        yield made
    finally:
        await made.close()
        fake.stop()


@pytest.mark.parametrize("version5", [False, True])
async def test_of_a_packet_that_is_too_long_the_beginning_is_kept(*, version5: bool) -> None:
    """The connection holds, for a request that ended it would come again; and the next one is whole."""
    heard: list[Incoming] = []
    fake = FakeBroker(version5=version5)
    none = b"\0" if version5 else b""
    async with opened(fake, heard.append) as it:
        fake.send(packet(0x32, text(TOPIC.encode()) + b"\0\1" + none + b"AT" + b"x" * 8 * MIB))
        fake.send(packet(0x32, text(TOPIC.encode()) + b"\0\2" + none + b"AT+CSQ"))
        await until(lambda: len(heard) == 2, "both")
        assert client.PACKET_MAX - 100 < len(heard[0].payload) < client.PACKET_MAX
        assert heard[0].payload.startswith(b"ATx")
        assert heard[1].payload == b"AT+CSQ"
        for message in heard:
            message.ack()
        await until(lambda: fake.acknowledged == [1, 2], "the acknowledgements")
        assert not it.closed.done()


async def test_a_flood_of_qos_0_waits_at_the_broker_and_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What paho has read and the loop has not taken is bounded, whoever does not get round to it."""
    monkeypatch.setattr(connection, "RECEIVE_MAX", 7)
    monkeypatch.setattr(connection, "PLACE_WAIT", 10.0)
    hops = 0
    heard: list[Incoming] = []
    all_read = threading.Event()
    fake = FakeBroker()
    async with opened(fake, heard.append) as it:
        hop = it._hop

        def counted(act: Callable[..., None], *given: object) -> None:
            nonlocal hops
            hops += 1
            if hops == 8:
                all_read.set()
            hop(act, *given)

        monkeypatch.setattr(it, "_hop", counted)
        for _ in range(100):
            fake.publish(TOPIC, b"AT")
        assert not all_read.wait(0.3), "the loop takes nothing here"
        assert hops == 7
        await until(lambda: len(heard) == 100, "all of them, once it does")


async def test_a_topic_that_is_no_text_takes_no_place_and_does_not_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "RECEIVE_MAX", 2)
    monkeypatch.setattr(connection, "PLACE_WAIT", 100.0)
    async with scene(FakeBroker()) as it:
        await until(lambda: it.broker.connected, "the connection")
        for number in range(1, 6):
            it.fake.send(packet(0x32, text(TOPIC.encode() + b"/\xff\xfe") + bytes((0, number)) + b"AT"))
        await until(lambda: it.fake.acknowledged == [1, 2, 3, 4, 5], "the acknowledgements")
        it.fake.publish(TOPIC, b"AT")
        await until(lambda: len(it.heard) == 1, "one that is in order")
        assert it.broker.connects == 1


async def test_what_comes_before_the_broker_has_answered_is_not_heard() -> None:
    """MQTT 3.1.1 3.2: the first packet is the CONNACK. Who we are to the broker is not known before."""
    heard: list[Incoming] = []
    fake = FakeBroker(silent=True)
    port = await fake.start()
    made = Connection(
        replace(SETTINGS, port=port), asyncio.get_running_loop(), (BASE + "status", "x"), heard.append, 0.0
    )
    opening = asyncio.get_running_loop().create_task(made.open())
    try:
        await until(lambda: fake.connections, "the call")
        fake.publish(TOPIC, b"AT")
        fake.send(b"\x20\x02\0\0")
        await opening
        fake.publish(TOPIC, b"AT+CSQ")
        await until(lambda: heard, "the request behind it")
        assert [message.payload for message in heard] == [b"AT+CSQ"]
    finally:
        await made.close()
        fake.stop()


async def test_the_end_does_not_wait_for_a_line_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is still to be sent, and the farewell behind it, would be waited for as long as the keep-alive."""
    monkeypatch.setattr(connection, "LEAVE_WAIT", 0.1)
    loop = asyncio.get_running_loop()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        settings = replace(SETTINGS, port=listener.getsockname()[1])
        made = Connection(settings, loop, (BASE + "status", "x"), lambda _: None, 0.0)
        opening = loop.create_task(made.open())
        far_end, _ = await loop.sock_accept(listener)
        with far_end:
            await loop.sock_recv(far_end, 1000)
            await loop.sock_sendall(far_end, b"\x20\x02\0\0")
            await opening
            own = made._client.socket()
            assert isinstance(own, socket.socket)
            own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            for _ in range(connection.WINDOW):
                made.publish("a", "x" * 100_000, {}, retain=False)
            await until(made._client.want_write, "more than the line takes")
            begun = time.monotonic()
            await made.close()
            assert time.monotonic() - begun < 5


async def test_a_connection_that_is_over_holds_no_file_until_somebody_collects_it() -> None:
    fake = FakeBroker(drops=lambda _: True)
    gc.disable()
    try:
        async with scene(fake, reconnect_max=0.001) as it:
            await until(lambda: fake.connections > 3, "some")
            before = files()
            await until(lambda: fake.connections > 33, "many more")
            assert files() < before + 15
            assert it.broker.connects > 30
            fake.drops = lambda _: False
            await until(lambda: it.broker.connected, "one that holds")
    finally:
        gc.enable()
