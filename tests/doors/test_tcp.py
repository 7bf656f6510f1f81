# SPDX-License-Identifier: Apache-2.0
"""The TCP door in virtual time: its timers, its bounds, and what is written down."""

import asyncio
import contextlib
import socket
from ipaddress import ip_address

import pytest

from atrund.config.values import FirewallRule, Sms
from atrund.doors import connection as room
from atrund.doors import tcp as tcp_room
from atrund.doors import wire
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
            assert asyncio.get_running_loop().time() - begun == pytest.approx(wire.UNSENT_PATIENCE, abs=5)
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
        assert room.QUEUED_MAX <= len(session._queued) <= room.QUEUED_MAX + wire.READ_SIZE
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


async def test_a_peer_that_says_no_more_hears_the_rest() -> None:
    async with door(sequence=True) as house, calling(house) as caller:
        house.module.faults.plant("AT+GMI", Plant(seconds=10.0))
        caller.writer.write(b"AT+GMI\rAT\r")
        caller.writer.write_eof()
        heard = await caller.rest()
        assert heard.startswith(b"AT+GMI\rAT\r\r\n")
        assert heard.endswith(b"\r\nOK\r\n\r\nOK\r\n")
        assert house.told[-1] == ("disconnected", None)


async def test_a_peer_that_says_no_more_and_wants_nothing_is_gone() -> None:
    async with door() as house, calling(house) as caller:
        await caller.ask(b"AT\r")
        caller.writer.write_eof()
        assert await caller.rest() == b""
        assert house.told[-1] == ("disconnected", None)


async def test_a_peer_that_says_no_more_keeps_its_place_for_nobody() -> None:
    """A telnet that was left looks the same as one that waits for its answer."""
    async with door() as house, calling(house) as first:
        house.module.faults.plant("AT+GMI", Plant(seconds=4.0))
        first.writer.write(b"AT+GMI\r")
        first.writer.write_eof()
        await asyncio.sleep(1)
        async with calling(house) as second:
            assert await second.ask(b"AT\r") == b"AT\r\r\nOK\r\n"
            assert await first.rest() == b"AT+GMI\r"
            assert house.daemon.tcp is not None
            assert house.daemon.tcp.peer
            assert [line for line, end, _ in house.outcomes if end == "cancelled"] == ["AT+GMI"]


async def test_the_end_of_input_at_a_prompt_gives_the_command_up() -> None:
    async with door() as house, calling(house) as caller:
        assert await caller.ask(b"AT+CMGS=20\r", b"> ") == b"AT+CMGS=20\r\r\n> "
        caller.writer.write_eof()
        assert await caller.rest() == b""
        assert house.told[-1] == ("disconnected", None)


async def test_the_echo_of_a_line_comes_before_its_answer() -> None:
    """The daemon's own commands are answered at once; an echo that is on its way by then is not overtaken."""
    async with door(sequence=True) as house, calling(house) as caller:
        caller.writer.write(b"ATE1\rAT#ATRUNDELAY?\rAT#ATRUNDELAY?\r")
        heard = await caller.reader.readuntil(b"OK\r\n")
        while heard.count(b"OK\r\n") < 3:
            heard += await caller.reader.readuntil(b"OK\r\n")
        assert heard.startswith(b"ATE1\r")
        assert heard.index(b"AT#ATRUNDELAY?\r") < heard.index(b"#ATRUNDELAY: ")


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


async def wrong_login(house: House, *, source: str = "127.0.0.1") -> float:
    """Log in with a wrong password, and return how long that took."""
    assert house.daemon.tcp is not None
    loop = asyncio.get_running_loop()
    begun = loop.time()
    port = house.daemon.tcp.ports[0]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    writer.write(b"operator\rwrong\rAT\r")
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    return loop.time() - begun


ANYBODY_HERE = FirewallRule(ip_address("127.0.0.0"), ip_address("255.0.0.0"))


async def test_wrong_logins_are_slowed_then_shut_out_for_a_while() -> None:
    """TCP-3."""
    async with door(login_failures=4, shut_out=600.0, firewall=(ANYBODY_HERE,)) as house:
        takes = [await wrong_login(house) for _ in range(4)]
        assert takes == pytest.approx([0, 1, 2, 4], abs=0.3)
        assert house.told[-2:] == [("shut out for 600 s", "auth"), ("disconnected", "auth")]
        assert await wrong_login(house) == pytest.approx(0, abs=0.3)
        assert house.told[-1] == ("refused", "auth")
        assert await wrong_login(house, source="127.0.0.9") == pytest.approx(0, abs=0.3)
        assert house.told[-2] == ("login refused", "auth")
        await asyncio.sleep(600)
        async with calling(house) as caller:
            assert await caller.ask(b"AT\r") == b"AT\r\r\nOK\r\n"
        assert house.wire.seen.count("AT") == 1


async def test_who_has_not_logged_in_takes_nobody_s_place() -> None:
    async with door() as house, calling(house, login=False), calling(house, login=False), calling(house) as caller:
        assert await caller.ask(b"AT\r") == b"AT\r\r\nOK\r\n"


async def test_the_first_to_log_in_has_the_place() -> None:
    async with door() as house, calling(house, login=False) as early, calling(house) as first:
        assert await first.ask(b"AT\r") == b"AT\r\r\nOK\r\n"
        early.writer.write(LOGIN)
        assert await early.rest() == b""
        assert ("login refused", "busy") in house.told
        assert await first.ask(b"AT\r") == b"AT\r\r\nOK\r\n"


async def test_several_sessions_where_configured() -> None:
    async with door(sessions=2) as house, calling(house) as first, calling(house) as second:
        assert await first.ask(b"AT\r") == b"AT\r\r\nOK\r\n"
        assert await second.ask(b"AT\r") == b"AT\r\r\nOK\r\n"
        with contextlib.suppress(ConnectionResetError):
            async with calling(house) as third:
                assert await third.rest() == b""
        assert house.told[-1] == ("refused", "busy")
        assert await first.ask(b"AT\r") == b"AT\r\r\nOK\r\n"


async def test_each_of_several_sessions_gets_its_own_answers() -> None:
    async with door(sessions=2) as house, calling(house) as first, calling(house) as second:
        house.module.faults.plant("AT+GMI", Plant(seconds=4.0))
        first.writer.write(b"AT+GMI\r")
        second.writer.write(b"AT+GMM\r")
        assert (await first.reader.readuntil(b"OK\r\n")).startswith(b"AT+GMI\r\r\nTelit")
        assert (await second.reader.readuntil(b"OK\r\n")).startswith(b"AT+GMM\r\r\n")


async def test_a_newcomer_replaces_who_came_first_after_its_own_login() -> None:
    async with door(replace="authenticated") as house, calling(house) as first:
        assert await first.ask(b"AT\r") == b"AT\r\r\nOK\r\n"
        async with calling(house, login=False) as second:
            second.writer.write(b"operator\rwrong\r")
            assert await second.rest() == b""
        assert await first.ask(b"AT\r") == b"AT\r\r\nOK\r\n"
        async with calling(house) as third:
            assert await third.ask(b"AT\r") == b"AT\r\r\nOK\r\n"
            assert await first.rest() == b""
        assert ("replaced by 127.0.0.1", "busy") in house.told


async def test_a_session_that_is_replaced_leaves_its_command() -> None:
    async with door(replace="authenticated") as house, calling(house) as first:
        house.module.faults.plant("AT+GMI", Plant(seconds=4.0))
        first.writer.write(b"AT+GMI\r")
        await asyncio.sleep(1)
        async with calling(house) as second:
            assert await second.ask(b"AT\r") == b"AT\r\r\nOK\r\n"
        assert [line for line, end, _ in house.outcomes if end == "cancelled"] == ["AT+GMI"]


async def test_one_address_cannot_fill_the_door() -> None:
    async with door(firewall=(ANYBODY_HERE,)) as house, contextlib.AsyncExitStack() as stack:
        assert house.daemon.tcp is not None
        port = house.daemon.tcp.ports[0]
        for _ in range(tcp_room.NEWCOMERS_OF_ONE):
            await stack.enter_async_context(calling(house, login=False))
        with contextlib.suppress(ConnectionResetError):
            async with calling(house, login=False) as one_more:
                assert await one_more.rest() == b""
        assert house.told[-1] == ("refused", "busy")
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.9", 0))
        writer.write(LOGIN + b"AT\r")
        assert await reader.readuntil(b"OK\r\n") == b"AT\r\r\nOK\r\n"
        writer.close()


async def test_a_thousand_calls_that_never_log_in_are_not_a_thousand_lines() -> None:
    async with door() as house:
        assert house.daemon.tcp is not None
        for _ in range(1000):
            _, writer = await asyncio.open_connection("127.0.0.1", house.daemon.tcp.ports[0])
            writer.transport.abort()
            await asyncio.sleep(0.01)
        await asyncio.sleep(1)
        assert 20 <= len(house.told) <= 60
        assert not house.daemon.tcp._newcomers
        async with calling(house) as caller:
            assert await caller.ask(b"AT\r") == b"AT\r\r\nOK\r\n"
        assert ("login operator", None) in house.told


async def test_where_the_kernel_takes_no_filter_strangers_are_reset() -> None:
    """TCP-2: unread, and written down; but not each of a flood."""

    def refuse(_listener: socket.socket, _rules: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    rules = alone(FirewallRule(ip_address("198.51.100.0"), ip_address("255.255.255.0")))
    async with running(config(sms=Sms())) as house:
        unfiltered = TcpDoor(
            lambda: rules,
            session_means(house),
            ledger=house.daemon._ledger,
            mirror=house.daemon._mirror,
            keep_out=refuse,
        )
        await unfiltered.start()
        for _ in range(100):
            with contextlib.suppress(ConnectionResetError):
                reader, writer = await asyncio.open_connection("127.0.0.1", unfiltered.ports[0])
                writer.write(LOGIN)
                assert await reader.read() == b""
        assert house.told[:2] == [("refused", "firewall")] * 2
        assert house.told[-1] == ("refused for the 64th time this hour", "firewall")
        assert len(house.told) == 13
        assert unfiltered.kept_out == 0
        unfiltered.follow()
        await unfiltered.close()


async def test_the_kernel_s_filter_follows_the_rules() -> None:
    async with running(config(sms=Sms())) as house:
        rules = [alone(ANYBODY_HERE)]
        filtered = TcpDoor(
            lambda: rules[-1], session_means(house), ledger=house.daemon._ledger, mirror=house.daemon._mirror
        )
        await filtered.start()
        assert await gets_through(filtered, "127.0.0.9")
        rules.append(alone(FirewallRule(ip_address("127.0.0.1"), ip_address("255.255.255.255"))))
        filtered.follow()
        assert not await gets_through(filtered, "127.0.0.9")
        assert await gets_through(filtered, "127.0.0.1")
        assert filtered.kept_out
        rules.append(alone())
        filtered.follow()
        assert not await gets_through(filtered, "127.0.0.1")
        assert not [what for what, _ in house.told if what == "refused"]
        await filtered.close()


def alone(*firewall: FirewallRule) -> TcpRules:
    return TcpRules(
        listen=("127.0.0.1",),
        port=0,
        firewall=firewall,
        users=(("operator", "geheim"),),
        login_timeout=60,
        idle_timeout=0,
        timeout=60,
        sequence=False,
    )


async def gets_through(to: TcpDoor, source: str) -> bool:
    """Whether a connection is made; on loopback a SYN is there, or dropped, before `connect` returns."""
    try:
        async with asyncio.timeout(0.5):
            _, writer = await asyncio.open_connection("127.0.0.1", to.ports[0], local_addr=(source, 0))
    except TimeoutError:
        return False
    writer.close()
    return True


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
