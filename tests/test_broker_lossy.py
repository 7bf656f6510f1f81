# SPDX-License-Identifier: Apache-2.0
"""What may be lost goes with QoS 0, is dropped without a connection, and is bounded behind a line that hangs."""

import asyncio

import pytest

from atrund.broker import connection
from tests.support.fake_broker import BASE, FakeBroker, no_pauses, scene, until


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    no_pauses(monkeypatch)


async def test_it_goes_with_qos_0_and_is_not_kept_for_the_next_connection() -> None:
    async with scene(FakeBroker()) as it:
        it.broker.publish(BASE + "urc", {"n": 0}, {}, qos=0)
        await until(lambda: it.broker.connected, "the connection")
        it.broker.publish(BASE + "urc", {"n": 1}, {}, qos=0)
        it.broker.publish(BASE + "urc", {"n": 2}, {})
        await until(lambda: len(it.fake.topics("urc")) == 2, "both")
        told = [
            (text, flags)
            for (topic, text), flags in zip(it.fake.got, it.fake.flags, strict=True)
            if topic == BASE + "urc"
        ]
        assert told == [(b'{"n":1}', 0), (b'{"n":2}', 2)]


async def test_what_waits_for_the_socket_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "UNSENT_MAX", 3)
    async with scene(FakeBroker()) as it:
        await until(lambda: it.broker.connected, "the connection")
        for _ in range(2):
            before = len(it.fake.topics("urc"))
            for number in range(20):  # in one step of the loop, which hears of nothing that went out meanwhile
                it.broker.publish(BASE + "urc", {"n": number}, {}, qos=0)
            await until(lambda: len(it.fake.topics("urc")) >= before + 3, "those that had room")  # noqa: B023 - awaited here
            await asyncio.sleep(0.05)
            assert len(it.fake.topics("urc")) == before + 3
        assert it.broker.connected
