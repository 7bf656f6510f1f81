# SPDX-License-Identifier: Apache-2.0
"""The control socket: every operation, and what is refused with which words."""

import asyncio
import json
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.sim.control import LINE_CAP, Control, ControlServer
from atrund.sim.module import SimModule
from atrund.sim.state import Options
from atrund.sms.pdu import decode_deliver


class Desk:
    """A module without delays, somebody at its port, and somebody at its control socket."""

    def __init__(self) -> None:
        self.module = SimModule(Options(send_delay=0))
        self.control = Control(self.module)
        self.out = bytearray()
        self.port = self.module.add_port(self.out.extend)
        self.at("ATE0+CNMI=2,1")

    def at(self, line: str) -> str:
        self.port.feed(f"{line}\r".encode("latin-1"))
        text = self.out.decode("latin-1")
        self.out.clear()
        return text

    def do(self, op: str, **fields: object) -> dict[str, Any]:
        return self.control.handle(json.dumps({"op": op, **fields}).encode())


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.mark.parametrize(
    ("alphabet", "dcs", "text"),
    [("gsm7", 0, "AT+COPS?"), ("8bit", 4, "\xd0\xd0\xd0"), ("ucs2", 8, "\u20ac \U0001f600")],
)
def test_an_sms_is_built(desk: Desk, alphabet: str, dcs: int, text: str) -> None:
    assert desk.do("sms", **{"from": "+39346123", "text": text, "alphabet": alphabet}) == {
        "ok": True,
        "outcome": "stored",
    }
    stored = desk.module.store.get("SM", 1)
    assert stored is not None
    message = decode_deliver(stored.pdu)
    assert (message.originator.text, message.user_data.text, message.dcs.octet) == ("+39346123", text, dcs)
    assert '+CMTI: "SM",1' in desk.at("AT")


def test_an_sms_with_a_coding_scheme_or_a_name_or_as_pdu(desk: Desk) -> None:
    assert desk.do("sms", **{"from": "VODA", "text": "x", "dcs": 0x15})["ok"]
    stored = desk.module.store.get("SM", 1)
    assert stored is not None
    assert decode_deliver(stored.pdu).originator.is_alphanumeric
    assert desk.do("sms", pdu=stored.pdu.hex()) == {"ok": True, "outcome": "stored"}


def test_what_was_sent(desk: Desk) -> None:
    desk.at('AT+CMGF=1;+CMGS="+391"\rhi\x1a')
    (sent,) = desk.do("sent")["sent"]
    assert (sent["to"], sent["text"], sent["alphabet"], sent["reference"]) == ("+391", "hi", "gsm7", 0)
    assert set(sent) == {"to", "pdu", "text", "alphabet", "reference", "time"}
    assert len(desk.do("sent", clear=True)["sent"]) == 1
    assert desk.do("sent") == {"ok": True, "sent": []}


def test_what_was_seen(desk: Desk) -> None:
    desk.at("AT+CSQ")
    desk.at('AT+CPIN="1"')
    assert desk.do("seen", clear=True)["seen"] == [["ATE0+CNMI=2,1", "AT+CSQ", 'AT+CPIN="1"']]
    assert desk.do("seen")["seen"] == [[]]


def test_state(desk: Desk) -> None:
    desk.do("registration", state=5)
    desk.do("signal", rssi=20)
    state = desk.do("state")["state"]
    assert (state["model"], state["power"], state["hung"]) == ("HE910-D", "on", False)
    assert (state["registration"], state["rssi"], state["ber"]) == (5, 20, 99)


def test_hang_and_resume(desk: Desk) -> None:
    assert desk.do("hang") == {"ok": True}
    assert desk.at("AT") == ""
    assert desk.do("sms", **{"from": "+391", "text": "x"})["outcome"] == "stored"
    assert desk.do("resume") == {"ok": True}
    assert desk.at("AT") == "\r\nOK\r\n"


@pytest.mark.looptime
async def test_reboot_and_late(desk: Desk) -> None:
    assert desk.do("late", command="+CSQ", seconds=2, always=True)["ok"]
    for _ in range(2):
        assert desk.at("AT+CSQ") == ""
        await asyncio.sleep(2.1)
        assert "+CSQ: 14,99" in desk.at("AT")
    assert desk.do("reboot") == {"ok": True}
    assert desk.do("sms", **{"from": "+391", "text": "x"})["outcome"] == "held"
    assert desk.at("AT") == ""
    await asyncio.sleep(5.1)
    assert desk.at("AT") == "AT\r\r\nOK\r\n"
    assert desk.module.store.used("SM") == 1


def test_fail_and_answer_and_clear(desk: Desk) -> None:
    assert desk.do("fail", command="+CSQ", result="+CME ERROR: 100", times=2)["ok"]
    assert desk.at("AT+CSQ") == desk.at("AT+CSQ") == "\r\n+CME ERROR: 100\r\n"
    assert desk.do("answer", command="#CSURVC", lines=["a", "b"])["ok"]
    assert desk.at("AT#CSURVC") == "\r\na\r\nb\r\n\r\nOK\r\n"
    desk.do("fail", command="+CSQ", result="ERROR", always=True)
    assert desk.do("clear", command="+CSQ")["ok"]
    assert "+CSQ: " in desk.at("AT+CSQ")


def test_urc_and_sim(desk: Desk) -> None:
    desk.at("AT#QSS=1")
    assert desk.do("urc", text="RING")["ok"]
    assert desk.do("urc", text="NO CARRIER:3", port=0)["ok"]
    assert desk.do("sim", state="NONE")["ok"]
    assert desk.at("AT") == "\r\nRING\r\n\r\nNO CARRIER:3\r\n\r\n#QSS: 0\r\n\r\nOK\r\n"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("\xff\xfe", "no JSON"),
        ("[" * 60000, "no JSON"),
        ("[]", "not an object"),
        ("{}", "op: must be one of sms, sent"),
        ('{"op": []}', "op: must be one of"),
        ('{"op": "sent", "x": 1}', "x: sent has no such field; it has clear"),
        ('{"op": "hang", "x": 1}', "x: hang has no such field; it has none"),
        ('{"op": "sent", "clear": 1}', "clear: must be true or false"),
        ('{"op": "sms"}', "from: must be a text"),
        ('{"op": "sms", "from": "+391"}', "text: must be a text"),
        ('{"op": "sms", "from": "+391", "text": "x", "alphabet": "utf8"}', "alphabet: must be one of gsm7, 8bit, ucs2"),
        ('{"op": "sms", "from": "+391", "text": "x", "dcs": 0, "alphabet": "8bit"}', "alphabet: not the one"),
        ('{"op": "sms", "from": "+391", "text": "x", "dcs": 256}', "dcs: must be a whole number from 0 to 255"),
        ('{"op": "sms", "from": "+391", "text": "\u20ac", "alphabet": "8bit"}', "U+20AC"),
        ('{"op": "sms", "from": "+391", "text": "\\ud800", "alphabet": "ucs2"}', "U+D800"),
        ('{"op": "sms", "from": "much too long a name", "text": "x"}', "Address"),
        ('{"op": "sms", "from": "+391", "text": "' + "x" * 161 + '"}', "TP-UDL"),
        ('{"op": "sms", "pdu": "0"}', "pdu: must be pairs of hex digits"),
        ('{"op": "sms", "pdu": "00"}', "TP-MTI"),
        ('{"op": "sms", "pdu": "00", "from": "+391"}', "pdu: holds all of the message"),
        ('{"op": "late", "command": "+CSQ"}', "seconds: must be a number"),
        ('{"op": "late", "command": "+CSQ", "seconds": NaN}', "seconds: must be a number"),
        ('{"op": "late", "command": "+CSQ", "seconds": true}', "seconds: must be a number"),
        ('{"op": "late", "seconds": 1}', "command: must be a text"),
        ('{"op": "fail", "command": "+CSQ", "result": "BAD"}', "result: must be a final result"),
        ('{"op": "fail", "command": "+CSQ"}', "result: must be a final result"),
        ('{"op": "fail", "command": "+CSQ", "result": "ERROR", "times": 0}', "times: must be a whole number from 1"),
        ('{"op": "answer", "command": "+CSQ", "lines": "x"}', "lines: must be a list"),
        ('{"op": "answer", "command": "+CSQ", "lines": ["a\\rb"]}', "lines: must be text of Latin-1 without control"),
        ('{"op": "registration", "state": 6}', "state: must be a whole number from 0 to 5"),
        ('{"op": "registration", "state": true}', "state: must be a whole number"),
        ('{"op": "signal", "rssi": 32}', "rssi is 0 to 31"),
        ('{"op": "sim", "state": "GONE"}', "state: must be one of READY"),
        ('{"op": "urc", "text": "a\\nb"}', "text: must be text of Latin-1"),
        ('{"op": "urc", "text": "x", "port": 1}', "port: must be a whole number from 0 to 0"),
    ],
)
def test_a_request_that_is_none_is_told_what_is_wrong(desk: Desk, line: str, error: str) -> None:
    answer = desk.control.handle(line.encode("latin-1" if line == "\xff\xfe" else "utf-8"))
    assert answer["ok"] is False
    assert error in str(answer["error"])
    assert desk.at("AT") == "\r\nOK\r\n"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=5,
)
OPERATIONS = (
    "quirk",
    "quirks",
    "mangle",
    "reboot",
    "unplug",
    "plug",
    "tenant",
    "fill",
    "report",
    "uploads",
    "sim",
    "sms",
    "sent",
    "seen",
    "state",
    "hang",
    "resume",
    "late",
    "fail",
    "answer",
    "clear",
    "registration",
    "signal",
)
FIELDS = (
    "op",
    "name",
    "value",
    "how",
    "position",
    "line",
    "memory",
    "leave",
    "reference",
    "to",
    "pdu",
    "from",
    "text",
    "alphabet",
    "dcs",
    "clear",
    "command",
    "seconds",
    "times",
    "always",
    "state",
    "rssi",
)


@given(
    st.binary(max_size=200)
    | st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(OPERATIONS) | JSON).map(
        lambda request: json.dumps(request).encode()
    )
)
async def test_anything_gets_an_answer(line: bytes) -> None:
    module = SimModule()
    answer = Control(module).handle(line)
    module.close()
    assert isinstance(answer["ok"], bool)
    assert answer["ok"] or isinstance(answer["error"], str)
    json.dumps(answer)


async def ask(path: Path, line: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path, limit=2 * LINE_CAP)
    writer.write(line)
    try:
        return await reader.readline()
    finally:
        writer.close()


async def test_the_socket_serves_many_and_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "control"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    server = ControlServer(Control(SimModule()), path)
    await server.start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first_reader, first = await asyncio.open_unix_connection(path)
    assert json.loads(await ask(path, b'\n{"op": "urc", "text": "x"}\n')) == {"ok": True}
    assert json.loads(await ask(path, b'{"op": "urc", "text": "' + b"x" * LINE_CAP + b'"}\n')) == {
        "ok": False,
        "error": f"line: longer than {LINE_CAP} bytes",
    }
    first.write(b'{"op": "hang"}\n{"op": "state"}\n')
    assert json.loads(await first_reader.readline()) == {"ok": True}
    assert json.loads(await first_reader.readline())["state"]["hung"] is True
    with pytest.raises(FileExistsError, match="in use"):
        await ControlServer(Control(SimModule()), path).start()
    await server.close()
    assert await first_reader.read() == b""
    first.close()
    assert not path.exists()
