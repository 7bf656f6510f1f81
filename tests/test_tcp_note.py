# SPDX-License-Identifier: Apache-2.0
"""Chapter 3 of the application note 80000NT10029a, paragraph by paragraph: a module in the field and a PC that calls.

What the module's user types there comes through the local door here. 3.3 is in test_tcp_modes.py and in
scenarios/test_client.py, 3.5 in scenarios/test_transparent.py.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from atrund.config.values import Config, DoorRules, LocalRules, Policy, Sms, Tcp, TcpBearer
from atrund.sim.faults import Plant
from tests.support.asking import said
from tests.support.calling import Caller, calling, door
from tests.support.lives import Lives
from tests.support.ports import free_port
from tests.support.virtual import House, config, running
from tests.support.waiting import ready, status, until

pytestmark = pytest.mark.looptime

NOTE_LOGIN = b"testuser\rtestpassw\r"
SOCKETS = ("#SS: 1,1,212.141.121.05,1024,212.141.121.148,1332", *(f"#SS: {n},0" for n in range(2, 7)))
SCRIPT = random.Random(39).randbytes(60_000)  # noqa: S311 - no secret


@contextlib.asynccontextmanager
async def telnet(port: int, login: bytes = NOTE_LOGIN) -> AsyncIterator[Caller]:
    """The PC: it calls, and says who it is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(login)
        yield Caller(reader, writer)
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def field(given: Config | None = None) -> AsyncIterator[House]:
    """The module in the field, with nothing set yet."""
    async with running(given or config(sms=Sms(), tcp=Tcp(idle_timeout=0.0))) as house:
        await ready(house)
        yield house


async def refuses(port: int) -> bool:
    """Whether nobody listens there."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.transport.abort()
    return False


async def set_up(house: House, port: int, mode: int = 1) -> None:
    """What 3.1 and 3.2.1 set."""
    for line in (
        "AT#SCFG=1,1,300,0,600,1",
        f'AT#TCPATRUNCFG =1,2,{port},12345,"212.141.125.127",1,5,{mode},5,2',
        'AT#TCPATRUNFRWL=1,"127.0.0.1","255.255.255.255"',
        'AT#TCPATRUNAUTH=1,"testuser","testpassw"',
        "AT#TCPATRUNL =1",
    ):
        assert await said(house, line) == ["OK"]


async def test_3_1_the_configuration_as_it_is_printed() -> None:
    async with field() as house:
        answer = await said(house, "AT#SGACT=1,1")
        assert answer[0].startswith("#SGACT: ")
        assert answer[-1] == "OK"
        assert await said(house, "AT#SGACTCFG=1,1") == ["OK"]
        assert await said(house, "AT#SCFG=1,1,300,0,600,1") == ["OK"]
        assert await said(house, 'AT#TCPATRUNCFG =1,2,1024,12345,"212.141.125.127",1,5,1,5,2') == ["OK"]
        assert await said(house, "AT#SCFG?") == ["#SCFG: 1,1,300,0,600,1", *(await said(house, "AT#SCFG?"))[1:]]
        assert await said(house, "AT#TCPATRUNCFG?") == [
            '#TCPATRUNCFG: 1,2,1024,12345,"212.141.125.127",1,5,1,5,2',
            "OK",
        ]
        assert "AT#SCFG=1,1,300,0,600,1" not in house.wire.seen, "the socket is the daemon's own"


async def test_3_1_and_3_2_1_with_auto_activation_it_starts_at_every_start_up() -> None:
    """A context that the module activates by itself: after a reboot, the network's deactivation, a SIM taken out."""
    port = free_port()
    lives = Lives(config(sms=Sms(), tcp=Tcp(bearer=TcpBearer(context=1))))
    house = await lives.start()
    assert (await said(house, "AT#SGACT=1,1"))[-1] == "OK"
    assert await said(house, "AT#SGACTCFG=1,1") == ["OK"]
    await asyncio.sleep(31)
    await set_up(house, port)
    await lives.kill()
    house = await lives.start()
    await until(lambda: house.daemon.tcp is not None)
    assert await said(house, "AT#TCPATRUNL?") == ["#TCPATRUNL: 1,1", "OK"]
    house.module.reboot()
    await asyncio.sleep(60)
    assert await refuses(port), "the module's contexts are gone"
    house.module.contexts.active.add(1)  # by itself, as it was told to
    await asyncio.sleep(60)
    async with telnet(port) as pc:
        await pc.ask(b"AT+GMI\r")
        house.module.contexts.drop_all()
        assert await pc.rest() == b""
    assert await said(house, "AT#TCPATRUNL?") == ["#TCPATRUNL: 1,0", "OK"]
    house.module.contexts.active.add(1)
    await asyncio.sleep(60)
    assert await said(house, "AT#TCPATRUNL?") == ["#TCPATRUNL: 1,1", "OK"]
    await lives.end()


async def test_3_1_the_auto_activation_may_be_the_daemons() -> None:
    """TCP-14: where the configuration says so, and the context is not the one of the host's own data."""
    bearer = TcpBearer(context=1, activate=True, data_context=0)
    async with field(config(sms=Sms(), tcp=Tcp(bearer=bearer))) as house:
        port = free_port()
        await until(lambda: 1 in house.module.contexts.active)
        await asyncio.sleep(31)
        await set_up(house, port)
        house.module.contexts.drop_all()
        await until(lambda: 1 in house.module.contexts.active)
        await until(lambda: house.daemon.tcp is not None)
        async with telnet(port) as pc:
            await pc.ask(b"AT+GMI\r")


async def test_3_2_1_the_server_and_its_firewall_and_the_cells_around() -> None:
    async with field() as house:
        port = free_port()
        await set_up(house, port, mode=0)
        assert await said(house, 'AT#TCPATRUNFRWL=1,"212.141.112.216","255.255.255.255"') == ["OK"]
        assert await said(house, "AT#TCPATRUNFRWL?") == [
            '#TCPATRUNFRWL: "127.0.0.1","255.255.255.255"',
            '#TCPATRUNFRWL: "212.141.112.216","255.255.255.255"',
            "OK",
        ]
        async with telnet(port) as pc:
            for line in (b"AT#MONI=7", b"AT#MONI"):
                shown = await pc.ask(line + b"\r")
                assert shown.startswith(line + b"\r\r\n")
            assert b"#MONI: " in shown
        assert await said(house, 'AT#TCPATRUNFRWL=0,"127.0.0.1","255.255.255.255"') == ["OK"]
        with pytest.raises(TimeoutError):  # its SYN is dropped
            async with asyncio.timeout(0.5):
                await asyncio.open_connection("127.0.0.1", port)


async def test_3_2_1_the_connection_is_told_locally() -> None:
    """The unsolicited code that the sixth parameter of 3.1 switches on, for the instance that switched it on."""
    async with field() as house:
        port = free_port()
        heard: list[str] = []
        with house.daemon.instances.listening(1, heard.extend):
            await set_up(house, port, mode=0)
            async with telnet(port) as pc:
                await pc.ask(b"AT\r")
            await until(lambda: len(heard) > 1)
        assert heard == ["#TCPATRUN: 127.0.0.1", "#TCPATRUN: <DISCONNECT>"]


async def test_3_2_2_1_automatic_mode() -> None:
    """Nothing is said until the first command, which may come in the same breath."""
    async with field() as house:
        port = free_port()
        await set_up(house, port, mode=0)
        async with telnet(port) as pc:
            await asyncio.sleep(1)
            assert await pc.ask(b"AT+GMI\r") == b"AT+GMI\r\r\nTelit\r\n\r\nOK\r\n"
        async with telnet(port, b"testuser\rtestpassw\rAT+GMI\r") as pc:
            assert await pc.ask(b"") == b"AT+GMI\r\r\nTelit\r\n\r\nOK\r\n"


async def test_3_2_2_2_step_by_step() -> None:
    async with field() as house:
        port = free_port()
        await set_up(house, port, mode=1)
        async with telnet(port, b"") as pc:
            assert await pc.reader.readexactly(10) == b"Username: "
            assert await pc.ask(b"testuser\r", b"Password: ") == b"\r\nPassword: "
            assert await pc.ask(b"testpassw\r", b"successful.\r\n") == b"\r\nLogin successful.\r\n"
            assert await pc.ask(b"AT+GMI\r") == b"AT+GMI\r\r\nTelit\r\n\r\nOK\r\n"


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("typed", [b"testuser\rwrong\r", b"nobody\rtestpassw\r"])
async def test_3_2_2_a_pair_that_is_not_in_the_list_closes_at_once(mode: int, typed: bytes) -> None:
    prompts = b"Username: \r\nPassword: " if mode else b""
    async with field() as house:
        port = free_port()
        await set_up(house, port, mode)
        begun = asyncio.get_running_loop().time()
        async with telnet(port, typed + b"AT+GMI\r") as pc:
            assert await pc.rest() == prompts
        assert asyncio.get_running_loop().time() - begun < 1
        assert "AT+GMI" not in house.wire.seen


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("typed", [b"", b"testuser\r"])
async def test_3_2_2_a_parameter_that_does_not_come_closes(mode: int, typed: bytes) -> None:
    async with field() as house:
        port = free_port()
        await set_up(house, port, mode)
        begun = asyncio.get_running_loop().time()
        async with telnet(port, typed) as pc:
            await pc.rest()
        assert asyncio.get_running_loop().time() - begun == pytest.approx(60, abs=1)


def sockets_are_asked(house: House, seconds: float = 3.0) -> None:
    house.module.faults.plant(
        "#SGACT", Plant(left=None, seconds=seconds, lines=("#SGACT: 212.141.252.44",), final="OK")
    )
    house.module.faults.plant("#SS", Plant(left=None, lines=SOCKETS, final="OK"))


FRAMED_SOCKETS = b"\r\n" + b"\r\n".join(line.encode() for line in SOCKETS) + b"\r\n"
ACTIVATED = b"\r\n#SGACT: 212.141.252.44\r\n"


async def test_3_4_commands_behind_a_semicolon_are_one() -> None:
    """The blank behind AT is the note's own."""
    async with door() as house, calling(house) as pc:
        sockets_are_asked(house)
        line = b"AT# SGACT=1,1;#SS\r"
        assert await pc.ask(line) == line + ACTIVATED + FRAMED_SOCKETS + b"\r\nOK\r\n"


async def test_3_4_and_3_7_2_the_second_of_a_sequence_is_ignored() -> None:
    async with door() as house, calling(house) as pc:
        sockets_are_asked(house)
        assert await said(house, "AT#TCPATCMDSEQ?") == ["#TCPATCMDSEQ: 0", "OK"]
        assert await pc.ask(b"AT#SGACT=1,1\rAT#SS\r") == b"AT#SGACT=1,1\r" + ACTIVATED + b"\r\nOK\r\n"
        assert await pc.ask(b"AT\r") == b"AT\r\r\nOK\r\n"
        assert "AT#SS" not in house.wire.seen


@pytest.mark.parametrize("from_afar", [False, True])
async def test_3_4_and_3_7_2_with_the_sequence_on_both_are_run(*, from_afar: bool) -> None:
    """It can be set from any instance, and counts for the session that is up."""
    async with door() as house, calling(house) as pc:
        sockets_are_asked(house)
        if from_afar:
            await pc.ask(b"AT#TCPATCMDSEQ=1\r")
        else:
            await pc.ask(b"AT\r")
            assert await said(house, "AT#TCPATCMDSEQ=1") == ["OK"]
        pc.writer.write(b"AT#SGACT=1,1\rAT#SS\r")
        shown = await pc.ask(b"") + await pc.ask(b"")
        answers = shown.replace(b"AT#SGACT=1,1\r", b"").replace(b"AT#SS\r", b"")
        assert answers == ACTIVATED + b"\r\nOK\r\n" + FRAMED_SOCKETS + b"\r\nOK\r\n"


@pytest.mark.parametrize(
    ("line", "doubts"),
    [
        ("AT#SCFG=1,1,300,90,600,0", ["txTo 0"]),
        ("AT#SCFG=1,1,100,90,600,1", ["packets of 100 bytes"]),
        ("AT#SCFG=1,1,300,0,600,1", ["maxTo 0"]),
        ("AT#SCFG=1,1,1500,0,600,50", ["maxTo 0"]),
        ("AT#SCFG=1,1,100,0,600,0", ["packets of 100 bytes", "maxTo 0", "txTo 0"]),
        ("AT#SCFG=1,1,300,90,600,1", []),
    ],
)
async def test_3_6_what_is_advised_against_is_taken_with_a_warning(line: str, doubts: list[str]) -> None:
    async with field() as house:
        with capture_logs() as logs:
            assert await said(house, line) == ["OK"]
        warned = [log["detail"] for log in logs if log["event"] == "command carried out with a warning"]
        assert len(warned) == len(doubts)
        assert all(doubt in warning for doubt, warning in zip(doubts, warned, strict=True))
        assert (await said(house, "AT#SCFG?"))[0] == line.replace("AT#SCFG=", "#SCFG: ")


@pytest.mark.parametrize("send_timeout", [0, 1, 255])
async def test_3_6_an_answer_does_not_wait_for_the_transmission_timeout(send_timeout: int) -> None:
    """TCP-8: the vendor's does, for ever with txTo 0."""
    async with door() as house, calling(house) as pc:
        assert await said(house, f"AT#SCFG=1,1,1500,0,600,{send_timeout}") == ["OK"]
        begun = asyncio.get_running_loop().time()
        await pc.ask(b"AT\r")
        assert asyncio.get_running_loop().time() - begun < 0.2


async def test_3_6_the_idle_timeout_closes_and_the_service_goes_on() -> None:
    """The far side is gone without a word; behind the local end the next one is let in."""
    async with door() as house:
        async with calling(house) as pc:
            await pc.ask(b"AT\r")
            begun = asyncio.get_running_loop().time()
            assert await said(house, "AT#SCFG=1,1,300,90,600,1") == ["OK"]
            await pc.ask(b"AT\r")
            assert await pc.rest() == b""
            assert asyncio.get_running_loop().time() - begun == pytest.approx(90, abs=2)
        assert await said(house, "AT#TCPATRUNL?") == ["#TCPATRUNL: 1,1", "OK"]
        async with calling(house) as pc:
            await pc.ask(b"AT\r")


async def test_3_6_tcpatrunclose_ends_the_session_locally_and_the_service_goes_on() -> None:
    async with door(idle_timeout=0.0) as house:
        async with calling(house) as pc:
            await pc.ask(b"AT\r")
            assert await said(house, "AT#TCPATRUNCLOSE") == ["OK"]
            assert await pc.rest() == b""
        async with calling(house) as pc:
            await pc.ask(b"AT\r")


async def test_3_6_the_first_instance_is_taken_with_a_warning_and_can_be_had_back() -> None:
    """The note needs the multiplexer for that; here any other instance will do."""
    async with field() as house:
        port = free_port()
        assert await said(house, f'AT#TCPATRUNCFG=1,1,{port},1024,""') == ["OK"]
        with capture_logs() as logs:
            assert await said(house, "AT#TCPATRUNL=1", instance=2) == ["OK"]
        assert [log for log in logs if log["event"] == "command carried out with a warning"]
        assert await said(house, "AT#TCPATRUNL=0", instance=2) == ["OK"]
        assert await refuses(port)


async def test_3_7_the_delay_is_waited_for_until_another_is_set() -> None:
    async with door() as house, calling(house) as pc:
        loop = asyncio.get_running_loop()

        async def takes(line: bytes) -> float:
            begun = loop.time()
            await pc.ask(line)
            return loop.time() - begun

        assert await said(house, "AT#ATRUNDELAY=0,5") == ["OK"]
        for _ in range(3):
            assert await takes(b"AT\r") == pytest.approx(5, abs=0.2)
        begun = loop.time()
        assert await said(house, "AT") == ["OK"]
        assert loop.time() - begun < 1, "it is the TCP commands' alone"
        assert await takes(b"AT#ATRUNDELAY=0,0\r") == pytest.approx(5, abs=0.2)
        assert await takes(b"AT\r") < 0.2
        assert await said(house, "AT#ATRUNDELAY=1,5") == ["OK"]
        assert await takes(b"AT\r") < 0.2, "it is the SMS commands' alone"


async def test_3_8_1_the_networks_around_with_their_delay() -> None:
    async with door() as house, calling(house) as pc:
        assert await said(house, "AT#ATRUNDELAY=0,10") == ["OK"]
        begun = asyncio.get_running_loop().time()
        assert b'"vodafone IT"' in await pc.ask(b"AT+COPS=?\r")
        assert asyncio.get_running_loop().time() - begun == pytest.approx(20, abs=0.5)


SOCKET_SETTINGS = ("AT#PKTSZ=1", "AT#SKTTO=1", "AT#DSTO=1", "AT#SKTSAV", 'AT#SKTSET=0,1024,"1.2.3.4"')


@pytest.mark.parametrize(
    "line", ['AT#SKTD=0,1024,"212.141.125.127",0,0', "AT#SKTL=1,0,1024", "AT#SKTOP", "AT#SKTL", "AT#SKTD"]
)
async def test_3_8_2_n1_and_n4_what_would_turn_the_port_into_a_socket_never_touches_the_session(line: str) -> None:
    """Sockets of the host are not those of the module; on the port that is shared such a command is not sent."""
    async with door() as house, calling(house) as pc:
        await pc.ask(b"AT\r")
        assert (await pc.ask(line.encode() + b"\r", b"ERROR\r\n")).endswith(b"\r\nERROR\r\n")
        assert line not in house.wire.seen
        assert house.outcomes[-1] == (line, "rejected", "data_mode")
        assert await pc.ask(b"AT+GMI\r") == b"AT+GMI\r\r\nTelit\r\n\r\nOK\r\n"


@pytest.mark.parametrize("line", [*SOCKET_SETTINGS, 'AT#QDNS="www.telit.com"'])
@pytest.mark.parametrize("conn_id", [1, 2])
async def test_3_8_2_n1_to_n5_the_modules_sockets_are_not_the_sessions(line: str, conn_id: int) -> None:
    """Whatever connId and instance are, the same ones or others: it is the module's, and changes nothing here."""
    async with field() as house:
        port = free_port()
        assert await said(house, f'AT#TCPATRUNCFG={conn_id},2,{port},1024,""') == ["OK"]
        for given in (f"AT#SCFG={conn_id},1,300,90,600,1", 'AT#TCPATRUNFRWL=1,"127.0.0.1","255.255.255.255"'):
            assert await said(house, given) == ["OK"]
        assert await said(house, 'AT#TCPATRUNAUTH=1,"testuser","testpassw";#TCPATRUNL=1') == ["OK"]
        name = line.removeprefix("AT").partition("=")[0]
        house.module.faults.plant(name, Plant(final="OK"))
        before = await said(house, "AT#SCFG?")
        async with telnet(port) as pc:
            assert await pc.ask(line.encode() + b"\r") == line.encode() + b"\r\r\nOK\r\n"
            assert line in house.wire.seen
            assert await said(house, "AT#SCFG?") == before
            begun = asyncio.get_running_loop().time()
            assert await pc.ask(b"AT+GMI\r") == b"AT+GMI\r\r\nTelit\r\n\r\nOK\r\n"
            assert await pc.rest() == b""
            assert asyncio.get_running_loop().time() - begun == pytest.approx(90, abs=2), "its own idle timeout"


@pytest.mark.parametrize(
    "line",
    ["AT+CGATT=0", "AT+CGACT=0,1", 'AT+CGCLASS="CC"', "AT#SHDN", "AT#BND=2", "AT#BND=3", "AT#SIMDET=0", "AT+CFUN=2"],
)
async def test_3_8_2_n6_what_would_block_it_for_good_is_not_sent(line: str) -> None:
    async with door() as house, calling(house) as pc:
        await pc.ask(b"AT\r")
        assert (await pc.ask(line.encode() + b"\r", b"ERROR\r\n")).endswith(b"\r\nERROR\r\n")
        assert line not in house.wire.seen
        assert house.outcomes[-1] == (line, "rejected", "policy")


@pytest.mark.parametrize("number", [1, 2])
async def test_3_8_2_n6_q1_and_q2_are_of_the_instance_and_block_nothing(number: int) -> None:
    async with door() as house, calling(house) as pc:
        await pc.ask(b"AT\r")
        pc.writer.write(f"ATQ{number}\r".encode())
        await asyncio.sleep(1)
        assert await pc.ask(b"ATQ0+GMI\r") == f"ATQ{number}\rATQ0+GMI\r\r\nTelit\r\n\r\nOK\r\n".encode()
        assert not [line for line in house.wire.seen if "Q1" in line or "Q2" in line]


async def test_3_8_2_n7_a_survey_is_not_cut_and_comes_as_it_is_found() -> None:
    found = tuple(f"{n},37,-81,0,222,10,51032,1907,CELL_SUITABLE,0" for n in range(5000))
    async with door() as house, calling(house) as pc:
        house.module.faults.plant("#CSURV", Plant(seconds=60.0, lines=found, final="OK"))
        pc.writer.write(b"AT#CSURV\r")
        shown = b""
        while not shown.endswith(b"\r\nOK\r\n"):
            shown += await pc.reader.read(65536)
        assert shown == b"AT#CSURV\r\r\n" + b"".join(f"{line}\r\n".encode() for line in found) + b"\r\nOK\r\n"
        assert "answer cut" not in [what for what, _ in house.told]
        house.module.faults.clear()
        assert await said(house, "AT#SCFG=1,1,300,90,600,1") == ["OK"]
        pc.writer.write(b"AT#CSURV\r")
        assert b"Network survey started ..." in await pc.reader.readuntil(b"...\r\n")
        begun = asyncio.get_running_loop().time()
        await pc.ask(b"")
        assert asyncio.get_running_loop().time() - begun > 1


async def test_3_8_2_n8_z_is_an_error_while_the_instances_port_is_in_a_data_call() -> None:
    async with door() as house, calling(house) as pc:
        await pc.ask(b"ATE0\r")
        assert house.wire.end is not None
        house.wire.end.inject(b"\r\nCONNECT\r\n")
        assert await pc.reader.readuntil(b"CONNECT\r\n") == b"\r\nCONNECT\r\n"
        assert await pc.ask(b"ATZ\r", b"ERROR\r\n") == b"\r\nERROR\r\n"
        assert await said(house, "AT+CGMM") == ["HE910-D", "OK"], "which ends the call"
        assert await pc.ask(b"ATZ\r") == b"\r\nOK\r\n"


async def test_3_9_a_script_is_brought_upgraded_and_started() -> None:
    """The module's own sequence, with its comments; download, enable, reboot, and call again."""
    allowed = Policy(tcp=DoorRules(hazards="allow"), local=LocalRules(hazards="allow"))
    async with field(config(sms=Sms(), policy=allowed)) as house:
        port = free_port()
        for line in (
            'AT+CGDCONT=1,"IP","myAPN"',
            "AT#SCFG=1,1,1500,0,600,50 // set Inactivity Timeout to 0",
            f'AT#TCPATRUNCFG=1,3,{port},1024,"" // listening on port 1024',
            'AT#TCPATRUNFRWL=2;#TCPATRUNFRWL=1,"217.0.0.0","255.0.0.0"',
            'AT#TCPATRUNAUTH=1,"MyUser","MyPwd"',
            "AT#SGACT=1,1 // activate the context",
            "AT#TCPATRUNL=1 // start TCPRUNAT service",
        ):
            assert (await said(house, line))[-1] == "OK", line
        assert await said(house, "AT#TCPATRUNFRWL?") == ['#TCPATRUNFRWL: "217.0.0.0","255.0.0.0"', "OK"]
        assert not [line for line in house.wire.seen if "//" in line]
        assert await said(house, 'AT#TCPATRUNFRWL=1,"127.0.0.1","255.255.255.255"') == ["OK"], "where this PC is"
        async with telnet(port, b"MyUser\rMyPwd\r") as pc:
            await pc.ask(b'AT#WSCRIPT="ciclo3.py",60000\r', b"\r\n>>>")
            assert await pc.ask(SCRIPT) == b"\r\nOK\r\n"
            await pc.ask(b'AT#ESCRIPT="ciclo3.py"\r')
            assert await pc.ask(b"AT#REBOOT\r") == b"AT#REBOOT\r\r\nOK\r\n"
            await asyncio.sleep(2)
            assert (await status(house))["module"]["state"] == "rebooting"
        await ready(house)
        async with telnet(port, b"MyUser\rMyPwd\r") as pc:
            assert b'#ESCRIPT: "ciclo3.py"' in await pc.ask(b"AT#ESCRIPT?\r")
            assert b'#LSCRIPT: "ciclo3.py",60000\r\n' in await pc.ask(b"AT#LSCRIPT\r")
        assert house.module.scripts["ciclo3.py"] == SCRIPT


async def test_3_9_the_sequence_may_come_by_sms() -> None:
    """Where the configuration lets that door administer (CMD-2)."""
    lines = (
        'AT#TCPATRUNFRWL=2;#TCPATRUNFRWL=1,"127.0.0.0","255.0.0.0"',
        'AT#TCPATRUNAUTH=1,"MyUser","MyPwd"',
        "AT#TCPATRUNL=1 // start",
    )
    given = config(policy=Policy(remote_admin=("sms",)), tcp=Tcp(port=free_port()))
    async with field(given) as house:
        for line in lines:
            house.sms(line)
            await asyncio.sleep(10)
        assert [text for _, text in house.sent] == ["\r\nOK\r\n"] * 3
        assert house.daemon.tcp is not None
        async with telnet(house.daemon.tcp.ports[0], b"MyUser\rMyPwd\r") as pc:
            await pc.ask(b"AT\r")
