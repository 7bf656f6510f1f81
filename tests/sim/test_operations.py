# SPDX-License-Identifier: Apache-2.0
"""The control operations that show what real modules do, the options that switch it on, and the ports that go away."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import serial

from atrund.sim.__main__ import main
from atrund.sim.control import Control
from atrund.sim.mangle import How
from atrund.sim.module import LEAVE_SECONDS, SimModule
from atrund.sim.quirks import QUIRKS
from atrund.sim.state import Options
from atrund.sim.terminal import PseudoTerminal
from tests.sim.test_terminal import PATIENCE, Program, names, until

OK = "\r\nOK\r\n"


class Desk:
    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - the options of the module
        self.module = SimModule(Options(send_delay=0, **options))
        self.control = Control(self.module)
        self.out = bytearray()
        self.port = self.module.add_port(self.out.extend)
        self.at("ATE0")

    def at(self, line: str) -> str:
        self.port.feed(f"{line}\r".encode("latin-1"))
        return self.take()

    def take(self) -> str:
        text = self.out.decode("latin-1")
        self.out.clear()
        return text

    def do(self, op: str, **fields: object) -> dict[str, Any]:
        return self.control.handle(json.dumps({"op": op, **fields}).encode())


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_quirks_are_set_listed_and_shown(desk: Desk) -> None:
    assert desk.do("quirk", name="gps", value=True) == {"ok": True, "name": "gps", "value": True}
    assert desk.do("quirk", name="nmea_rate", value="50")["value"] == 50.0
    assert desk.do("state")["state"]["quirks"]["gps"] is True
    assert desk.do("quirk", name="gps")["value"] is False
    listed = desk.do("quirks")["quirks"]
    assert [quirk["name"] for quirk in listed] == list(desk.do("state")["state"]["quirks"]) == list(QUIRKS)
    assert {"name": "nmea_rate", "value": 50.0, "values": "0 to 1000"}.items() <= listed[
        list(QUIRKS).index("nmea_rate")
    ].items()


def test_a_mangle_with_all_its_fields(desk: Desk) -> None:
    assert desk.do("mangle", command="+CSQ", how="urc_inside", text="NO CARRIER:3", position=1, times=2) == {"ok": True}
    spoilt = "\r\n+CSQ: 14,99\r\n\r\nNO CARRIER:3\r\n\r\nOK\r\n"
    assert desk.at("AT+CSQ") == desk.at("AT+CSQ") == spoilt
    assert desk.at("AT+CSQ") != spoilt
    desk.do("mangle", command="*", how="drop", always=True)
    assert desk.at("AT") == desk.at("AT") == ""
    desk.do("clear", command="*")
    assert desk.at("AT") == OK
    desk.do("mangle", command="*", how="drop")
    desk.do("clear")
    assert desk.at("AT") == OK


@pytest.mark.parametrize("how", [how.value for how in How if how is not How.REBOOT_INSIDE])
@pytest.mark.looptime
async def test_after_each_mangle_the_module_is_as_before(how: str) -> None:
    desk = Desk()
    assert desk.do("mangle", command="*", how=how)["ok"]
    desk.at("AT+CSQ")
    await asyncio.sleep(10)
    desk.take()
    assert desk.at("AT+CSQ") == "\r\n+CSQ: 14,99\r\n\r\nOK\r\n"


@pytest.mark.looptime
async def test_a_late_mangle(desk: Desk) -> None:
    desk.do("mangle", command="+CSQ", how="late", seconds=60)
    assert desk.at("AT+CSQ") == ""
    await asyncio.sleep(60.1)
    assert desk.take().startswith("\r\n+CSQ: ")


def test_words_out_of_nowhere(desk: Desk) -> None:
    for text in ("NO CARRIER", "NO CARRIER:3", "CONNECT", "CONNECT 115200"):
        desk.do("urc", text=text)
        assert desk.take() == f"\r\n{text}\r\n"
    desk.at("ATV0")
    desk.do("urc", text="NO CARRIER")
    assert desk.take() == "3\r"


@pytest.mark.looptime
async def test_a_tenant(desk: Desk) -> None:
    desk.at("AT+CREG=1")
    assert desk.do("tenant", line="AT+CFUN=4;+CFUN?") == {"ok": True, "answer": ["+CFUN: 4", "OK"]}
    assert desk.take() == "\r\n+CREG: 0\r\n"
    assert desk.do("tenant", line="AT+COPS=?") == {"ok": True, "answer": []}
    assert "is not done yet" in desk.do("tenant", line="AT")["error"]
    desk.module.close()


def test_a_store_is_filled(desk: Desk) -> None:
    desk.at("AT+CNMI=2,1;#SMOV=1")
    assert desk.do("fill", leave=1)["added"] == 19
    assert desk.do("sms", **{"from": "+391", "text": "one"})["outcome"] == "stored"
    assert desk.take() == '\r\n+CMTI: "SM",20\r\n\r\n#SMOV: "SM"\r\n'
    assert desk.do("sms", **{"from": "+391", "text": "two"})["outcome"] == "held"
    assert desk.at('AT+CMGF=1;+CMGW="+391"\rx\x1a').endswith("+CMS ERROR: 322\r\n")
    assert desk.do("fill", memory="ME")["added"] == 50
    assert desk.at("AT+CMGD=1") == '\r\nOK\r\n\r\n+CMTI: "SM",1\r\n\r\n#SMOV: "SM"\r\n'


def test_a_report(desk: Desk) -> None:
    desk.at("AT+CMGF=1;+CNMI=2,1,0,1")
    assert desk.do("report", reference=3, to="+39346123", status=0x46) == {"ok": True, "outcome": "shown"}
    assert desk.take().startswith('\r\n+CDS: 6,3,"+39346123",145,"')
    desk.at("AT+CNMI=2,1,0,0")
    assert desk.do("report", reference=3, to="391")["outcome"] == "discarded"
    desk.module.set_registration(0)
    for _ in range(255):
        desk.do("report", reference=3, to="391")
    assert "255 messages wait" in desk.do("report", reference=3, to="391")["error"]


def test_uploads() -> None:
    desk = Desk(quirks=(("data_prompts", True),))
    desk.at("AT#SSENDEXT=1,2\rab")
    assert desk.do("uploads", clear=True)["uploads"] == [{"command": "#SSENDEXT=1,2", "size": 2, "data": "6162"}]
    assert desk.do("uploads") == {"ok": True, "uploads": []}


@pytest.mark.looptime
async def test_registration_for_a_while(desk: Desk) -> None:
    desk.at("AT+CREG=1")
    assert desk.do("registration", state=2, seconds=3) == {"ok": True}
    await asyncio.sleep(3.1)
    assert desk.take() == "\r\n+CREG: 2\r\n\r\n+CREG: 1\r\n"


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"op": "quirk"}, "name: must be a text"),
        ({"op": "quirk", "name": "x"}, "name: must be one of data_prompts"),
        ({"op": "quirk", "name": "gps", "value": 7}, "value: gps can be on, off"),
        ({"op": "mangle", "command": "+CSQ"}, "how: must be one of garble, cut"),
        ({"op": "mangle", "command": "+CSQ", "how": "x"}, "how: must be one of garble, cut"),
        ({"op": "mangle", "how": "cut"}, "command: must be a text"),
        ({"op": "mangle", "command": "\n", "how": "cut"}, "command: must be text of Latin-1"),
        ({"op": "mangle", "command": "*", "how": "cut", "times": 0}, "times: must be a whole number from 1"),
        ({"op": "mangle", "command": "*", "how": "late", "seconds": -1}, "seconds: must be a number from 0"),
        ({"op": "mangle", "command": "*", "how": "urc_inside", "text": 1}, "text: must be text of Latin-1"),
        ({"op": "mangle", "command": "*", "how": "urc_inside", "position": -1}, "position: must be a whole number"),
        ({"op": "tenant", "line": "CSQ"}, "line: must begin with AT"),
        ({"op": "fill", "memory": "XX"}, "memory: must be one of SM, ME"),
        ({"op": "fill", "leave": 21}, "leave: must be a whole number from 0 to 20"),
        ({"op": "report", "reference": 256, "to": "1"}, "reference: must be a whole number"),
        ({"op": "report", "reference": 1, "to": "x"}, "Address"),
        ({"op": "registration", "state": 1, "seconds": "x"}, "seconds: must be a number"),
        ({"op": "unplug", "x": 1}, "x: unplug has no such field"),
    ],
)
def test_what_is_wrong_is_told(desk: Desk, request_: dict[str, object], error: str) -> None:
    answer = desk.control.handle(json.dumps(request_).encode())
    assert answer["ok"] is False
    assert error in str(answer["error"])


def test_too_many_mangles_are_told(desk: Desk) -> None:
    for number in range(256):
        assert desk.do("mangle", command=f"+X{number}", how="drop")["ok"]
    assert "already" in desk.do("mangle", command="+Y", how="drop")["error"]


class FakeCable:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def unplug(self) -> None:
        self.seen.append("out")

    def plug(self) -> None:
        self.seen.append("in")


@pytest.mark.looptime
class TestBus:
    async def test_unplugged_and_plugged_again(self, desk: Desk) -> None:
        cable = FakeCable()
        desk.module.add_cable(cable)
        desk.at("AT+CMEE=2")
        assert desk.do("plug") == {"ok": True}
        assert desk.do("unplug") == {"ok": True}
        assert cable.seen == ["out"]
        assert desk.do("state")["state"]["unplugged"] is True
        assert desk.at("AT") == ""
        await asyncio.sleep(100)
        assert desk.do("plug") == {"ok": True}
        assert cable.seen == ["out", "in"]
        assert desk.at("AT") == ""
        await asyncio.sleep(5.1)
        assert desk.at("ATE0+CMEE?") == "ATE0+CMEE?\r\r\n+CMEE: 0\r\n\r\nOK\r\n"

    async def test_a_restart_stays_on_the_bus_or_leaves_it_for_a_while(self, desk: Desk) -> None:
        cable = FakeCable()
        desk.module.add_cable(cable)
        assert desk.at("AT#REBOOT") == OK
        await asyncio.sleep(30)
        assert cable.seen == []
        desk.do("quirk", name="reenumerate", value=True)
        assert desk.at("ATE0\rAT#REBOOT").endswith(OK)
        assert cable.seen == []
        await asyncio.sleep(LEAVE_SECONDS + 0.1)
        assert cable.seen == ["out"]
        await asyncio.sleep(24.8)
        assert desk.at("AT") == ""
        assert cable.seen == ["out"]
        await asyncio.sleep(0.2)
        assert cable.seen == ["out", "in"]
        assert desk.at("AT") == "AT\r\r\nOK\r\n"

    async def test_off_is_gone_until_it_is_plugged(self) -> None:
        desk = Desk(quirks=(("reenumerate", True), ("gone_seconds", 3)))
        cable = FakeCable()
        desk.module.add_cable(cable)
        assert desk.at("AT#SHDN") == OK
        await asyncio.sleep(100)
        assert cable.seen == ["out"]
        desk.do("plug")
        assert cable.seen == ["out", "in"]
        await asyncio.sleep(5.1)
        assert desk.at("ATE0").endswith(OK)
        desk.do("reboot")
        await asyncio.sleep(1)
        desk.do("plug")
        assert cable.seen == ["out", "in"] * 2
        await asyncio.sleep(10)
        assert cable.seen == ["out", "in"] * 2
        desk.do("reboot")
        desk.do("unplug")
        await asyncio.sleep(100)
        assert cable.seen[4:] == ["out"]
        desk.module.close()


async def test_a_pseudo_terminal_goes_and_comes_back_under_another_name(tmp_path: Path) -> None:
    link = tmp_path / "modem"
    module = SimModule(Options(boot_delay=0))
    terminal = PseudoTerminal(link)
    terminal.start(module.add_port(terminal.write).feed)
    module.add_cable(terminal)
    for held in (True, False):
        old = link.readlink()
        slave = os.open(link, os.O_RDWR | os.O_NOCTTY)
        if not held:
            os.close(slave)
        module.unplug()
        assert names(tmp_path) == []
        terminal.write(b"lost")
        if held:
            with pytest.raises(OSError, match="Input/output error"):
                os.write(slave, b"AT\r")
            assert os.read(slave, 100) == b""
            os.close(slave)
        module.plug()
        module.plug()
        assert link.readlink() != old
        await until(lambda: module.awake)
        expected = b"AT\r\r\nOK\r\n"

        def converse() -> bytes:
            with serial.Serial(str(link), timeout=PATIENCE, exclusive=True) as port:
                port.write(b"AT\r")
                return port.read(len(b"AT\r\r\nOK\r\n"))

        assert await asyncio.to_thread(converse) == expected
    module.unplug()
    terminal.close()
    terminal.plug()
    assert names(tmp_path) == []


async def test_a_link_whose_place_is_taken_meanwhile_stays_away(tmp_path: Path) -> None:
    link = tmp_path / "modem"
    terminal = PseudoTerminal(link)
    terminal.start(lambda _: None)
    terminal.unplug()
    link.write_text("precious")
    terminal.plug()
    assert link.read_text() == "precious"
    link.unlink()
    terminal.plug()
    assert link.is_symlink()
    terminal.close()


def test_the_program_leaves_the_bus_after_its_ok(tmp_path: Path) -> None:
    program = Program(
        tmp_path, "--quirk", "reenumerate", "--quirk", "gone_seconds=0.2", "--boot-delay", "0", "--send-delay", "0"
    )
    try:
        old = program.links[0].readlink()
        with serial.Serial(str(program.links[0]), timeout=PATIENCE) as port:
            port.write(b"ATE0\rAT#REBOOT\r")
            assert port.read_until(b"OK\r\n\r\nOK\r\n").endswith(b"OK\r\n\r\nOK\r\n")
            port.timeout = None
            with pytest.raises(serial.SerialException):
                port.read(1)
        assert program.do(op="state")["state"]["quirks"]["reenumerate"] is True
        while program.do(op="state")["state"]["unplugged"]:
            pass
        assert program.links[0].readlink() != old
        with serial.Serial(str(program.links[0]), timeout=PATIENCE) as port:
            port.write(b"AT\r")
            assert port.read_until(b"OK\r\n") == b"AT\r\r\nOK\r\n"
        assert program.do(op="unplug") == {"ok": True}
        assert names(tmp_path) == ["control"]
        assert program.end(signal.SIGTERM) == 0
    finally:
        program.close()
    assert names(tmp_path) == []


def test_the_quirks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for argument in ("--list-quirks", "--help"):
        with pytest.raises(SystemExit) as ended:
            main([argument])
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        assert all(f"{quirk.what}\n" in shown for quirk in QUIRKS.values())


@pytest.mark.parametrize("quirk", ["nothing", "gps=maybe", "sms_busy"])
def test_a_quirk_that_is_none_is_told(quirk: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--link", "x", "--quirk", quirk])
    assert ended.value.code == 2
    assert ("must be one of" if quirk == "nothing" else "can be") in capsys.readouterr().err


def test_the_module_is_imported_without_a_loop() -> None:
    """Whoever asks for the list of quirks needs no module to be made."""
    command = [sys.executable, "-m", "atrund.sim", "--list-quirks"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines()[0].startswith("data_prompts ")
