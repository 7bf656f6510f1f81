# SPDX-License-Identifier: Apache-2.0
"""The connection to the broker, held against a broker of the test's own that does what real ones do seldom."""

import asyncio
import contextlib
import json
import math
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from atrund import broker as room
from atrund.broker import Broker, BrokerSettings, Incoming, switched_off
from atrund.broker.connection import WINDOW, Connection
from atrund.ledger import Ledger, tables
from tests.support.virtual import AtOnce

BASE = "atrund/node/"
PATIENCE = 10.0


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(room, "LONGEST_PAUSE", 0.01)


@dataclass
class FakeBroker:
    """Speaks as much MQTT 3.1.1 as a client needs; its attributes are its moods."""

    code: int = 0
    """What it answers a CONNECT with."""
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
        self.connections = 0
        self.acknowledged: list[int] = []
        self.left_in_order = 0
        self.lost = 0
        self.subscribed: list[str] = []
        self.writer: asyncio.StreamWriter | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

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
            writer.close()

    def _take(self, kind: int, body: bytes, writer: asyncio.StreamWriter) -> bool:
        match kind >> 4:
            case 1:
                self.connections += 1
                if not self.silent:
                    queued = b"".join(_publish(n, topic, text) for n, (topic, text) in enumerate(self.queued, 1))
                    writer.write(bytes((0x20, 2, self.session_present, self.code)) + queued)
                if self.queued:
                    time.sleep(0.05)  # the client's thread hears all of it before the loop hears any
            case 8:
                self.subscribed.append(_text(body[2:])[0])
                writer.write(bytes((0x90, 3)) + body[:2] + b"\x01")
            case 3:
                topic, rest = _text(body)
                self.got.append((topic, rest[2:]))
                if self.drops(topic):
                    return False
                if self.acknowledges(topic):
                    writer.write(b"\x40\x02" + rest[:2])
            case 4:
                self.acknowledged.append(int.from_bytes(body[:2], "big"))
            case 14:
                self.left_in_order += 1
        return True


@dataclass
class Scene:
    broker: Broker
    fake: FakeBroker
    ledger: Ledger
    disk: AtOnce
    heard: list[Incoming]
    running: asyncio.Task[None]

    def post(self, *topics: str) -> None:
        for topic in topics:
            text = '{"v":1}'
            self.ledger.behind(tables.post(response=False, topic=BASE + topic, payload=text))

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
)


@contextlib.asynccontextmanager
async def scene(
    fake: FakeBroker,
    on_message: Callable[[Incoming], None] | None = None,
    disk: AtOnce | None = None,
    down: float = 0.0,
    **settings: Any,  # noqa: ANN401 - any of them
) -> AsyncIterator[Scene]:
    port = await fake.start()
    if disk is None:
        disk = AtOnce()
        tables.set_meta(room._AWAY, room._NOT_AWAY)(disk.store.connection)
    ledger = Ledger(disk)
    await ledger.start()
    ledger.down = down
    heard: list[Incoming] = []
    broker = Broker(
        replace(SETTINGS, port=port, **settings),
        base=BASE,
        subscriptions=("at/request", "at/request/+"),
        ledger=ledger,
        status=lambda state, reason: {"state": state, "reason": reason},
        on_message=on_message or heard.append,
    )
    running = asyncio.get_running_loop().create_task(broker.run())
    try:
        yield Scene(broker, fake, ledger, disk, heard, running)
    finally:
        assert not running.done(), "the broker's room ended"
        running.cancel()
        await asyncio.wait({running})
        fake.stop()
        await ledger.close()


async def until(look: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while not look():  # noqa: ASYNC110 - many things are looked at
            await asyncio.sleep(0.002)
    assert look(), what


async def test_what_comes_in_one_piece_with_the_connack_is_taken() -> None:
    """A broker that kept the session sends what waited at once: nothing of it may fall between two chairs."""
    waiting = [(BASE + "at/request", f"AT{n}".encode()) for n in range(5)]
    async with scene(FakeBroker(session_present=True, queued=waiting)) as it:
        await until(lambda: len(it.heard) == 5, "all messages")
        assert [message.payload for message in it.heard] == [text for _, text in waiting]
        assert not it.heard[0].queued
        for message in it.heard:
            message.ack()
        await until(lambda: it.fake.acknowledged == [1, 2, 3, 4, 5], "the acknowledgements")


async def test_no_more_is_read_than_may_wait_though_the_broker_sends_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """mosquitto 2.0.11 forgets the receive maximum behind the first acknowledgement."""
    monkeypatch.setattr("atrund.broker.connection.RECEIVE_MAX", 3)
    monkeypatch.setattr("atrund.broker.connection.PLACE_WAIT", PATIENCE)
    waiting = [(BASE + "at/request", f"AT{n}".encode()) for n in range(9)]
    async with scene(FakeBroker(session_present=True, queued=waiting)) as it:
        for number in range(9):
            await until(lambda: len(it.heard) >= min(9, number + 3), "as many as may wait")  # noqa: B023 - awaited here
            await asyncio.sleep(0.01)
            assert len(it.heard) == min(9, number + 3)
            it.heard[number].ack()
        await until(lambda: it.fake.acknowledged == [*range(1, 10)], "the acknowledgements")


async def test_messages_that_nobody_acknowledges_do_not_end_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atrund.broker.connection.RECEIVE_MAX", 1)
    monkeypatch.setattr("atrund.broker.connection.PLACE_WAIT", 0.01)
    waiting = [(BASE + "at/request", f"AT{n}".encode()) for n in range(4)]
    async with scene(FakeBroker(session_present=True, queued=waiting)) as it:
        await until(lambda: len(it.heard) == 4, "all messages")
        for message in it.heard:
            message.ack()
        await until(lambda: it.fake.acknowledged == [1, 2, 3, 4], "the acknowledgements")


async def test_what_waited_while_we_were_away_long_is_told_as_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    """MQ-2: 60 s of absence, a kept session, 5 s behind the CONNACK."""
    monkeypatch.setattr("atrund.broker.connection.QUEUED_AWAY", 0.0)
    async with scene(FakeBroker(session_present=True)) as it:
        await until(lambda: it.broker.connected, "the connection")
        it.fake.queued = [(BASE + "at/request", b"AT")]
        assert it.fake.writer is not None
        it.fake.writer.transport.abort()
        await until(lambda: it.heard, "the message")
        assert it.heard[0].queued


@pytest.mark.parametrize(
    ("down", "away", "queued"),
    [
        (59.0, room._NOT_AWAY, False),
        (61.0, room._NOT_AWAY, True),
        (math.inf, room._NOT_AWAY, True),
        (1.0, 950.0, False),
        (1.0, 900.0, True),
        (11.0, 950.0, True),
        (1.0, None, True),
    ],
)
async def test_time_without_a_connection_goes_on_over_a_restart(
    down: float, away: float | None, *, queued: bool
) -> None:
    """MQ-2, REQ-11: what the daemon ran without a connection before it, and all the time for which it did not run."""
    disk = AtOnce()
    tables.keep_run(1000.0)(disk.store.connection)
    if away is not None:
        tables.set_meta(room._AWAY, away)(disk.store.connection)
    fake = FakeBroker(session_present=True, queued=[(BASE + "at/request", b"AT")])
    async with scene(fake, disk=disk, down=down) as it:
        await until(lambda: it.heard, "the message")
        assert it.heard[0].queued == queued
        await until(lambda: tables.get_meta(room._AWAY, 0.0)(disk.store.connection) == room._NOT_AWAY, "the note")
        assert it.fake.writer is not None
        it.fake.writer.transport.abort()
        await until(lambda: tables.get_meta(room._AWAY, 0.0)(disk.store.connection) >= 1000.0, "the note")


async def test_while_mqtt_is_off_there_is_no_connection() -> None:
    disk = AtOnce()
    tables.set_meta(room._AWAY, room._NOT_AWAY)(disk.store.connection)
    ledger = Ledger(disk)
    await ledger.start()
    switched_off(ledger)
    assert tables.get_meta(room._AWAY, 5.0)(disk.store.connection) == 0.0
    await ledger.close()


async def test_a_ledger_that_can_not_be_asked_means_long_away() -> None:
    disk = AtOnce()
    disk.broken = "disk I/O error"
    fake = FakeBroker(session_present=True, queued=[(BASE + "at/request", b"AT")])
    async with scene(fake, disk=disk) as it:
        await until(lambda: it.heard, "the message")
        assert it.heard[0].queued
        disk.broken = ""


async def test_without_a_kept_session_nothing_was_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atrund.broker.connection.QUEUED_AWAY", 0.0)
    async with scene(FakeBroker(session_present=False)) as it:
        await until(lambda: it.broker.connected, "the connection")
        it.fake.queued = [(BASE + "at/request", b"AT")]
        assert it.fake.writer is not None
        it.fake.writer.transport.abort()
        await until(lambda: it.heard, "the message")
        assert not it.heard[0].queued


async def test_an_acknowledgement_does_not_go_to_a_later_connection() -> None:
    async with scene(FakeBroker(session_present=True, queued=[(BASE + "at/request", b"AT")])) as it:
        await until(lambda: it.heard, "the message")
        assert it.fake.writer is not None
        it.fake.writer.transport.abort()
        await until(lambda: len(it.heard) == 2, "the message, delivered again")
        it.heard[0].ack()
        it.heard[1].ack()
        await until(lambda: it.fake.acknowledged, "an acknowledgement")
        it.post("event/behind")
        await until(lambda: it.fake.topics() == ["event/behind"], "what was sent behind it")
        assert it.fake.acknowledged == [1]


async def test_a_row_leaves_only_when_it_was_acknowledged() -> None:
    async with scene(FakeBroker(acknowledges=lambda topic: "one" not in topic)) as it:
        it.post("event/one", "event/two")
        await until(lambda: it.outbox == ["event/one"], "the second row's end")
        it.fake.acknowledges = lambda _: True
        assert it.fake.writer is not None
        it.fake.writer.transport.abort()
        await until(lambda: it.outbox == [], "an empty outbox")
        assert it.fake.topics() == ["event/one", "event/two", "event/one"]


async def test_no_more_rows_are_in_flight_than_the_window_holds() -> None:
    async with scene(FakeBroker(acknowledges=lambda topic: "status" in topic)) as it:
        it.post(*(f"event/{n}" for n in range(100)))
        await until(lambda: len(it.fake.topics()) == WINDOW, "a full window")
        await asyncio.sleep(0.05)
        assert it.fake.topics() == [f"event/{n}" for n in range(WINDOW)]


async def test_a_record_that_costs_three_connections_is_set_aside() -> None:
    """MQ-4: it holds up nobody, it takes nobody along, and it is said."""
    fake = FakeBroker(drops=lambda topic: "poison" in topic)
    with capture_logs() as logs:
        async with scene(fake) as it:
            it.post(*(f"event/{n}" for n in range(30)), "event/poison", *(f"event/{n}" for n in range(30, 60)))
            await until(lambda: it.outbox == ["event/poison"], "all others' end")
            it.post("event/later")
            await until(lambda: it.outbox == ["event/poison"] and "event/later" in fake.topics(), "a later one")
    assert fake.topics().count("event/poison") == 3
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["record set aside"]


async def test_a_record_that_cannot_be_sent_at_all_is_set_aside() -> None:
    with capture_logs() as logs:
        async with scene(FakeBroker()) as it:
            it.post("event/#", "event/good")
            await until(lambda: it.outbox == ["event/#"], "the good one's end")
            assert it.fake.connections == 1
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["record set aside"]


async def test_losses_without_a_culprit_set_nothing_aside() -> None:
    """A bad line that breaks again and again, each time a little further on."""
    async with scene(FakeBroker()) as it:
        lost: list[str] = []

        def drops(topic: str) -> bool:
            if "event" in topic and topic not in lost:
                lost.append(topic)
                return True
            return False

        it.fake.drops = drops
        it.post(*(f"event/{n}" for n in range(8)))
        await until(lambda: it.outbox == [], "an empty outbox")
        assert lost == [f"{BASE}event/{n}" for n in range(8)]


async def test_the_goodbye() -> None:
    async with scene(FakeBroker()) as it:
        await until(lambda: it.broker.connected, "the connection")
        await it.broker.say_goodbye("stopped")
        await until(lambda: it.fake.left_in_order, "the end in order")
        status = [text for topic, text in it.fake.got if topic == BASE + "status"]
        assert status == [b'{"state":"online","reason":null}', b'{"state":"offline","reason":"stopped"}']


async def test_what_waits_goes_out_before_the_goodbye(tmp_path: Path) -> None:
    """The rows, what is still to be written behind among them, then `offline`, then nothing."""
    async with scene(FakeBroker(), disk=AtOnce(tmp_path / "ledger.db")) as it:
        await until(lambda: it.broker.connected, "the connection")
        it.post(*(f"event/{n}" for n in range(3 * WINDOW)))
        await it.broker.say_goodbye("stopped")
        it.post("event/late")
        await until(lambda: it.fake.left_in_order, "the end in order")
        states = [json.loads(text)["state"] for topic, text in it.fake.got if topic == BASE + "status"]
        assert states == ["online", "offline"]
        assert it.fake.topics() == [f"event/{n}" for n in range(3 * WINDOW)]
        assert it.fake.got[-1][0] == BASE + "status"
        assert it.outbox == ["event/late"]


async def test_what_the_broker_does_not_take_in_time_waits_for_the_next_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "FLUSH", 0.05)
    async with scene(FakeBroker(acknowledges=lambda topic: "status" in topic)) as it:
        await until(lambda: it.broker.connected, "the connection")
        it.post("event/one", "event/two")
        async with asyncio.timeout(1):
            await it.broker.say_goodbye("stopped")
        await until(lambda: it.fake.left_in_order, "the end in order")
        assert json.loads(it.fake.got[-1][1])["state"] == "offline"
        assert it.outbox == ["event/one", "event/two"]


async def test_a_goodbye_that_nobody_hears_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "FLUSH", 0.05)
    monkeypatch.setattr(room, "GOODBYE", 0.1)
    async with scene(FakeBroker(acknowledges=lambda _: False)) as it:
        await it.broker.say_goodbye("stopped")  # not connected yet: nothing to do
        await until(lambda: it.broker.connected, "the connection")
        async with asyncio.timeout(5):
            await it.broker.say_goodbye("stopped")


async def test_a_goodbye_over_a_connection_that_breaks() -> None:
    async with scene(FakeBroker()) as it:
        await until(lambda: it.broker.connected, "the connection")
        it.fake.drops = lambda _: True
        async with asyncio.timeout(5):
            await it.broker.say_goodbye("stopped")


@pytest.mark.parametrize(
    ("fake", "settings", "says"),
    [
        (FakeBroker(code=5), {}, "refused: Not authorized"),
        (FakeBroker(silent=True), {"connect_timeout": 0.1}, "no answer within 0.1 s"),
        (FakeBroker(), {"host": "name.invalid"}, ""),
        (FakeBroker(), {"host": "a" * 70}, ""),
        (FakeBroker(), {"port": 1}, "Connection refused"),
        (FakeBroker(), {"tls": True, "ca_file": Path(__file__)}, "TLS"),
        (FakeBroker(), {"tls": True, "ca_file": Path("/nowhere")}, "TLS"),
        (FakeBroker(), {"tls": True, "cert_file": Path(__file__), "key_file": Path(__file__)}, "TLS"),
    ],
)
async def test_a_broker_that_cannot_be_had_is_said_once_and_tried_again(
    fake: FakeBroker, settings: dict[str, Any], says: str
) -> None:
    tries = 0

    class Counting(Connection):
        def __init__(self, *given: Any) -> None:  # noqa: ANN401 - handed on
            nonlocal tries
            tries += 1
            super().__init__(*given)

    with pytest.MonkeyPatch.context() as patch, capture_logs() as logs:
        patch.setattr(room, "Connection", Counting)
        port = settings.pop("port", None)
        async with scene(fake, **settings) as it:
            if port is not None:
                it.broker._settings = replace(it.broker._settings, port=port)
            await until(lambda: tries >= 4, "another try")
            assert not it.broker.connected
    away = [entry["detail"] for entry in logs if entry["event"] == "broker away"]
    assert len(away) == len(set(away)) <= 2
    assert says in away[0]


async def test_a_message_that_is_not_handled_ends_nothing() -> None:
    heard: list[bytes] = []

    def on_message(message: Incoming) -> None:
        heard.append(message.payload)
        raise RuntimeError(message.topic)

    fake = FakeBroker(session_present=True, queued=[(BASE + "at/request", b"one"), (BASE + "at/request", b"two")])
    with capture_logs() as logs:
        async with scene(fake, on_message) as it:
            await until(lambda: heard == [b"one", b"two"], "both")
            it.post("event/x")
            await until(lambda: it.outbox == [], "an empty outbox")
            assert it.fake.connections == 1
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["request not handled"] * 2


async def test_publishing_past_the_outbox() -> None:
    async with scene(FakeBroker()) as it:
        it.broker.publish(BASE + "event/unheard", {}, {})
        await until(lambda: it.broker.connected, "the connection")
        it.broker.publish(BASE + "event/heard", {"x": 1}, {})
        await until(lambda: it.fake.topics() == ["event/heard"], "the message")


async def test_a_password_is_not_shown() -> None:
    assert "geheim" not in repr(replace(SETTINGS, user="me", password="geheim"))


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


def _publish(number: int, topic: str, payload: bytes) -> bytes:
    name = topic.encode()
    body = len(name).to_bytes(2, "big") + name + number.to_bytes(2, "big") + payload
    assert len(body) < 128
    return bytes((0x32, len(body))) + body
