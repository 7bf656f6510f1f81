# SPDX-License-Identifier: Apache-2.0
"""Several brokers, their limits, their refusals, and other devices of the same name: what becomes of the connection."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from atrund import broker as room
from atrund.broker import BrokerSettings, Place, connection, dialling
from atrund.broker.outbox import Outbox
from atrund.ledger import tables
from tests.support.fake_broker import BASE, SETTINGS, FakeBroker, Scene, no_pauses, scene, until
from tests.support.virtual import AtOnce

REQUEST = (BASE + "at/request", b"AT")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    no_pauses(monkeypatch)


@contextlib.asynccontextmanager
async def two(
    first: FakeBroker,
    second: FakeBroker,
    *,
    listens: bool = True,
    **given: Any,  # noqa: ANN401
) -> AsyncIterator[Scene]:
    """A daemon with a preferred broker, which may not listen yet, and a fallback."""
    port = await second.start()
    try:
        async with scene(first, fallbacks=(Place("127.0.0.1", port),), listens=listens, **given) as it:
            yield it
    finally:
        second.stop()


def reason(code: int) -> bytes:
    """A DISCONNECT of MQTT 5."""
    return bytes((0xE0, 2, code, 0))


# Several brokers


async def test_the_next_stands_in_for_one_that_is_not_there() -> None:
    first, second = FakeBroker(), FakeBroker()
    async with two(first, second, listens=False) as it:
        await until(lambda: it.broker.connected, "the connection")
        assert (first.connections, second.connections) == (0, 1)
        assert it.broker.report() == {
            "connected": True,
            "broker": it.broker._each[1].name,
            "preferred": False,
            "detail": "",
            "another_device": False,
        }
        it.post("event/x")
        await until(lambda: second.topics() == ["event/x"], "the record")


@pytest.mark.parametrize("code", [3, 5])
async def test_the_next_stands_in_for_one_that_refuses(code: int) -> None:
    async with two(FakeBroker(code=code), FakeBroker()) as it:
        await until(lambda: it.broker.connected, "the connection")
        assert it.broker.report()["preferred"] is False


async def test_the_next_stands_in_for_one_that_answers_nothing() -> None:
    async with two(FakeBroker(silent=True), FakeBroker(), connect_timeout=0.2) as it:
        await until(lambda: it.broker.connected, "the connection")
        assert it.broker.report()["preferred"] is False


async def test_the_next_stands_in_for_one_that_drops_every_connection() -> None:
    first = FakeBroker(drops=lambda _: True)
    async with two(first, FakeBroker()) as it:
        await until(lambda: not it.broker.report()["preferred"] and it.broker.connected, "the other")
        assert first.connections == 1


async def test_a_loss_is_followed_by_a_try_with_the_preferred_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "STABLE", 0.0)
    first, second = FakeBroker(), FakeBroker()
    async with two(first, second, listens=False) as it:
        await until(lambda: it.broker.connected, "the fallback")
        await it.listen()
        second.drop()
        await until(lambda: it.broker.connected and it.broker.report()["preferred"], "the preferred one")
        assert (first.connections, second.connections) == (1, 1)


async def test_a_preferred_one_that_answers_again_is_gone_back_to() -> None:
    """In order: what waits goes out, `offline` is the last word there, and no will is left behind."""
    first, second = FakeBroker(), FakeBroker()
    async with two(first, second, listens=False, return_after=0.1) as it:
        await until(lambda: it.broker.connected, "the fallback")
        it.post("event/x")
        await asyncio.sleep(0.3)
        assert second.connections == 1, "nothing better answers, so nothing is left"
        await it.listen()
        await until(lambda: it.broker.connected and it.broker.report()["preferred"], "the preferred one")
        await until(lambda: second.left_in_order, "the end in order")
        assert second.topics() == ["event/x"]
        assert json.loads(second.got[-1][1]) == {"state": "offline", "reason": "another broker"}
        await until(lambda: first.got, "the birth")
        assert json.loads(first.got[0][1])["state"] == "online"
        assert first.topics() == []


async def test_one_that_takes_calls_and_does_not_answer_costs_a_moment() -> None:
    first, second = FakeBroker(silent=True), FakeBroker()
    async with two(first, second, return_after=0.3, connect_timeout=0.1) as it:
        await until(lambda: len(second.topics("status")) >= 3, "the fallback again")
        assert [json.loads(text)["state"] for _, text in second.got][:3] == ["online", "offline", "online"]
        assert it.heard == []


async def test_without_return_after_a_lesser_one_is_kept() -> None:
    first, second = FakeBroker(), FakeBroker()
    async with two(first, second, listens=False) as it:
        await until(lambda: it.broker.connected, "the fallback")
        await it.listen()
        await asyncio.sleep(0.2)
        assert (first.connections, second.connections) == (0, 1)


async def test_what_waited_at_a_broker_that_was_not_lived_with_is_told_as_queued(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """MQ-2: a day on one broker is a day away from the other, however short the loss."""
    monkeypatch.setattr(connection, "QUEUED_AWAY", 0.3)
    first, second = FakeBroker(session_present=True), FakeBroker(session_present=True, queued=[REQUEST])
    async with two(first, second) as it:
        await until(lambda: it.broker.connected, "the preferred one")
        await asyncio.sleep(0.4)
        first.queued = [REQUEST]
        first.drop()  # at once, so it is followed by the other
        await until(lambda: it.heard, "what waited at the other")
        assert it.heard[0].queued
        second.queued = []
        second.drop()
        await until(lambda: len(it.heard) == 2, "what came to the first")
        assert not it.heard[1].queued


async def test_what_was_in_flight_at_one_broker_is_sent_to_the_other() -> None:
    first, second = FakeBroker(acknowledges=lambda topic: "event" not in topic), FakeBroker()
    async with two(first, second) as it:
        it.post("event/x")
        await until(lambda: first.topics() == ["event/x"], "the record")
        first.drop()
        await until(lambda: second.topics() == ["event/x"], "the record, again")
        await until(lambda: it.outbox == [], "an empty outbox")


async def test_one_session_is_acknowledged_where_its_message_came_from() -> None:
    first = FakeBroker(session_present=True, queued=[REQUEST])
    second = FakeBroker(session_present=True, queued=[REQUEST])
    async with two(first, second) as it:
        await until(lambda: it.heard, "the message")
        first.drop()
        await until(lambda: len(it.heard) == 2, "the same request at the other")
        for message in it.heard:
            message.ack()
        await until(lambda: second.acknowledged == [1], "the acknowledgement")
        assert first.acknowledged == []


async def test_other_settings_count_from_the_next_connection_on() -> None:
    async with scene(FakeBroker(code=5)) as it:
        await until(lambda: it.broker.report()["detail"], "the refusal")
        before = it.fake.connections
        it.fake.code = 0
        assert it.given is not None
        it.broker.follow(replace(it.given, user="renewed", password="w"))
        await until(lambda: it.broker.connected, "the connection")
        assert it.fake.connections > before
        it.broker.follow(replace(it.given, user="renewed", password="w2"))
        await asyncio.sleep(0.05)
        assert it.broker.connected
        assert it.broker._each[0].password == "w2"


async def test_settings_that_are_the_same_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(dialling._PACES, dialling.Failure.HOPELESS, dialling._Pace(60.0, 60.0))
    async with scene(FakeBroker(code=5)) as it:
        await until(lambda: it.broker.report()["detail"], "the refusal")
        assert it.given is not None
        it.broker.follow(it.given)
        await asyncio.sleep(0.05)
        assert it.fake.connections == 1
        it.fake.code = 0
        it.broker.follow(replace(it.given, user="other"))
        await until(lambda: it.broker.connected, "the connection, a minute early")


async def test_a_start_waits_within_the_spread() -> None:
    async with scene(FakeBroker(), spread=0.4) as it:
        begun = asyncio.get_running_loop().time()
        await until(lambda: it.broker.connected, "the connection")
        assert asyncio.get_running_loop().time() - begun < 0.4 + 1.0


# Limits (MQTT 5)


async def test_no_more_is_in_flight_than_the_broker_takes() -> None:
    """Its Receive Maximum; the states of a connection are no exception."""
    silent = FakeBroker(version5=True, properties=b"\x21\0\2", acknowledges=lambda _: False)
    async with scene(silent) as it:
        it.broker.tell("info", {})
        it.broker.tell("module/state", {})
        await until(lambda: it.broker.connected, "the connection")
        it.post("event/one", "event/two")
        await until(lambda: len(silent.got) == 2, "a full window")
        await asyncio.sleep(0.1)
        assert [topic.removeprefix(BASE) for topic, _ in silent.got] == ["status", "info"]
    taking = FakeBroker(version5=True, properties=b"\x21\0\1")
    async with scene(taking) as it:
        it.broker.tell("info", {})
        it.broker.tell("module/state", {})
        it.post(*(f"event/{n}" for n in range(5)))
        await until(lambda: it.outbox == [], "an empty outbox")
        assert taking.topics("") == ["status", "info", "module/state", *(f"event/{n}" for n in range(5))]


async def test_what_is_too_long_for_the_broker_is_not_sent_and_holds_up_nobody() -> None:
    most = 300
    fake = FakeBroker(version5=True, properties=b"\x27" + most.to_bytes(4, "big"))
    with capture_logs() as logs:
        async with scene(fake) as it:
            await until(lambda: it.broker.connected, "the connection")
            it.post("event/" + "x" * 300, "event/good")
            it.broker.tell("info", {"long": "x" * 300})
            it.broker.publish(BASE + "event/past", {"long": "x" * 300}, {})
            await until(lambda: "event/good" in fake.topics(), "the good one")
            assert fake.connections == 1
            assert fake.topics("") == ["status", "event/good"]
    told = [entry for entry in logs if entry["log_level"] in {"error", "warning"}]
    assert {entry["event"] for entry in told} == {"record set aside", "message not sent"}
    assert all("octets, and the broker takes 300" in entry["detail"] for entry in told)


@pytest.mark.parametrize("more", range(3))
async def test_the_size_that_is_counted_is_the_size_that_is_sent(more: int) -> None:
    """Around the lengths at which MQTT's own length gets longer: with one octet less it would not fit."""
    sizes: list[int] = []

    class Measuring(FakeBroker):
        def _take(self, kind: int, body: bytes, writer: asyncio.StreamWriter) -> bool:
            if kind >> 4 == 3 and b"/past" in body:
                sizes.append(1 + (1 if len(body) < 128 else 2) + len(body))
            return super()._take(kind, body, writer)

    payload = {"x": "é" * 20 + "y" * (more + 9)}
    extra = {"correlation": "00ff", "door": "mqtt"}
    fake = Measuring(version5=True)
    async with scene(fake) as it:
        await until(lambda: it.broker.connected, "the connection")
        it.broker.publish(BASE + "event/past", payload, extra)
        await until(lambda: sizes, "the message")
    (size,) = sizes
    for most, sent in ((size, 1), (size - 1, 0)):
        other = FakeBroker(version5=True, properties=b"\x27" + most.to_bytes(4, "big"))
        async with scene(other) as it:
            await until(lambda: it.fake.got, "the birth")
            it.broker.publish(BASE + "event/past", payload, extra)
            it.broker.publish(BASE + "event/x", {}, {})
            await until(lambda: "event/x" in it.fake.topics(), "what is behind it")
            assert it.fake.topics().count("event/past") == sent


async def test_the_properties_of_what_is_sent() -> None:
    fake = FakeBroker(version5=True)
    async with scene(fake) as it:
        await until(lambda: it.broker.connected, "the connection")
        it.broker.publish(BASE + "event/x", {}, {"correlation": "00ff", "expiry": "60", "door": "mqtt", "state": "ok"})
        await until(lambda: fake.topics() == ["event/x"], "the message")
        properties = fake.properties_got[-1]
    assert b"\x03\0\x10application/json" in properties
    assert b"\x09\0\x02\x00\xff" in properties
    assert b"\x02\0\0\0\x3c" in properties
    assert b"\x26\0\x04door\0\x04mqtt" in properties
    assert b"\x26\0\x05state\0\x02ok" in properties


async def test_a_broker_that_retains_nothing_gets_nothing_retained() -> None:
    fake = FakeBroker(version5=True, properties=b"\x25\0")
    with capture_logs() as logs:
        async with scene(fake) as it:
            it.broker.tell("info", {})
            await until(lambda: len(fake.got) == 2, "the birth")
            assert fake.flags == [2, 2]
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == [
        "broker keeps no retained messages: who comes later sees no status"
    ]


async def test_a_broker_without_qos_1_is_not_used() -> None:
    """What is kept until it is acknowledged would be kept for ever."""
    async with scene(FakeBroker(version5=True, properties=b"\x24\0")) as it:
        await until(lambda: it.broker.report()["detail"], "the refusal")
        assert "a broker with QoS 1" in str(it.broker.report()["detail"])
        assert not it.broker.connected


async def test_what_goes_past_the_outbox_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "QUEUE_MAX", 10)
    fake = FakeBroker(acknowledges=lambda _: False)
    with capture_logs() as logs:
        async with scene(fake) as it:
            await until(lambda: it.broker.connected, "the connection")
            for number in range(100):
                it.broker.publish(BASE + f"event/{number}", {}, {})
            await until(lambda: len(fake.got) == connection.WINDOW, "a full window")
            fake.acknowledges = lambda _: True
            fake.send(b"".join(b"\x40\x02" + n.to_bytes(2, "big") for n in range(1, 40)))
            await until(lambda: len(fake.got) == connection.WINDOW + 10, "those that waited")
            await asyncio.sleep(0.05)
            assert fake.topics() == [f"event/{n}" for n in range(connection.WINDOW - 1 + 10)]
    assert [entry["event"] for entry in logs].count("messages dropped: too many wait for the broker") == 1


# Refusals


@pytest.mark.parametrize(
    ("version5", "code", "properties", "says"),
    [
        (
            True,
            0x86,
            b"",
            "refused: Bad user name or password; mqtt.user and mqtt.password_file as the broker has them",
        ),
        (True, 0x8A, b"\x1f\0\x03you", 'refused: Banned ("you"); its administrator has to lift the ban'),
        (True, 0x9D, b"\x1c\0\x01c", "refused: Server moved; it names c; no broker is called that the configuration"),
        (True, 0x97, b"", "refused: Quota exceeded; it, or this device's account, has reached a limit"),
        (False, 4, b"", "refused: Bad user name or password; mqtt.user and mqtt.password_file as the broker has them"),
        (False, 2, b"", "refused: Client identifier not valid; an mqtt.client_id that it takes"),
        (False, 3, b"", "refused: Server unavailable"),
        (True, 1, b"", "refused: Unsupported protocol version; the mqtt.protocol that it speaks"),
    ],
)
async def test_a_refusal_says_what_would_be_right(*, version5: bool, code: int, properties: bytes, says: str) -> None:
    async with scene(FakeBroker(version5=version5, code=code, properties=properties)) as it:
        await until(lambda: it.broker.report()["detail"], "the refusal")
        assert str(it.broker.report()["detail"]).startswith(says)


async def test_one_that_closes_without_an_answer_may_speak_another_version() -> None:
    class Closing(FakeBroker):
        def _take(self, *_: object) -> bool:
            return False

    async with scene(Closing(version5=True)) as it:
        await until(lambda: it.broker.report()["detail"], "the failure")
        right = '; perhaps it speaks no MQTT 5 (mqtt.protocol = "3.1.1")'
        assert it.broker.report()["detail"] == f"it closed the connection without an answer{right}"
    async with scene(Closing()) as it:
        await until(lambda: it.broker.report()["detail"], "the failure")
        assert it.broker.report()["detail"] == "it closed the connection without an answer"


async def test_a_disconnect_of_the_brokers_says_why() -> None:
    async with scene(FakeBroker(version5=True)) as it:
        await until(lambda: it.broker.connected, "the connection")
        with capture_logs() as logs:
            it.fake.send(reason(0x98))
            await until(lambda: it.fake.connections == 2, "another try")
    (said,) = [entry["detail"] for entry in logs if entry["event"] == "broker away"]
    assert said == "connection lost: Administrative action; its administrator ended the connection"


@pytest.mark.parametrize("refused", [0x80, 0x87])
async def test_a_subscription_that_is_refused_is_said(refused: int) -> None:
    granted = {"status": 0}
    fake = FakeBroker(version5=True, granted=lambda topic: granted.get(topic.removeprefix(BASE), refused))
    with capture_logs() as logs:
        async with scene(fake) as it:
            await until(lambda: it.broker.connected and len(fake.subscribed) == 3, "the subscriptions")
            await until(lambda: [entry for entry in logs if entry["log_level"] == "error"], "the word")
    assert "requests cannot come in" in next(entry["event"] for entry in logs if entry["log_level"] == "error")


async def test_a_subscription_that_was_refused_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same connection, which may last for months; it is said once."""
    monkeypatch.setattr(connection, "SUBSCRIBE_AGAIN", 0.01)
    asked: list[str] = []

    def granted(topic: str) -> int:
        asked.append(topic)
        return 0x97 if len(asked) < 7 else 1

    fake = FakeBroker(version5=True, granted=granted)
    with capture_logs() as logs:
        async with scene(fake) as it:
            await until(lambda: len(asked) >= 9, "the last time")
            await asyncio.sleep(0.1)
            assert len(asked) == 9
            assert it.broker.connects == 1
    assert len([entry for entry in logs if entry["log_level"] == "error"]) == 1


async def test_a_subscription_with_qos_0_alone_is_said() -> None:
    with capture_logs() as logs:
        async with scene(FakeBroker(version5=True, granted=lambda _: 0)):
            await until(lambda: [entry for entry in logs if "QoS 0 alone" in entry["event"]], "the word")


# Another device of the same name


async def test_repeated_take_overs_are_said_and_slow_the_dialling_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(dialling._PACES, dialling.Failure.TAKEN, dialling._Pace(0.6, 0.6))
    fake = FakeBroker(version5=True)
    with capture_logs() as logs:
        async with scene(fake, session="mine") as it:
            for number in range(1, 4):
                await until(lambda: it.broker.connected and fake.connections == number, "a connection")  # noqa: B023
                assert it.broker.report()["another_device"] == (number > 2)
                fake.send(reason(0x8E))
                await until(lambda: not it.broker.connected, "the take-over")
    first, second, third = fake.came
    assert second - first < 0.3 <= third - second
    said = [entry for entry in logs if entry["log_level"] == "error"]
    assert len(said) == 1
    assert said[0]["event"].startswith("another device uses this node's name")
    assert (said[0]["node"], said[0]["client_id"]) == ("atrund/node", "atrund-node")


@pytest.mark.parametrize("version5", [True, False])
async def test_another_that_is_online_is_seen(*, version5: bool) -> None:
    """Also where the broker does not say who takes the connection: MQTT 3.1.1 has no word for it."""
    other = json.dumps({"state": "online", "session": "other"}).encode()
    fake = FakeBroker(version5=version5, retained=[(BASE + "status", other)])
    with capture_logs() as logs:
        async with scene(fake, session="mine") as it:
            await until(lambda: it.broker.report()["another_device"], "the other")
            assert it.broker.connected
            assert it.heard == [], "no request"
    assert [entry["log_level"] for entry in logs if entry["event"].startswith("another device")] == ["error"]


async def test_another_that_comes_online_later_is_seen() -> None:
    async with scene(FakeBroker(), session="mine") as it:
        await until(lambda: it.broker.connected, "the connection")
        it.fake.publish(BASE + "status", b'{"state":"online","session":"mine"}')  # our own, come back (3.1.1)
        await asyncio.sleep(0.05)
        assert not it.broker.report()["another_device"]
        it.fake.publish(BASE + "status", b'{"state":"online","session":"other"}')
        await until(lambda: it.broker.report()["another_device"], "the other")


async def test_what_a_run_before_left_behind_is_not_another_device() -> None:
    """A crash whose will did not come out yet: `online` of a session that was ours."""
    disk, fake = AtOnce(), FakeBroker()
    async with scene(fake, disk=disk, session="run1") as it:
        await until(lambda: fake.got, "the birth")
        port = it.broker._each[0].port
        kept = tables.get_text(room._NOTES)(disk.store.connection)
    assert json.loads(kept) == {f"127.0.0.1:{port}": [None, "run1"]}
    left = json.dumps({"state": "online", "session": "run1"}).encode()
    again, disk = FakeBroker(retained=[(BASE + "status", left)]), AtOnce()
    tables.set_text(room._NOTES, kept)(disk.store.connection)
    async with scene(again, disk=disk, session="run2", since="", own_port=port) as it:
        await until(lambda: again.got, "the birth")
        again.publish(BASE + "at/request", b"AT")
        await until(lambda: it.heard, "what came behind the status")
        assert not it.broker.report()["another_device"]


async def test_an_offline_of_somebody_is_a_sign_only_where_we_have_spoken_since() -> None:
    """A daemon that was installed anew, and lost its memory, finds what it was; a device that speaks in between, is."""
    left = json.dumps({"state": "offline", "session": "unknown"}).encode()
    fake = FakeBroker(retained=[(BASE + "status", left)])
    async with scene(fake, session="mine") as it:
        await until(lambda: it.broker.connected, "the connection")
        fake.publish(*REQUEST)
        await until(lambda: it.heard, "what came behind the status")
        assert not it.broker.report()["another_device"]
        fake.drop()
        await until(lambda: it.broker.report()["another_device"], "the sign")


async def test_without_a_memory_nothing_that_lies_there_is_a_sign() -> None:
    disk = AtOnce()
    disk.broken = "disk I/O error"
    other = json.dumps({"state": "online", "session": "perhaps mine"}).encode()
    fake = FakeBroker(retained=[(BASE + "status", other)])
    async with scene(fake, session="mine", disk=disk, since="") as it:
        await until(lambda: fake.got, "the birth")
        fake.publish(*REQUEST)
        await until(lambda: it.heard, "what came behind the status")
        assert not it.broker.report()["another_device"]
        fake.publish(BASE + "status", other)
        await until(lambda: it.broker.report()["another_device"], "one that speaks now")
        disk.broken = ""


async def test_a_belated_offline_is_said_over() -> None:
    """The will of the connection before, where the broker was slow to see it lost."""
    async with scene(FakeBroker(), session="mine") as it:
        await until(lambda: it.fake.got, "the birth")
        for _ in range(3):  # and not again and again
            it.fake.publish(BASE + "status", b'{"state":"offline","session":"mine","reason":"connection lost"}')
        await until(lambda: len(it.fake.got) == 2, "the second birth")
        await asyncio.sleep(0.05)
        assert [json.loads(text)["state"] for _, text in it.fake.got] == ["online", "online"]
        assert it.fake.flags == [3, 3]
        assert not it.broker.report()["another_device"]


async def test_our_own_farewell_is_not_said_over() -> None:
    async with scene(FakeBroker(), session="mine") as it:
        await until(lambda: it.fake.got, "the birth")

        def echoes(topic: str) -> bool:
            it.fake.publish(topic, it.fake.got[-1][1])
            return True

        it.fake.acknowledges = echoes
        await it.broker.say_goodbye("stopped")
        await until(lambda: it.fake.left_in_order, "the end")
        assert [json.loads(text)["state"] for _, text in it.fake.got] == ["online", "offline"]
        await asyncio.sleep(0.1)
        assert it.fake.connections == 1, "nothing is dialled behind the farewell"


async def test_a_broker_that_drops_those_who_ask_for_the_status_is_not_asked_the_next_time() -> None:
    class Strict(FakeBroker):
        def _answer_subscribe(self, body: bytes, writer: asyncio.StreamWriter) -> None:
            if b"/status" in body:
                self.subscribed.append(BASE + "status")
                writer.transport.abort()
            else:
                super()._answer_subscribe(body, writer)

    async with scene(Strict()) as it:
        await until(lambda: it.fake.connections == 2 and it.fake.got and it.broker.connected, "the connection")
        it.post("event/x")
        await until(lambda: it.outbox == [], "an empty outbox")
        assert it.fake.connections == 2
        assert it.fake.subscribed.count(BASE + "status") == 1


async def test_a_status_that_may_not_be_read_is_no_fault() -> None:
    with capture_logs() as logs:
        async with scene(FakeBroker(granted=lambda topic: 0x80 if "status" in topic else 1)) as it:
            await until(lambda: it.fake.got, "the birth")
            it.post("event/x")
            await until(lambda: it.outbox == [], "an empty outbox")
    assert [entry for entry in logs if entry["log_level"] in {"warning", "error"}] == []


async def test_a_fault_in_the_outbox_ends_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Outbox, "drain", broken)
    stage = scene(FakeBroker())
    it = await stage.__aenter__()
    await until(it.running.done, "the end")
    assert isinstance(it.running.exception(), RuntimeError)
    with pytest.raises(AssertionError, match="the broker's room ended"):
        await stage.__aexit__(None, None, None)


def test_names() -> None:
    assert replace(SETTINGS, host="::1", port=1883).name == "[::1]:1883"
    each = replace(SETTINGS, host="a", port=1, alpn="x", fallbacks=(Place("b", 2, "c"),)).each()
    assert [(one.host, one.port, one.alpn, one.server_name) for one in each] == [("a", 1, "x", ""), ("b", 2, "", "c")]
    assert isinstance(each[1], BrokerSettings)


async def test_nothing_small_waits_and_silence_is_noticed() -> None:
    """MQ-6, and a line that was cut without a word: the kernel alone would take a quarter of an hour."""
    async with scene(FakeBroker()) as it:
        await until(lambda: it.broker.connected, "the connection")
        assert it.broker._connection is not None
        link = it.broker._connection._socket
        assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 120_000


async def test_a_stop_while_a_lesser_broker_is_being_left() -> None:
    """The farewell that is under way is the last word, and is waited for."""
    first, second = FakeBroker(), FakeBroker()
    async with two(first, second, listens=False, return_after=0.05) as it:
        await until(lambda: it.broker.connected, "the fallback")
        second.acknowledges = lambda _: False
        await it.listen()
        await until(lambda: len(second.topics("status")) == 2, "the farewell")
        stop = asyncio.get_running_loop().create_task(it.broker.say_goodbye("stopped"))
        await asyncio.sleep(0.05)
        assert not stop.done()
        second.send(b"\x40\x02\0\4")
        await stop
        await until(lambda: second.left_in_order, "the end in order")
        assert json.loads(second.got[-1][1])["state"] == "offline"
        await asyncio.sleep(0.05)
        assert first.connections == 0
