# SPDX-License-Identifier: Apache-2.0
"""`#TCPATCONSER` in a session: how transparent mode begins and ends, and what becomes of its port (TCP-6 to TCP-9)."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from atrund import making
from atrund.atrun.packing import Packets
from atrund.config.tls import Certificate
from atrund.config.values import SerialPort, Tcp, TcpTls
from atrund.doors import liveness
from atrund.module import raw
from atrund.module.port import PortError
from atrund.module.raw import Flow
from atrund.sim.faults import Plant
from atrund.tls import Files, client_context
from tests.support.asking import said
from tests.support.calling import LOGIN, Caller, calling, door
from tests.support.certificates import Authority
from tests.support.far_end import called
from tests.support.lines import Line
from tests.support.namespace import apart
from tests.support.virtual import House
from tests.support.waiting import until

pytestmark = pytest.mark.looptime

ENTER = b"AT#TCPATCONSER=1,115200\r"
CONNECT = b"\r\nCONNECT\r\n"
NO_CARRIER = b"\r\nNO CARRIER\r\n"
SERIAL = (SerialPort(1, Path("/dev/ttyS1")), SerialPort(2, Path("/dev/ttyS2"), rates=(921600,), flow="rtscts"))
OPTIONS: dict[str, Any] = {"serial": SERIAL, "idle_timeout": 0.0}


class Ports:
    """What stands for the host's serial ports."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.opened: list[tuple[str, int, Flow]] = []
        self.seconds = 0.0
        self.go: asyncio.Event | None = None
        self.refused = ""

    async def open(self, path: str, rate: int, flow: Flow) -> Line:
        self.opened.append((path, rate, flow))
        await asyncio.sleep(self.seconds)
        if self.go is not None:
            await self.go.wait()
        if self.refused:
            raise PortError(f"{path}: {self.refused}")
        self.lines.append(Line())
        return self.lines[-1]


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> Ports:
    ports = Ports()
    monkeypatch.setattr(raw, "open_raw", ports.open)
    return ports


@contextlib.asynccontextmanager
async def inside(house: House) -> AsyncIterator[Caller]:
    """A session without echo."""
    async with calling(house) as caller:
        await caller.ask(b"ATE0\r")
        yield caller


async def enter(caller: Caller, line: bytes = ENTER) -> None:
    assert await caller.ask(line, CONNECT) == CONNECT


async def leave(caller: Caller) -> None:
    await asyncio.sleep(1)
    caller.writer.write(b"+++")
    assert await caller.reader.readuntil(NO_CARRIER) == NO_CARRIER


def what(house: House) -> list[str]:
    return [told for told, _ in house.told if "transparent" in told]


async def test_from_connect_to_no_carrier(ports: Ports) -> None:
    async with door(**OPTIONS) as house, inside(house) as caller:
        await enter(caller)
        assert ports.opened == [("/dev/ttyS1", 115200, Flow.NONE)]
        (line,) = ports.lines
        caller.writer.write(b"to the port")
        await until(lambda: line.got)
        assert line.got == b"to the port"
        line.say(b"s" * 300)
        assert await caller.reader.readexactly(300) == b"s" * 300
        await leave(caller)
        await until(lambda: line.closed)
        assert await caller.ask(b"AT\r") == b"\r\nOK\r\n"
        assert house.outcomes[-2:] == [("AT#TCPATCONSER=1,115200", "ok", None), ("AT", "ok", None)]
        assert what(house) == [
            "transparent mode: serial port 1 at 115200",
            "transparent mode ended: escape: 11 octets to the port, 300 from it",
        ]
        assert "to the port" not in str(house.disk.rows("SELECT line FROM audit"))


async def test_rates_and_flow_control_are_the_ports(ports: Ports) -> None:
    async with door(**OPTIONS) as house, inside(house) as caller:
        assert await caller.ask(b"AT#TCPATCONSER=2,115200\r", b"ERROR\r\n") == b"\r\nERROR\r\n"
        await enter(caller, b"AT#TCPATCONSER=2,921600\r")
        assert ports.opened == [("/dev/ttyS2", 921600, Flow.RTSCTS)]


async def test_without_a_port_in_the_configuration() -> None:
    async with door() as house, inside(house) as caller:
        assert await caller.ask(ENTER, b"ERROR\r\n") == b"\r\nERROR\r\n"


async def test_a_port_that_cannot_be_had_says_why_in_the_record(ports: Ports) -> None:
    async with door(**OPTIONS) as house, inside(house) as caller:
        ports.refused = "held by another program"
        await caller.ask(b"AT+CMEE=2\r")
        assert await caller.ask(ENTER, b"\r\n+CME ERROR: ")
        ports.refused = ""
        await caller.reader.readuntil(b"\r\n")
        await enter(caller)


async def test_a_port_that_another_session_has(ports: Ports) -> None:
    async with door(**OPTIONS, sessions=2) as house, inside(house) as one, inside(house) as other:
        await enter(one)
        assert await other.ask(ENTER, b"ERROR\r\n") == b"\r\nERROR\r\n"
        await enter(other, b"AT#TCPATCONSER=2,921600\r")
        await leave(one)
        assert await one.ask(b"AT\r") == b"\r\nOK\r\n"
        ports.lines[1].say(b"x" * 300)
        assert await other.reader.readexactly(300) == b"x" * 300
        await enter(one)
        assert len(ports.lines) == 3


async def test_a_session_that_ends_while_the_port_is_opened(ports: Ports) -> None:
    ports.go = asyncio.Event()
    async with door(**OPTIONS) as house:
        tcp = house.daemon.tcp
        assert tcp is not None
        async with inside(house) as caller:
            caller.writer.write(ENTER)
            await until(lambda: ports.opened)
            link = caller.writer.get_extra_info("socket")
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # it goes with a reset
            caller.writer.transport.abort()
        await until(lambda: not tcp.peer)
        ports.go.set()
        await until(lambda: ports.lines and ports.lines[0].closed)
        assert what(house) == []
        async with inside(house) as caller:
            await enter(caller)


async def test_a_port_that_takes_for_ever_to_open(ports: Ports) -> None:
    ports.go = asyncio.Event()
    async with door(**OPTIONS) as house, inside(house) as caller:
        assert await caller.ask(ENTER, b"ERROR\r\n") == b"\r\nERROR\r\n"
        ports.go.set()
        await enter(caller)


async def test_settings_can_be_changed_while_a_port_takes_long_to_open(ports: Ports) -> None:
    ports.seconds = 10.0
    async with door(**OPTIONS) as house, inside(house) as caller:
        caller.writer.write(ENTER)
        await until(lambda: ports.opened)
        begun = asyncio.get_running_loop().time()
        assert await said(house, "AT#TCPATCMDSEQ=1") == ["OK"]
        assert asyncio.get_running_loop().time() - begun < 1
        assert await caller.reader.readuntil(CONNECT) == CONNECT


@pytest.mark.parametrize("by", ["the peer goes", "its input ends", "AT#TCPATRUNCLOSE", "AT#TCPATRUNL=0", "a stop"])
async def test_the_port_is_given_back_however_the_session_ends(ports: Ports, by: str) -> None:
    """TCP-9: `#TCPATRUNCLOSE` from another door too."""
    async with door(**OPTIONS) as house, inside(house) as caller:
        await enter(caller)
        (line,) = ports.lines
        line.say(b"unfinished")
        caller.writer.write(b"last")
        await until(lambda: line.got)
        match by:
            case "the peer goes":
                caller.writer.transport.abort()
            case "its input ends":
                caller.writer.write_eof()
                assert await caller.rest() == b"unfinished"
            case "a stop":
                assert house.daemon.tcp is not None
                await house.daemon.tcp.close()
            case _:
                assert await said(house, by) == ["OK"]
                assert await caller.rest() == b"unfinished"
        await until(lambda: line.closed)
        assert line.got == b"last"
        assert what(house)[-1] == "transparent mode ended: 4 octets to the port, 10 from it"
        assert house.told[-1][0] == "disconnected"


async def test_a_port_that_vanishes(ports: Ports) -> None:
    async with door(**OPTIONS) as house, inside(house) as caller:
        await enter(caller)
        ports.lines[0].unplug()
        assert await caller.reader.readuntil(NO_CARRIER) == NO_CARRIER
        assert what(house)[-1] == "transparent mode ended: port lost: unplugged: 0 octets to the port, 0 from it"
        await enter(caller)


async def test_the_idle_timeout_counts_either_way(ports: Ports) -> None:
    async with door(**{**OPTIONS, "idle_timeout": 100.0}) as house, inside(house) as caller:
        await enter(caller)
        loop = asyncio.get_running_loop()
        for _ in range(3):
            await asyncio.sleep(60)
            caller.writer.write(b"x")
            await asyncio.sleep(60)
            ports.lines[0].say(b"y")
        begun = loop.time()
        assert await caller.rest() == b"yyy"
        assert loop.time() - begun == pytest.approx(100, abs=0.5)
        assert house.told[-1] == ("disconnected", "idle")


@pytest.mark.usefixtures("ports")
async def test_an_idle_timeout_of_the_command_line_is_none_of_transparent_mode() -> None:
    async with door(**{**OPTIONS, "idle_timeout": 100.0}) as house, inside(house) as caller:
        await enter(caller)
        await asyncio.sleep(90)
        await leave(caller)
        await asyncio.sleep(90)
        assert await caller.ask(b"AT\r") == b"\r\nOK\r\n"


async def test_what_was_typed_ahead_is_run_behind_it(ports: Ports) -> None:
    """TCP-5, sequence on: a line is a line, and no data for the port."""
    ports.seconds = 1.0
    async with door(**OPTIONS, sequence=True) as house, inside(house) as caller:
        caller.writer.write(ENTER + b"AT+CGMI\r")
        await caller.reader.readuntil(CONNECT)
        await asyncio.sleep(1)
        assert ports.lines[0].got == b""
        caller.writer.write(b"+++")
        assert (await caller.reader.readuntil(b"OK\r\n")).startswith(NO_CARRIER + b"\r\nTelit")


async def test_unsolicited_codes_are_no_data(ports: Ports) -> None:
    async with door(**OPTIONS) as house, inside(house) as caller:
        await caller.ask(b"AT+CREG=1\r")
        await enter(caller)
        assert house.wire.end is not None
        house.wire.end.inject(b"\r\n+CREG: 5\r\n")
        await asyncio.sleep(1)
        ports.lines[0].say(b"d" * 300)
        assert await caller.reader.readexactly(300) == b"d" * 300
        await leave(caller)


async def test_a_peer_that_does_not_read_holds_up_the_port_and_is_not_cut_off(ports: Ports) -> None:
    async with door(**OPTIONS) as house, inside(house) as caller:
        await enter(caller)
        (line,) = ports.lines
        caller.reader._transport.pause_reading()  # type: ignore[attr-defined]
        octets = 0
        for _ in range(10_000):
            if not line.reads:
                break
            line.say(b"o" * 4096)
            octets += 4096
            await asyncio.sleep(0)
        assert not line.reads
        await asyncio.sleep(1000)
        line.say(b"held up")
        caller.reader._transport.resume_reading()  # type: ignore[attr-defined]
        assert await caller.reader.readexactly(octets + 7) == b"o" * octets + b"held up"


async def test_a_port_that_takes_nothing_holds_up_the_peer(ports: Ports) -> None:
    async with door(**OPTIONS) as house, inside(house) as caller:
        await enter(caller)
        (line,) = ports.lines
        line.room = 0
        caller.writer.write(b"x" * 50_000)
        assert house.daemon.tcp is not None
        session = house.daemon.tcp.sessions[0]
        await until(lambda: not session.transport.is_reading())
        line.give_room(100_000)
        await until(lambda: len(line.got) == 50_000)
        assert session.transport.is_reading()


async def test_the_packets_are_those_of_scfg(ports: Ports) -> None:
    """TCP-8. What `#SCFGEXT` says counts for a session that is up."""
    async with door(**OPTIONS) as house, inside(house) as caller:
        assert await caller.ask(b"AT#SCFG=1,1,20,0,600,2\r") == b"\r\nOK\r\n"
        assert await caller.ask(b"AT#SCFGEXT=1,0,0,3\r") == b"\r\nOK\r\n"
        assert house.daemon.tcp is not None
        session = house.daemon.tcp.sessions[0]
        link = session.transport.get_extra_info("socket")
        await enter(caller)
        (line,) = ports.lines
        loop = asyncio.get_running_loop()
        line.say(b"x" * 19)
        begun = loop.time()
        assert await caller.reader.read(100) == b"x" * 19
        assert loop.time() - begun == pytest.approx(0.2, abs=0.05)
        begun = loop.time()
        line.say(b"y" * 20)
        assert await caller.reader.read(100) == b"y" * 20
        assert loop.time() - begun < 0.1
        assert options(link) == (1, 1, 180, (180 + 120) * 1000)


def options(link: Any) -> tuple[int, ...]:  # noqa: ANN401 - asyncio's own kind of socket
    tcp = socket.IPPROTO_TCP
    return (
        link.getsockopt(tcp, socket.TCP_NODELAY),
        link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        link.getsockopt(tcp, socket.TCP_KEEPIDLE),
        link.getsockopt(tcp, socket.TCP_USER_TIMEOUT),
    )


def nft(rules: str) -> None:
    done = subprocess.run(["nft", "-f", "-"], input=rules, capture_output=True, text=True, timeout=10, check=False)
    if "Operation not supported" in done.stderr or "Operation not permitted" in done.stderr:
        pytest.skip(f"no nftables in this kernel: {done.stderr.strip()[:200]}")
    assert done.returncode == 0, done.stderr


DROP = """
table inet half {
  chain in {
    type filter hook input priority 0;
    meta l4proto tcp drop;
  }
}
"""


@pytest.mark.parametrize("keepalive", [0, 1])
def test_a_half_open_peer_is_noticed(monkeypatch: pytest.MonkeyPatch, ports: Ports, keepalive: int) -> None:
    """TCP-9: whoever vanishes without a word, because data for it is not acknowledged, or because it is silent."""
    if shutil.which("nft") is None:
        pytest.skip("nft(8) is not installed")
    monkeypatch.setattr(liveness, "UNHEARD_MAX", 2.0)
    monkeypatch.setattr(making, "packets", lambda _: Packets(size=1, keepalive=float(keepalive)))
    lasted: list[float] = []

    async def scene() -> None:
        nft("table inet half { }\n")
        async with door(**OPTIONS) as house, inside(house) as caller:
            await enter(caller)
            (line,) = ports.lines
            nft(DROP)
            begun = asyncio.get_running_loop().time()
            if not keepalive:
                line.say(b"is anybody there?")
            await until(lambda: line.closed, 20)
            lasted.append(asyncio.get_running_loop().time() - begun)
            assert house.told[-1] == ("disconnected", None)
            caller.writer.transport.abort()

    apart(lambda: asyncio.run(scene()))
    assert 1.5 < lasted[0] < 10


async def test_in_command_mode_nothing_waits_for_a_packet(ports: Ports) -> None:
    """TCP-8, TCP-4: a line is whole when it comes, and then there is nothing unfinished about it."""
    del ports
    async with door(**OPTIONS) as house, inside(house) as caller:
        loop = asyncio.get_running_loop()
        house.module.faults.plant("AT#MONI", Plant(seconds=60.0, left=None, final="OK"))
        assert await said(house, "AT#SCFG=1,1,1500,0,600,0") == ["OK"]
        caller.writer.write(b"AT#MONI\r")
        await asyncio.sleep(1)
        assert house.wire.end is not None
        begun = loop.time()
        house.wire.end.inject(b"\r\n#MONI: one\r\n")
        assert await caller.reader.readuntil(b"#MONI: one\r\n")
        assert loop.time() - begun < 0.1


async def test_in_client_mode_too(ports: Ports) -> None:
    async with called(tcp=Tcp(serial=SERIAL)) as (house, far):
        call = await far.call()
        await call.ask(b"ATE0\r")
        await enter(call)
        ports.lines[0].say(b"c" * 300)
        assert await call.reader.readexactly(300) == b"c" * 300
        await leave(call)
        assert await call.ask(b"AT\r") == b"\r\nOK\r\n"
        await enter(call)
        assert await said(house, "AT#TCPATRUNCLOSE") == ["OK"]
        await until(lambda: ports.lines[1].closed)


async def test_by_tls(ports: Ports, tmp_path: Path) -> None:
    """TCP-6: one record of three is the escape; what is held up is, and nothing is lost under a port that stalls."""

    def at_once(_: object, work: Callable[..., object], *given: object) -> "asyncio.Future[object]":
        done: asyncio.Future[object] = loop.create_future()  # virtual time goes on while a thread works
        done.set_result(work(*given))
        return done

    loop = asyncio.get_running_loop()
    loop.run_in_executor = at_once  # type: ignore[method-assign,assignment]  # this loop's alone
    authority = Authority(tmp_path)
    pair = authority.issue("localhost", "IP:127.0.0.1")
    tls = TcpTls(True, Certificate(pair.certificate, datetime(2100, 1, 1, tzinfo=UTC)), pair.key, None)
    data = bytes(range(256)) * 400
    async with door(**OPTIONS, tls=tls) as house:
        assert house.daemon.tcp is not None
        context = client_context(Files(ca=authority.file))
        reader, writer = await asyncio.open_connection("127.0.0.1", house.daemon.tcp.ports[0], ssl=context)
        caller = Caller(reader, writer)
        caller.writer.write(LOGIN)
        await caller.ask(b"ATE0\r")
        await enter(caller)
        (line,) = ports.lines
        line.room = 0
        caller.writer.write(data)
        await asyncio.sleep(5)
        while len(line.got) < len(data):
            line.give_room(10_000)
            await asyncio.sleep(0.1)
        assert line.got == data
        line.say(data)
        assert await caller.reader.readexactly(len(data)) == data
        await leave(caller)
        assert await caller.ask(b"AT\r") == b"\r\nOK\r\n"
        writer.transport.abort()
