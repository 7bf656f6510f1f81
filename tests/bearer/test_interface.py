# SPDX-License-Identifier: Apache-2.0
"""An interface as the bearer, in a network namespace of the test's own (TCP-14)."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from atrund.bearer import interface as room
from atrund.bearer.interface import InterfaceBearer, look
from tests.support.namespace import apart, ip, veth


def watched(script: Callable[[InterfaceBearer, list[bool]], Awaitable[None]]) -> None:
    """Run a script beside a bearer on `wan0` that watches; it gets the bearer, and what was told of it."""

    async def run() -> None:
        bearer = InterfaceBearer("wan0")
        told: list[bool] = []
        bearer.on_change = lambda: told.append(bearer.up)
        await bearer.begin()
        task = asyncio.ensure_future(bearer.run())
        try:
            await script(bearer, told)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    apart(lambda: asyncio.run(run()))


async def until(look: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not look():  # noqa: ASYNC110 - the kernel's doing is no event here
            await asyncio.sleep(0.01)


def test_what_an_interface_lacks() -> None:
    def script() -> None:
        assert look("wan0").lacking == "there is no interface wan0"
        veth()
        assert look("wan0").lacking == "wan0 is down"
        ip("link set wan0 up")
        assert look("wan0").lacking == "wan0 has no link"
        ip("link set far0 up")
        ip("addr add 192.0.2.1/24 dev far0")
        assert look("wan0").lacking == "wan0 has no address", (
            "its link-local address leads nowhere, another's counts not"
        )
        ip("addr add 2001:db8::1/64 dev wan0 nodad")
        assert look("wan0").lacking == ""
        ip("addr flush dev wan0")
        ip("addr add 192.0.2.2/24 dev wan0")
        assert look("wan0").lacking == ""

    apart(script)


def test_among_many_interfaces_and_addresses_it_is_found() -> None:
    def script() -> None:
        veth()
        ip("link set wan0 up")
        ip("link set far0 up")
        for number in range(60):
            ip(f"addr add 198.51.{number}.1/24 dev far0")
        assert look("wan0").lacking == "wan0 has no address"
        ip("addr add 192.0.2.2/24 dev wan0")
        assert look("wan0").lacking == ""
        assert look("wan").lacking == "there is no interface wan"

    apart(script)


def test_it_comes_and_goes() -> None:
    async def script(bearer: InterfaceBearer, told: list[bool]) -> None:
        assert (bearer.up, bearer.detail) == (False, "there is no interface wan0")
        veth()
        ip("link set far0 up")
        ip("link set wan0 up")
        ip("addr add 192.0.2.2/24 dev wan0")
        await until(lambda: bearer.up)
        assert bearer.status() == {"state": "up", "detail": "", "interface": "wan0"}
        ip("link set far0 down")
        await until(lambda: not bearer.up)
        assert bearer.detail == "wan0 has no link"
        ip("link set far0 up")
        await until(lambda: bearer.up)
        ip("link del wan0")
        await until(lambda: not bearer.up)
        veth()
        ip("link set far0 up")
        ip("link set wan0 up")
        ip("addr add 192.0.2.2/24 dev wan0")
        await until(lambda: bearer.up)
        assert told == [True, False, True, False, True]

    watched(script)


def test_another_address_counts_as_a_way_that_went_and_came() -> None:
    """A network that gives a new one at each connection: what was connected by the old one is dead, and would wait."""

    async def script(bearer: InterfaceBearer, told: list[bool]) -> None:
        veth()
        ip("link set far0 up")
        ip("link set wan0 up")
        ip("addr add 192.0.2.2/24 dev wan0")
        await until(lambda: bearer.up)
        ip("addr add 198.51.100.2/24 dev wan0")
        await asyncio.sleep(3 * room.SETTLE)
        assert told == [True], "one more is no other"
        ip("addr del 192.0.2.2/24 dev wan0")
        await asyncio.sleep(3 * room.SETTLE)
        assert told == [True], "one is left"
        ip("addr add 203.0.113.2/24 dev wan0")
        ip("addr del 198.51.100.2/24 dev wan0")
        ip("addr del 203.0.113.2/24 dev wan0")
        ip("addr add 203.0.113.9/24 dev wan0")
        await until(lambda: len(told) == 3)
        assert told == [True, False, True]

    watched(script)


def test_one_that_is_there_at_the_start_is_up_at_once() -> None:
    async def run() -> None:
        bearer = InterfaceBearer("wan0")
        await bearer.begin()
        assert bearer.up
        assert bearer._ear is not None
        bearer._ear.close()

    def script() -> None:
        veth()
        ip("link set far0 up")
        ip("link set wan0 up")
        ip("addr add 192.0.2.2/24 dev wan0")
        asyncio.run(run())

    apart(script)


def test_a_storm_of_changes_loses_nothing() -> None:
    """More than the buffer holds: the kernel then says ENOBUFS, and what is true is asked anew all the same."""

    async def script(bearer: InterfaceBearer, _: list[bool]) -> None:
        assert bearer._ear is not None
        bearer._ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        veth()
        ip("link set far0 up")
        for number in range(40):
            ip(f"addr add 198.51.{number}.1/24 dev far0")
        ip("link set wan0 up")
        ip("addr add 192.0.2.2/24 dev wan0")
        await until(lambda: bearer.up)

    watched(script)


async def test_a_kernel_that_tells_nothing_counts_as_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that forbids netlink must not keep the daemon from starting."""

    def refused(_: int) -> socket.socket:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(room, "_netlink", refused)
    bearer = InterfaceBearer("lo")
    await bearer.begin()
    assert (bearer.up, bearer.detail) == (False, "the kernel does not tell of interfaces: Operation not permitted")
    task = asyncio.ensure_future(bearer.run())
    await asyncio.sleep(0.01)
    assert not task.done()
    task.cancel()
