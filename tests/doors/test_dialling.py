# SPDX-License-Identifier: Apache-2.0
"""Opening the connection of client mode: addresses, ways, clear text, look-ups that hang (TCP-11, TCP-13, TCP-14)."""

import asyncio
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest

from atrund.doors import dialling
from atrund.doors.connection import Connection
from atrund.doors.dialling import Address, Far, LookUps, open_call, ways

FAR = Far("far.example", 7, 10.0)


class Taken(asyncio.Protocol):
    """In the connection's place."""

    def __init__(self) -> None:
        self.peer: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.peer = transport.get_extra_info("peername")[0]
        cast("asyncio.Transport", transport).abort()


def taken(protocol: Taken) -> Callable[[], Connection]:
    return lambda: cast("Connection", protocol)


def found(*addresses: Address) -> dialling.LookUp:
    async def look_up(host: str, port: int) -> list[Address]:
        assert (host, port) == (FAR.host, FAR.port)
        return list(addresses)

    return look_up


@pytest.mark.parametrize(
    ("far", "address", "expected"),
    [
        (FAR, "127.0.0.1", ("",)),
        (FAR, "::1", ("",)),
        (FAR, "::ffff:127.0.0.2", ("",)),
        (FAR, "10.0.0.1", ()),
        (FAR, "2001:db8::1", ()),
        (replace(FAR, insecure=True), "10.0.0.1", ("",)),
        (replace(FAR, trusted=("wg0", "eth1")), "10.0.0.1", ("wg0", "eth1")),
        (replace(FAR, interface="wwan0"), "10.0.0.1", ()),
        (replace(FAR, interface="wwan0", trusted=("wg0",)), "10.0.0.1", ()),
        (replace(FAR, interface="wwan0", trusted=("wwan0", "wg0")), "10.0.0.1", ("wwan0",)),
        (replace(FAR, interface="wwan0", insecure=True), "10.0.0.1", ("wwan0",)),
        (replace(FAR, interface="wwan0"), "127.0.0.1", ("",)),
    ],
)
def test_clear_text_goes_where_it_may_and_nowhere_else(far: Far, address: str, expected: tuple[str, ...]) -> None:
    """TCP-13, TCP-14."""
    assert ways(far, address) == expected


async def test_an_address_off_loopback_is_not_called_in_clear_text() -> None:
    with pytest.raises(OSError, match=r"far.example port 7: clear text can be read on the way; .*tcp.insecure = true"):
        await open_call(FAR, taken(Taken()), found(("192.0.2.1", 7)))


async def test_without_a_host() -> None:
    with pytest.raises(OSError, match=r"there is no host to call: AT#TCPATRUNCFG or tcp\.client\.host names it"):
        await open_call(replace(FAR, host=""), taken(Taken()), found())


async def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as there, socket.socket() as nobody:
        nobody.bind(("127.0.0.2", 0))  # bound and not listening
        protocol = Taken()
        addresses = found(nobody.getsockname(), there.getsockname())
        await open_call(FAR, taken(protocol), addresses)
        await asyncio.sleep(0)
        assert protocol.peer == "127.0.0.1"


@pytest.mark.looptime
async def test_an_address_that_swallows_all_gets_its_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    tried: list[tuple[str, float]] = []

    async def connect(_: socket.socket, address: Address) -> None:
        tried.append((address[0], loop.time()))
        await asyncio.sleep(1e6)

    monkeypatch.setattr(loop, "sock_connect", connect)
    begun = loop.time()
    addresses = [("::1", 7, 0, 0), ("127.0.0.1", 7), ("127.0.0.2", 7), ("127.0.0.3", 7), ("127.0.0.4", 7)]
    with pytest.raises(OSError, match=r"far.example port 7: (no answer|no answer within 10 s)$"):
        await open_call(FAR, taken(Taken()), found(*addresses))
    assert [address for address, _ in tried] == ["::1", "127.0.0.1", "127.0.0.2", "127.0.0.3"]
    assert [at - begun for _, at in tried] == pytest.approx([0, 2.5, 5, 7.5], abs=0.1)
    assert loop.time() - begun == pytest.approx(10, abs=0.1)


@pytest.mark.looptime
async def test_ipv6_and_ipv4_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with many addresses of a family that does not work is reached by the other."""
    tried: list[str] = []

    async def refuse(_: socket.socket, address: Address) -> None:
        tried.append(address[0])
        raise ConnectionRefusedError(111, "Connect call failed")

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", refuse)
    six = [(f"2001:db8::{n}", 7, 0, 0) for n in range(1, 6)]
    with pytest.raises(OSError, match=r"far.example port 7: Connection refused$"):
        await open_call(replace(FAR, insecure=True), taken(Taken()), found(*six, ("192.0.2.1", 7)))
    assert tried == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "2001:db8::3"]


async def test_the_interface_is_bound() -> None:
    """Bound to one that does not exist the call fails, whatever the routes say."""
    far = replace(FAR, interface="nope0", insecure=True)
    with pytest.raises(OSError, match=r"No such device|not permitted"):
        await open_call(far, taken(Taken()), found(("192.0.2.1", 7)))


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
async def test_an_address_is_not_looked_up(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("looked up"))
    assert await LookUps()(address, 7) == [(address, 7)]


async def test_a_name_is_looked_up() -> None:
    addresses = await LookUps()("localhost", 7)
    assert ("127.0.0.1", 7) in addresses
    assert len(set(addresses)) == len(addresses)


async def test_a_zone_is_left_to_the_resolver() -> None:
    ((_, port, _, zone),) = await LookUps()("fe80::1%lo", 7)
    assert (port, zone) == (7, socket.if_nametoindex("lo"))


async def test_a_name_that_is_none() -> None:
    look_ups = LookUps()
    with pytest.raises(OSError, match="is no host name"):
        await look_ups("a" * 64 + ".example", 7)
    with pytest.raises(OSError, match=r"far.invalid port 7: "):
        await open_call(Far("far.invalid", 7, 30.0), taken(Taken()), look_ups)


async def test_a_look_up_that_hangs_is_left_and_no_second_one_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds up neither the loop nor the daemon's end; once it is over names are looked up again."""
    ends = threading.Event()

    def hangs(_: str, port: int, **__: object) -> list[tuple[int, int, int, str, Address]]:
        ends.wait(30)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    look_ups = LookUps()
    with pytest.raises(OSError, match=r"far.example port 7: no answer within 0.05 s"):
        await open_call(replace(FAR, timeout=0.05), taken(Taken()), look_ups)
    with pytest.raises(OSError, match="the look-up before has not ended yet"):
        await look_ups("other.example", 7)
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "look-up")
    ends.set()
    async with asyncio.timeout(5):
        while look_ups._under_way is None or not look_ups._under_way.done():  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0.01)
    assert await look_ups("other.example", 7) == [("127.0.0.1", 7)]
