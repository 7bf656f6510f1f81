# SPDX-License-Identifier: Apache-2.0
"""What settings switch, over the whole daemon with real connections: doors opened, closed and followed at once."""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from atrund.atrun.request import Door, End, Reason
from atrund.atrun.secrets import Secret
from atrund.config.values import Config, FirewallRule, Policy, Sms, Tcp, TcpUser
from atrund.sim.store import Message, Status
from tests.support.asking import OUTER, outcome, said
from tests.support.lives import Lives
from tests.support.ports import free_port
from tests.support.virtual import FRIEND, House, config, deliver, running
from tests.support.waiting import ready, until

pytestmark = pytest.mark.looptime

HERE = FirewallRule(ip_address("127.0.0.1"), ip_address("255.255.255.255"))
ALL = Policy(remote_admin=("sms", "tcp", "mqtt"))
USERS = (TcpUser("operator", Secret("geheim")),)
OPEN = Tcp(enabled=True, port=0, firewall=(HERE,), users=USERS)
SHUT = replace(OPEN, enabled=False)
FRIENDLY = Sms(enabled=True, numbers=(FRIEND,))


def given(tcp: Tcp = OPEN, sms: Sms = FRIENDLY) -> Config:
    return config(tcp=tcp, sms=sms, policy=ALL)


@contextlib.asynccontextmanager
async def house(tcp: Tcp = OPEN, sms: Sms = FRIENDLY) -> AsyncIterator[House]:
    async with running(given(tcp, sms)) as there:
        await ready(there)
        yield there


class Caller:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, line: str) -> str:
        """Type a line; what comes up to its final result, without the echo."""
        self.writer.write(f"{line}\r".encode())
        found = await self.reader.readuntil(b"\r")
        while re.search(rb"\r\n(OK|(\+CME )?ERROR[ :0-9]*)\r\n\Z", found) is None:
            found += await self.reader.readuntil(b"\r\n")
        return found.decode().removeprefix(f"{line}\r").strip()

    async def rest(self) -> bytes:
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := await self.reader.read(65536):
                found += piece
        return found


@contextlib.asynccontextmanager
async def calling(there: House) -> AsyncIterator[Caller]:
    assert there.daemon.tcp is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", there.daemon.tcp.ports[0])
    writer.write(b"operator\rgeheim\r")
    try:
        yield Caller(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def test_the_listener_comes_and_goes_with_its_setting() -> None:
    async with house(SHUT) as there:
        assert await said(there, "AT#TCPATRUNL?") == ["#TCPATRUNL: 0,0", "OK"]
        assert await said(there, "AT#TCPATRUNL=1") == ["OK"]
        assert await said(there, "AT#TCPATRUNL?") == ["#TCPATRUNL: 1,1", "OK"]
        async with calling(there) as caller:
            assert (await caller.ask("AT+GMI")).startswith("Telit")
        door = there.daemon.tcp
        assert door is not None
        (port,) = door.ports
        assert await said(there, "AT#TCPATRUNL=0") == ["OK"]
        await until(lambda: refuses(port))
        assert there.daemon.tcp is None
        told = (await there.daemon.status())["tcp"]
        assert told == {"state": "off", "ports": [], "peer": "", "peers": [], "kept_out": 0}


async def test_tcp_switches_itself_off_behind_its_ok() -> None:
    async with house() as there, calling(there) as caller:
        caller.writer.write(b"AT#TCPATRUNL=0\r")
        assert await caller.rest() == b"AT#TCPATRUNL=0\r\r\nOK\r\n"
        assert await said(there, "AT#TCPATRUNL?") == ["#TCPATRUNL: 0,0", "OK"]
        assert ("disconnected", "shutdown") in there.told


async def test_another_door_switches_tcp_off_behind_the_answer_that_runs() -> None:
    async with house() as there, calling(there) as caller:
        await caller.ask("AT")
        caller.writer.write(b"AT+COPS=?\r")
        await asyncio.sleep(0.1)
        assert await said(there, "AT#TCPATRUNL=0") == ["OK"]
        assert (await caller.rest()).endswith(b"\r\nOK\r\n")


async def test_sms_switches_itself_off_and_its_answer_still_goes_out() -> None:
    async with house() as there:
        there.sms("AT#SMSATRUN=0")
        await until(lambda: there.sent)
        assert there.sent == [(FRIEND, "\r\nOK\r\n")]
        assert there.daemon.sms.state == "off"
        there.sms("AT+CSQ")
        await asyncio.sleep(300)
        assert len(there.sent) == 1
        assert ("AT+CSQ", "ok", None) not in there.outcomes


async def test_sms_2_switched_on_what_lies_in_the_store_is_not_run() -> None:
    async with house(sms=replace(FRIENDLY, enabled=False)) as there:
        there.module.store.add("SM", Message(Status.REC_UNREAD, deliver("AT+GMI", at=there.clock.now()).encode()))
        assert await said(there, "AT#SMSATRUN=1") == ["OK"]
        await until(lambda: there.daemon.sms.state == "open")
        await asyncio.sleep(120)
        assert there.sent == []
        there.sms("AT+GMI")
        await until(lambda: there.sent)


async def test_the_white_list_counts_from_the_next_message_on() -> None:
    async with house(sms=replace(FRIENDLY, numbers=())) as there:
        there.sms("AT+GMI")
        await asyncio.sleep(30)
        assert there.sent == []
        assert await said(there, f'AT#SMSATWL=0,1,0,"{FRIEND}"') == ["OK"]
        there.sms("AT+GMR")
        await until(lambda: there.sent)
        there.sms("AT#SMSATWL=1,1")
        await until(lambda: len(there.sent) == 2)
        there.sms("AT+GMM")
        await asyncio.sleep(30)
        assert len(there.sent) == 2


@pytest.mark.parametrize(
    "line",
    [
        'AT#TCPATRUNCFG=1,2,1024,1024,""',
        "AT#TCPATRUND=1",
        "AT#SMSATRUNCFG=3,1,2",
        "AT#ENAEVMONICFG=3",
    ],
)
@pytest.mark.parametrize("door", OUTER)
async def test_cmd_2_what_is_not_changed_while_it_is_on(line: str, door: Door) -> None:
    async with house() as there:
        before = there.daemon.nvm.settings
        found = await outcome(there, line, door)
        assert (found.end, found.reason) == (End.ERROR, Reason.POLICY)
        assert there.daemon.nvm.settings == before


async def test_cmd_2_an_instance_has_one_service() -> None:
    async with house(SHUT) as there:
        assert await said(there, 'AT#TCPATRUNCFG=1,3,1024,1024,""') == ["OK"]
        found = await outcome(there, "AT#TCPATRUNL=1")
        assert (found.end, found.reason) == (End.ERROR, Reason.HELD)
        assert await said(there, "AT#TCPATRUNL?") == ["#TCPATRUNL: 0,0", "OK"]
        assert await said(there, "AT#SMSATRUN=0") == ["OK"]
        assert await said(there, 'AT#TCPATRUNCFG=1,3,1024,1024,""') == ["OK"]


class Kept:
    """What else has the instances."""

    def __init__(self) -> None:
        self.held: dict[int, str] = {}

    def hold(self, instance: int, reason: str) -> None:
        self.held[instance] = reason

    def release(self, instance: int) -> None:
        self.held.pop(instance, None)


async def test_cmd_3_whoever_has_an_instance_gives_it_up_to_a_service_and_gets_it_back() -> None:
    async with house(SHUT) as there:
        kept = Kept()
        there.daemon.services.held.append(kept)
        await said(there, "AT#TCPATCMDSEQ=1")
        assert kept.held == {3: "sms"}
        await said(there, "AT#TCPATRUNL=1")
        assert kept.held == {3: "sms", 2: "tcp server"}
        await said(there, "AT#SMSATRUN=0;#TCPATRUNL=0")
        assert kept.held == {}


async def test_the_logins_count_at_the_next_login_and_the_session_goes_on() -> None:
    async with house() as there, calling(there) as caller:
        assert await caller.ask('AT#TCPATRUNAUTH=2;#TCPATRUNAUTH=1,"other","word"') == "OK"
        assert (await caller.ask("AT+GMI")).startswith("Telit")
        caller.writer.close()
        await until(lambda: there.daemon.tcp is not None and there.daemon.tcp.session is None)
        async with calling(there) as again:
            assert await again.rest() == b""


async def test_a_session_may_write_the_firewall_anew_in_one_line() -> None:
    """The note's line, with a rule that keeps this very peer: it must not be cut off between the two."""
    async with house() as there, calling(there) as caller:
        assert await caller.ask('AT#TCPATRUNFRWL=2;#TCPATRUNFRWL=1,"127.0.0.0","255.0.0.0"') == "OK"
        assert await caller.ask("AT#TCPATRUNFRWL?") == '#TCPATRUNFRWL: "127.0.0.0","255.0.0.0"\r\n\r\nOK'


async def test_a_session_that_shuts_itself_out_sees_its_ok_and_ends() -> None:
    async with house() as there, calling(there) as caller:
        line = b'AT#TCPATRUNFRWL=2;#TCPATRUNFRWL=1,"217.0.0.0","255.0.0.0"\r'
        caller.writer.write(line)
        assert await caller.rest() == line + b"\r\nOK\r\n"
        assert await said(there, "AT#TCPATRUNFRWL?") == ['#TCPATRUNFRWL: "217.0.0.0","255.0.0.0"', "OK"]


async def test_a_peer_that_another_door_shuts_out_is_put_out_at_once() -> None:
    async with house() as there, calling(there) as caller:
        await caller.ask("AT")
        assert await said(there, "AT#TCPATRUNFRWL=2") == ["OK"]
        assert await caller.rest() == b""


async def test_the_connection_is_closed_by_any_door_and_the_service_stays() -> None:
    async with house() as there:
        for closes in (True, False):
            async with calling(there) as caller:
                await caller.ask("AT")
                if closes:
                    assert await said(there, "AT#TCPATRUNCLOSE") == ["OK"]
                    assert await caller.rest() == b""
                else:
                    caller.writer.write(b"AT#TCPATRUNCLOSE\r")
                    assert await caller.rest() == b"AT#TCPATRUNCLOSE\r\r\nOK\r\n", "its own answer comes first"
            assert await said(there, "AT#TCPATRUNL?") == ["#TCPATRUNL: 1,1", "OK"]
        assert await said(there, "AT#TCPATRUNCLOSE") == ["OK"], "with nobody there too"
        assert {how for line, how, _ in there.outcomes if line == "AT#TCPATRUNCLOSE"} == {"ok"}


async def test_a_port_that_is_taken_is_said_and_keeps_no_other_door_shut_at_the_next_start() -> None:
    """A command must not be able to keep the daemon from ever starting again."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        lives = Lives(given(replace(SHUT, listen=(ip_address("127.0.0.2"), ip_address("127.0.0.1")))))
        there = await lives.start()
        await said(there, f'AT#TCPATRUNCFG=1,2,{port},1024,""')
        found = await outcome(there, "AT#TCPATRUNL=1")
        assert (found.end, found.reason) == (End.ERROR, Reason.BUSY)
        assert "in use" in found.detail
        assert await said(there, "AT#TCPATRUNL?") == ["#TCPATRUNL: 1,0", "OK"]
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.2", port)) != 0, "half a door is none"
        await lives.kill()
        there = await lives.start()
        assert await said(there, "AT#TCPATRUNL?") == ["#TCPATRUNL: 1,0", "OK"]
        there.sms("AT+GMI")
        await until(lambda: there.sent)
        taken.close()
        assert await said(there, "AT#TCPATRUNL=1") == ["OK"]
        assert await said(there, "AT#TCPATRUNL?") == ["#TCPATRUNL: 1,1", "OK"]
        await lives.end()


async def test_without_a_ledger_the_file_counts_and_a_door_whose_secrets_it_has_not_stays_shut() -> None:
    lives = Lives(given(replace(OPEN, users=(), firewall=())))
    there = await lives.start()
    await said(there, 'AT#TCPATRUNFRWL=1,"127.0.0.1","255.255.255.255";#TCPATRUNAUTH=1,"operator","geheim"')
    async with calling(there) as caller:
        await caller.ask("AT")
    await lives.kill()
    there = await lives.start()
    async with calling(there) as caller:
        await caller.ask("AT")
    await lives.kill()
    lives.disk.refuse("I/O error")
    there = await lives.start(wait=False)
    assert (await there.daemon.status())["settings"]["failure"] == "I/O error"  # type: ignore[index]
    assert there.daemon.tcp is not None
    with pytest.raises(OSError, match=r"timed out|reset"):  # by the kernel, or by the daemon
        socket.create_connection(("127.0.0.1", there.daemon.tcp.ports[0]), 1.0).recv(1)
    lives.disk.dies, lives.disk.broken = lambda: False, ""
    await lives.end()


@pytest.mark.parametrize("typed", [b"AT#SMSATRUN=0", b'AT#SMSATWL=0,1,0,"+39', b"AT#TCPATRUNFRWL=2;", b"A", b"\x1a"])
async def test_half_a_line_and_silence_changes_nothing(typed: bytes) -> None:
    async with house() as there:
        before = there.daemon.nvm.settings
        async with calling(there) as caller:
            await caller.ask("AT")
            caller.writer.write(typed)
            await asyncio.sleep(3600)
            assert there.daemon.tcp is not None
            assert there.daemon.tcp.session is None, "it idled too long"
        assert there.daemon.nvm.settings == before
        async with calling(there) as caller:
            caller.writer.write(typed)
            await caller.writer.drain()
        await asyncio.sleep(10)
        assert there.daemon.nvm.settings == before


@pytest.mark.parametrize(
    "line", ['AT#SMSATWL=0,1,0,"+39', 'AT#SMSATRUN=0;#SMSATWL=0,1,0,"', "AT#SMSATRUN=0\x1b", "AT" * 2000]
)
async def test_a_line_that_is_none_is_refused_whole(line: str) -> None:
    async with house() as there, calling(there) as caller:
        before = there.daemon.nvm.settings
        assert await caller.ask("AT+CMEE=1") == "OK"
        assert await caller.ask(line) == "+CME ERROR: 50"
        assert there.daemon.nvm.settings == before
        assert await caller.ask("AT#SMSATRUN?") == "#SMSATRUN: 1\r\n\r\nOK"


# A file read anew


async def catch_up(there: House, tcp: Tcp) -> str:
    before = there.daemon.nvm.settings
    there.daemon.follow(replace(there.daemon.config, tcp=tcp))
    return await there.daemon.services.catch_up(before)


async def test_whose_login_is_gone_is_put_out_behind_its_answer_whatever_is_set_meanwhile() -> None:
    async with house() as there, calling(there) as caller:
        await caller.ask("AT")
        caller.writer.write(b"AT+COPS=?\r")
        await asyncio.sleep(0.5)
        assert await catch_up(there, replace(OPEN, users=(TcpUser("operator", Secret("another")),))) == ""
        assert await said(there, "AT#TCPATRUNCFG?") != ["ERROR"]
        assert await said(there, 'AT#TCPATRUNFRWL=1,"192.0.2.0","255.255.255.0"') == ["OK"]
        assert (await caller.rest()).endswith(b"\r\nOK\r\n")
        assert ("disconnected", "shutdown") in there.told


async def test_a_session_that_the_file_has_nothing_against_stays_and_follows() -> None:
    async with house() as there, calling(there) as caller:
        await caller.ask("AT")
        session = there.daemon.tcp.session if there.daemon.tcp is not None else None
        assert session is not None
        assert await catch_up(there, replace(OPEN, delay=1.0, login_timeout=7.0, timeout=61.0)) == ""
        assert (session.rules.login_timeout, session.rules.timeout) == (7.0, 61.0)
        assert await caller.ask("AT") == "OK"


async def test_a_file_without_the_door_shuts_it_behind_the_answer_that_runs_and_opens_it_again() -> None:
    async with house() as there, calling(there) as caller:
        await caller.ask("AT")
        caller.writer.write(b"AT+COPS=?\r")
        await asyncio.sleep(0.5)
        await catch_up(there, SHUT)
        assert there.daemon.tcp is None
        assert (await caller.rest()).endswith(b"\r\nOK\r\n")
        await catch_up(there, OPEN)
        async with calling(there) as another:
            assert await another.ask("AT") == "OK"


async def test_another_port_counts_when_the_session_is_over_and_one_that_cant_be_had_changes_nothing() -> None:
    free = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with house() as there:
            door = there.daemon.tcp
            assert "ddress already in use" in await catch_up(there, replace(OPEN, port=taken.getsockname()[1]))
            assert there.daemon.tcp is door
            async with calling(there) as caller:
                await caller.ask("AT")
                for _ in range(3):
                    assert await catch_up(there, replace(OPEN, port=free)) == ""
                assert there.daemon.tcp is door
                assert await caller.ask("AT") == "OK"
            await until(lambda: there.daemon.tcp is not door)
            assert there.daemon.tcp is not None
            assert there.daemon.tcp.ports == (free,)
            async with calling(there) as caller:
                assert await caller.ask("AT") == "OK"


async def test_a_door_that_an_operator_closed_stays_closed() -> None:
    async with house(SHUT) as there:
        await there.daemon.services.close(Door.TCP)
        assert await catch_up(there, OPEN) == ""
        assert there.daemon.tcp is None
