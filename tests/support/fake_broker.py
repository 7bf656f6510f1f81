# SPDX-License-Identifier: Apache-2.0
"""A broker of a test's own, which does what real ones do seldom, and a daemon's connection to it."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from atrund import broker as room
from atrund.broker import Broker, BrokerSettings, Incoming, dialling
from atrund.ledger import Ledger, outbox, tables
from tests.support.virtual import AtOnce

if TYPE_CHECKING:
    from ssl import SSLContext

BASE = "atrund/node/"
PATIENCE = 10.0


@dataclass
class FakeBroker:
    """Speaks as much MQTT 3.1.1, or 5, as a client needs; its attributes are its moods."""

    code: int = 0
    """What it answers a CONNECT with."""
    version5: bool = False
    properties: bytes = b""
    """With MQTT 5, what else is in its CONNACK."""
    retained: list[tuple[str, bytes]] = field(default_factory=list)
    """Messages that lie at these topics, sent to who subscribes to them."""
    granted: Callable[[str], int] = lambda _: 1
    """What it answers a subscription with."""
    refuses: Callable[[str], int] = lambda _: 0
    """With MQTT 5, the reason code of the PUBACK."""
    session_present: bool = False
    queued: list[tuple[str, bytes]] = field(default_factory=list)
    """Messages sent in one piece with the CONNACK."""
    silent: bool = False
    """Whether it answers a CONNECT at all."""
    drops: Callable[[str], bool] = lambda _: False
    """Topics over which it drops the connection."""
    acknowledges: Callable[[str], bool] = lambda _: True

    def __post_init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.flags: list[int] = []
        """The flags of each PUBLISH: 8 DUP, 2 QoS 1, 1 retained."""
        self.properties_got: list[bytes] = []
        """With MQTT 5, the properties of each."""
        self.connections = 0
        self.acknowledged: list[int] = []
        self.left_in_order = 0
        self.lost = 0
        self.came: list[float] = []
        """When each connection came, on the loop's clock."""
        self.subscribed: list[str] = []
        self.writer: asyncio.StreamWriter | None = None
        self.tls: SSLContext | None = None
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=self.tls)
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    def send(self, packet: bytes) -> None:
        assert self.writer is not None
        self.writer.write(packet)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Hand a message with QoS 0 out."""
        self.send(_publish(0, topic, payload, retain=retain, version5=self.version5))

    def drop(self) -> None:
        """End the connection."""
        assert self.writer is not None
        self.writer.transport.abort()

    def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        if self.writer is not None:
            self.writer.transport.abort()

    def topics(self, below: str = "event/") -> list[str]:
        return [topic.removeprefix(BASE) for topic, _ in self.got if topic.startswith(BASE + below)]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        try:
            while True:
                kind = (await reader.readexactly(1))[0]
                if not self._take(kind, await reader.readexactly(await _length(reader)), writer):
                    writer.transport.abort()
                    return
        except (asyncio.IncompleteReadError, OSError):
            self.lost += 1
        finally:
            if not writer.is_closing():  # by TLS of Python 3.11.2 (Debian 12) an abort behind a second close raises
                writer.close()

    def _take(self, kind: int, body: bytes, writer: asyncio.StreamWriter) -> bool:
        match kind >> 4:
            case 1:
                self._answer_connect(writer)
            case 8:
                self._answer_subscribe(body, writer)
            case 3:
                return self._answer_publish(kind, body, writer)
            case 4:
                self.acknowledged.append(int.from_bytes(body[:2], "big"))
            case 14:
                self.left_in_order += 1
        return True

    def _answer_connect(self, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.came.append(asyncio.get_running_loop().time())
        if not self.silent:
            given = bytes((len(self.properties),)) + self.properties if self.version5 else b""
            answer = bytes((0x20, 2 + len(given), self.session_present, self.code)) + given
            for number, (topic, text) in enumerate(self.queued, 1):
                answer += _publish(number, topic, text, version5=self.version5)
            writer.write(answer)
        if self.queued:
            time.sleep(0.05)  # the client's thread hears all of it before the loop hears any

    def _answer_subscribe(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        rest = body[3 + body[2] :] if self.version5 else body[2:]
        topics, codes = [], b"\0" if self.version5 else b""
        while rest:
            topic, rest = _text(rest)
            topics.append(topic)
            codes, rest = codes + bytes((self.granted(topic),)), rest[1:]
        self.subscribed += topics
        writer.write(bytes((0x90, 2 + len(codes))) + body[:2] + codes)
        for topic, payload in self.retained:
            if topic in topics:
                self.publish(topic, payload, retain=True)

    def _answer_publish(self, kind: int, body: bytes, writer: asyncio.StreamWriter) -> bool:
        topic, rest = _text(body)
        qos = kind >> 1 & 3
        mid, rest = (rest[:2], rest[2:]) if qos else (b"", rest)
        if self.version5:
            self.properties_got.append(rest[1 : 1 + rest[0]])
            rest = rest[1 + rest[0] :]
        self.got.append((topic, rest))
        self.flags.append(kind & 0x0F)
        if self.drops(topic):
            return False
        if qos and self.acknowledges(topic):
            code = bytes((self.refuses(topic),)) if self.refuses(topic) else b""
            writer.write(bytes((0x40, 2 + len(code))) + mid + code)
        return True


@dataclass
class Scene:
    broker: Broker
    fake: FakeBroker
    ledger: Ledger
    disk: AtOnce
    heard: list[Incoming]
    running: asyncio.Task[None]
    given: BrokerSettings

    async def listen(self) -> None:
        """Have the broker listen that did not yet."""
        await self.fake.start(self.given.port)

    def post(self, *topics: str) -> None:
        for topic in topics:
            text = '{"v":1}'
            self.ledger.behind(outbox.post(response=False, topic=BASE + topic, payload=text))

    @property
    def outbox(self) -> list[str]:
        return [topic.removeprefix(BASE) for (topic,) in self.disk.rows("SELECT topic FROM outbox ORDER BY seq")]


SETTINGS = BrokerSettings(
    host="127.0.0.1",
    port=0,
    client_id="atrund-node",
    version5=False,
    keepalive=60,
    session_expiry=3600,
    connect_timeout=PATIENCE,
    reconnect_max=0.01,
)


def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the broker dialled again at once, whatever happened."""
    monkeypatch.setattr(dialling, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(dialling, "_PACES", dict.fromkeys(dialling._PACES, dialling._Pace(0.01, 0.01)))


@contextlib.asynccontextmanager
async def scene(
    fake: FakeBroker,
    on_message: Callable[[Incoming], None] | None = None,
    *,
    disk: AtOnce | None = None,
    down: float = 0.0,
    since: float | str | None = None,
    session: str = "",
    listens: bool = True,
    own_port: int = 0,
    clock_known: bool = True,
    **settings: Any,  # noqa: ANN401 - any of them
) -> AsyncIterator[Scene]:
    """A daemon's connection to that broker.

    `since`: since which second of its running the daemon is away from each broker, "" where nothing is known of it.
    """
    port = await fake.start(own_port)
    if not listens:
        fake.stop()
    given = replace(SETTINGS, **{"port": port, "version5": fake.version5, **settings})
    disk = disk or AtOnce()
    if since != "":
        kept = json.dumps({each.name: [since] for each in given.each()})
        tables.set_text(room._NOTES, kept)(disk.store.connection)
    ledger = Ledger(disk)
    await ledger.start()
    ledger.down = down
    heard: list[Incoming] = []
    own = {"session": session} if session else {}
    broker = Broker(
        given,
        base=BASE,
        subscriptions=("at/request", "at/request/+"),
        ledger=ledger,
        status=lambda state, reason: {"state": state, "reason": reason, **own},
        on_message=on_message or heard.append,
        clock_known=lambda: clock_known,
    )
    running = asyncio.get_running_loop().create_task(broker.run())
    try:
        yield Scene(broker, fake, ledger, disk, heard, running, given)
    finally:
        ended = running.done()
        running.cancel()
        await asyncio.wait({running})
        fake.stop()
        await ledger.close()
        assert not ended, "the broker's room ended"


async def until(look: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while not look():  # noqa: ASYNC110 - many things are looked at
            await asyncio.sleep(0.002)
    assert look(), what


async def _length(reader: asyncio.StreamReader) -> int:
    length = shift = 0
    while True:
        octet = (await reader.readexactly(1))[0]
        length |= (octet & 0x7F) << shift
        if octet < 0x80:
            return length
        shift += 7


def _text(body: bytes) -> tuple[str, bytes]:
    end = 2 + int.from_bytes(body[:2], "big")
    return body[2:end].decode(), body[end:]


def _publish(number: int, topic: str, payload: bytes, *, retain: bool = False, version5: bool = False) -> bytes:
    name = topic.encode()
    mid = number.to_bytes(2, "big") if number else b""
    body = len(name).to_bytes(2, "big") + name + mid + (b"\0" if version5 else b"") + payload
    length = bytes((len(body),)) if len(body) < 128 else bytes((len(body) & 0x7F | 0x80, len(body) >> 7))
    return bytes((0x30 | (2 if number else 0) | retain,)) + length + body
