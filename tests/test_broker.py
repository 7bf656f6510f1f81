# SPDX-License-Identifier: Apache-2.0
"""The connection to the broker, held against a broker of the test's own that does what real ones do seldom."""

import asyncio
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from atrund import broker as room
from atrund.broker import Incoming, switched_off
from atrund.broker.connection import WINDOW, Connection
from atrund.ledger import Ledger, tables
from tests.support.fake_broker import BASE, PATIENCE, SETTINGS, FakeBroker, no_pauses, scene, until
from tests.support.virtual import AtOnce


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    no_pauses(monkeypatch)


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
    ("down", "since", "queued"),
    [
        (59.0, None, False),
        (61.0, None, True),
        (math.inf, None, True),
        (1.0, 950.0, False),
        (1.0, 900.0, True),
        (11.0, 950.0, True),
        (1.0, "", True),
    ],
)
async def test_time_without_a_connection_goes_on_over_a_restart(
    down: float, since: float | str | None, *, queued: bool
) -> None:
    """MQ-2, REQ-11: what the daemon ran without a connection before it, and all the time for which it did not run."""
    disk = AtOnce()
    tables.keep_run(1000.0)(disk.store.connection)
    fake = FakeBroker(session_present=True, queued=[(BASE + "at/request", b"AT")])

    def note() -> Any:  # noqa: ANN401 - what was kept
        notes = json.loads(tables.get_text(room._NOTES)(disk.store.connection) or "{}")
        return notes.get(it.broker._each[0].name, [-1.0])[0]

    async with scene(fake, disk=disk, down=down, since=since) as it:
        await until(lambda: it.heard, "the message")
        assert it.heard[0].queued == queued
        await until(lambda: note() is None, "the note")
        fake.drop()
        await until(lambda: (note() or 0.0) >= 1000.0, "the note")


async def test_while_mqtt_is_off_there_is_no_connection() -> None:
    disk = AtOnce()
    tables.set_text(room._NOTES, '{"a:1883": [null]}')(disk.store.connection)
    ledger = Ledger(disk)
    await ledger.start()
    switched_off(ledger)
    assert tables.get_text(room._NOTES)(disk.store.connection) == ""
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
        async with scene(fake, **settings) as it:
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
