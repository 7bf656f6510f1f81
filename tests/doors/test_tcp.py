# SPDX-License-Identifier: Apache-2.0
"""The TCP door in virtual time: its timers, its bounds, and what is written down."""

import asyncio
import contextlib
import socket

import pytest

from atrund.config.values import Sms
from atrund.doors import connection as room
from atrund.doors.connection import Means
from atrund.doors.tcp import TcpDoor, TcpRules
from atrund.sim.faults import Plant
from tests.support.calling import LOGIN, calling, door
from tests.support.virtual import House, config, running
from tests.support.waiting import status, until

pytestmark = pytest.mark.looptime


@pytest.mark.parametrize("typed", [b"", b"operator", b"operator\r", b"operator\rgeheim"])
async def test_a_login_that_takes_too_long(typed: bytes) -> None:
    """TCP-3. What is typed meanwhile gains no time."""
    async with door(login_timeout=60.0) as house, calling(house, login=False) as caller:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await asyncio.sleep(30)
        caller.writer.write(typed)
        assert await caller.rest() == b""
        assert loop.time() - begun == pytest.approx(60, abs=0.5)
        assert house.told[-2:] == [("connected", None), ("disconnected", "auth")]


async def test_a_wrong_login_is_written_down_without_what_was_typed() -> None:
    async with door() as house, calling(house, login=False) as caller:
        caller.writer.write(b"operator\rwrong-secret\rAT\r")
        assert await caller.rest() == b""
        assert house.told == [("connected", None), ("login refused", "auth"), ("disconnected", "auth")]
        assert house.wire.seen.count("AT") == 0
        assert "wrong-secret" not in str(house.disk.rows("SELECT * FROM audit"))


async def test_a_password_beyond_ascii() -> None:
    """A terminal sends UTF-8, as the password's file has it."""
    async with door("gehéim-ß") as house, calling(house, login=False) as caller:
        assert await caller.ask("operator\rgehéim-ß\rAT\r".encode()) == b"AT\r\r\nOK\r\n"


async def test_the_idle_timeout() -> None:
    """TCP-7: any octet begins it anew."""
    async with door(idle_timeout=100.0) as house, calling(house) as caller:
        loop = asyncio.get_running_loop()
        await caller.ask(b"AT\r")
        await asyncio.sleep(90)
        caller.writer.write(b"A")
        assert await caller.reader.readexactly(1) == b"A"
        begun = loop.time()
        assert await caller.rest() == b""
        assert loop.time() - begun == pytest.approx(100, abs=0.5)
        assert house.told[-1] == ("disconnected", "idle")


async def test_the_idle_timeout_stands_still_while_a_command_runs() -> None:
    async with door(idle_timeout=10.0) as house, calling(house) as caller:
        loop = asyncio.get_running_loop()
        house.module.faults.plant("AT+GMI", Plant(seconds=60.0))
        begun = loop.time()
        await caller.ask(b"AT+GMI\r")
        assert loop.time() - begun == pytest.approx(60, abs=0.5)
        assert await caller.rest() == b""
        assert loop.time() - begun == pytest.approx(70, abs=0.5)


async def test_without_an_idle_timeout() -> None:
    async with door(idle_timeout=0.0) as house, calling(house) as caller:
        await caller.ask(b"AT\r")
        await asyncio.sleep(100_000)
        assert await caller.ask(b"AT\r") == b"AT\r\r\nOK\r\n"


async def test_the_delay_before_each_line() -> None:
    async with door(delay=7.0) as house, calling(house) as caller:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await caller.ask(b"AT\r")
        assert loop.time() - begun == pytest.approx(7, abs=0.5)


async def test_a_command_that_takes_too_long() -> None:
    async with door(timeout=60.0) as house, calling(house) as caller:
        house.module.faults.plant("AT+GMI", Plant(seconds=70.0))
        assert await caller.ask(b"AT+GMI\r", b"ERROR\r\n") == b"AT+GMI\r\r\nERROR\r\n"
        assert house.outcomes[-1] == ("AT+GMI", "timeout", None)
        assert await caller.ask(b"AT\r") == b"AT\r\r\nOK\r\n"


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    """Never at the port's cost: the command's turn is over long before."""
    async with door(sequence=True) as house:
        house.module.faults.plant("AT#MONI=7", Plant(left=None, lines=("x" * 4000,) * 10, final="OK"))
        assert house.daemon.tcp is not None
        link = socket.socket()
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.connect(("127.0.0.1", house.daemon.tcp.ports[0]))
        try:
            link.send(LOGIN)
            tcp = house.daemon.tcp
            await until(lambda: tcp.peer)
            session = tcp.session
            assert session is not None
            session.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            link.send(b"AT#MONI=7\r" * 20)
            begun = asyncio.get_running_loop().time()
            await until(lambda: not tcp.peer)
            assert asyncio.get_running_loop().time() - begun == pytest.approx(room.UNSENT_PATIENCE, abs=5)
            assert 1 <= len(house.outcomes) <= 20
            assert (await status(house))["requests"] == {"running": 0, "waiting": {}}
        finally:
            link.close()


async def test_lines_past_the_queue_wait_with_the_client() -> None:
    """TCP-5, sequence on: nothing is read while the queue is full, so nothing is lost and nothing grows."""
    async with door(sequence=True) as house, calling(house) as caller:
        house.module.faults.plant("AT+GMI", Plant(seconds=10.0))
        caller.writer.write(b"AT+GMI\r" + b"AT\r" * 20_000)
        await asyncio.sleep(5)
        assert house.daemon.tcp is not None
        session = house.daemon.tcp.session
        assert session is not None
        assert room.QUEUED_MAX <= len(session._queued) <= room.QUEUED_MAX + room.READ_SIZE
        finals = 0
        while finals < 3000:
            finals += (await caller.reader.read(65536)).count(b"\r\nOK\r\n")
        assert {line for line, _, _ in house.outcomes} == {"AT+GMI", "AT"}


async def test_what_a_gone_client_had_queued_is_not_run() -> None:
    async with door(sequence=True) as house:
        async with calling(house) as caller:
            house.module.faults.plant("AT+GMI", Plant(seconds=10.0))
            caller.writer.write(b"AT+GMI\r" + b"AT#CGMI\r" * 10_000)
            await asyncio.sleep(5)
            caller.writer.transport.abort()
        await asyncio.sleep(20)
        assert house.daemon.tcp is not None
        assert house.daemon.tcp.peer == ""
        assert len(house.outcomes) < 10


async def test_one_place() -> None:
    async with door() as house, calling(house) as first:
        await first.ask(b"AT\r")
        with contextlib.suppress(ConnectionResetError):
            async with calling(house, login=False) as second:
                assert await second.rest() == b""
        assert house.told[-1] == ("refused", "busy")
        assert await first.ask(b"AT\r") == b"AT\r\r\nOK\r\n"


async def test_a_module_that_is_gone() -> None:
    async with door() as house, calling(house) as caller:
        house.wire.absent = "no such device"
        house.module.faults.plant("AT+GMI", Plant(seconds=10.0))
        caller.writer.write(b"AT+GMI\r")
        await asyncio.sleep(1)
        house.wire.lose()
        assert (await caller.reader.readuntil(b"ERROR\r\n")).endswith(b"\r\nERROR\r\n")
        assert house.outcomes[-1] == ("AT+GMI", "lost", "port_down")
        assert await caller.ask(b"AT\r", b"ERROR\r\n") == b"AT\r\r\nERROR\r\n"
        assert house.outcomes[-1] == ("AT", "rejected", "port_down")


async def test_a_disk_that_takes_nothing() -> None:
    """REQ-12: the door goes on."""
    async with door() as house, calling(house) as caller:
        house.disk.broken = "disk full"
        assert await caller.ask(b"AT\r") == b"AT\r\r\nOK\r\n"
        house.disk.broken = ""


async def test_an_address_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        rules = TcpRules(
            listen=("127.0.0.1",),
            port=other.getsockname()[1],
            firewall=(),
            users=(("operator", "geheim"),),
            login_timeout=60,
            idle_timeout=0,
            timeout=60,
            delay=0,
            sequence=False,
        )
        assert "geheim" not in repr(rules)
        async with running(config(sms=Sms())) as house:
            other_door = TcpDoor(
                lambda: rules, session_means(house), ledger=house.daemon._ledger, mirror=house.daemon._mirror
            )
            with pytest.raises(OSError, match="already in use"):
                await other_door.start()
            await other_door.close()


async def test_clear_text_off_loopback_is_served_on_the_trusted_interfaces_alone() -> None:
    """TCP-13: the kernel keeps to the interface, whatever address the peer comes to."""
    rules = TcpRules(
        listen=("0.0.0.0", "::1"),  # noqa: S104 - bound to an interface
        port=0,
        firewall=(),
        users=(),
        login_timeout=60,
        idle_timeout=0,
        timeout=60,
        delay=0,
        sequence=False,
        interfaces=("lo",),
    )
    async with running(config(sms=Sms())) as house:
        trusting = TcpDoor(
            lambda: rules, session_means(house), ledger=house.daemon._ledger, mirror=house.daemon._mirror
        )
        await trusting.start()
        bound = [
            server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16) for server in trusting._servers
        ]
        assert bound == [b"lo\0", b""]
        await trusting.close()


def session_means(house: House) -> Means:
    return Means(house.daemon.runner, house.daemon.own, house.daemon.instances)
