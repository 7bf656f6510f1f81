# SPDX-License-Identifier: Apache-2.0
"""How a broker's name is called: which of its addresses, and what hangs meanwhile."""

import asyncio
import socket
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from atrund.broker import apart as room
from atrund.broker.apart import apart, call
from tests.support.fake_broker import SETTINGS, FakeBroker, no_pauses, scene, until

V4, V6 = socket.AF_INET, socket.AF_INET6


class Network:
    """What the names and the calls of this process come to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *addresses: tuple[int, str]) -> None:
        self.called: list[str] = []
        self.answering: set[str] = set()
        self.now = 0.0
        self.without: set[int] = set()
        network = self

        class Socket:
            def __init__(self, family: int, *_: int) -> None:
                if family in network.without:
                    raise OSError("Address family not supported by protocol")
                self.closed = False

            def settimeout(self, seconds: float) -> None:
                self.patience = seconds

            def connect(self, at: tuple[Any, ...]) -> None:
                network.called.append(at[0])
                if at[0] not in network.answering:
                    network.now += self.patience
                    raise TimeoutError("timed out")

            def close(self) -> None:
                self.closed = True

        found = [(family, socket.SOCK_STREAM, 6, "", (address, 1)) for family, address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        monkeypatch.setattr(socket, "socket", Socket)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def test_one_of_each_family_is_called_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path for IPv6 that leads nowhere is not to keep IPv4 from its turn, however many addresses there are."""
    network = Network(monkeypatch, *((V6, f"2001:db8::{n}") for n in range(8)), (V4, "192.0.2.1"), (V4, "192.0.2.2"))
    network.answering = {"192.0.2.1"}
    call(("b.example", 1), 10.0)
    assert network.called == ["2001:db8::0", "192.0.2.1"]


def test_no_more_addresses_are_called_than_there_is_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, *((V4, f"192.0.2.{n}") for n in range(20)))
    with pytest.raises(TimeoutError):
        call(("b.example", 1), 10.0)
    assert (network.called, network.now) == (["192.0.2.0", "192.0.2.1"], 20.0)


def test_a_family_that_the_machine_does_not_have_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, (V6, "2001:db8::1"), (V4, "192.0.2.1"))
    network.without, network.answering = {V6}, {"192.0.2.1"}
    call(("b.example", 1), 10.0)
    assert network.called == ["192.0.2.1"]
    network.without = {V4, V6}
    with pytest.raises(OSError, match="not supported"):
        call(("b.example", 1), 10.0)


async def test_what_hangs_is_not_joined_by_more_and_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "HANGING_MAX", 3)
    free = threading.Event()

    def hang() -> None:
        free.wait(30.0)

    hanging = [asyncio.get_running_loop().create_task(apart(hang)) for _ in range(3)]
    await asyncio.sleep(0)
    try:
        with pytest.raises(OSError, match="3 calls before this one hang still"):
            await apart(lambda: None)
    finally:
        free.set()
    await asyncio.gather(*hanging)
    for thread in threading.enumerate():
        if thread.name == "broker connect":
            thread.join()
    await apart(lambda: None)


async def test_that_too_many_hang_is_the_cause_that_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is called again once they do not."""
    no_pauses(monkeypatch)
    monkeypatch.setattr(room, "HANGING_MAX", 0)
    async with scene(FakeBroker()) as it:
        await until(lambda: "hang still" in str(it.broker.report()["detail"]), "the cause")
        monkeypatch.setattr(room, "HANGING_MAX", 1000)
        await until(lambda: it.broker.connected, "the connection")


async def test_the_preferred_broker_is_looked_for_in_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, float]] = []

    def answer(address: tuple[str, int], patience: float) -> socket.socket:
        asked.append((address, patience))
        return socket.socket()

    monkeypatch.setattr(room, "call", answer)
    assert await room.answers(replace(SETTINGS, host="b.example", port=7, connect_timeout=20.0))
    assert asked == [(("b.example", 7), 10.0)]
