# SPDX-License-Identifier: Apache-2.0
"""`atrunctl sim` against a scripted simulator."""

import json

import pytest

from atrund.ctl.main import main
from tests.ctl.server import Serve

Capture = pytest.CaptureFixture[str]

DONE = b'{"ok":true}\n'


@pytest.mark.parametrize(
    ("arguments", "request_"),
    [
        (
            ["sms", "--from", "+391234567", "AT+CSQ"],
            {"op": "sms", "from": "+391234567", "text": "AT+CSQ", "alphabet": "gsm7"},
        ),
        (
            ["sms", "--from", "VODA", "--alphabet", "ucs2", "é"],
            {"op": "sms", "from": "VODA", "text": "é", "alphabet": "ucs2"},
        ),
        (["pdu", "00040b"], {"op": "sms", "pdu": "00040b"}),
        (["sent"], {"op": "sent"}),
        (["hang"], {"op": "hang"}),
        (["resume"], {"op": "resume"}),
        (["late", "+COPS=?", "2.5"], {"op": "late", "command": "+COPS=?", "seconds": 2.5}),
        (["fail", "+CSQ", "+CME ERROR: 3"], {"op": "fail", "command": "+CSQ", "result": "+CME ERROR: 3"}),
        (["fail", "+CSQ", "ERROR", "--always"], {"op": "fail", "command": "+CSQ", "result": "ERROR", "always": True}),
        (
            ["answer", "--times", "2", "+CSQ", "+CSQ: 1,1", "+CSQ: 2,2"],
            {"op": "answer", "command": "+CSQ", "lines": ["+CSQ: 1,1", "+CSQ: 2,2"], "result": "OK", "times": 2},
        ),
        (["answer", "+CSQ"], {"op": "answer", "command": "+CSQ", "lines": [], "result": "OK"}),
        (["clear"], {"op": "clear"}),
        (["clear", "+CSQ"], {"op": "clear", "command": "+CSQ"}),
        (["card", "SIM PIN"], {"op": "sim", "state": "SIM PIN"}),
        (["reboot"], {"op": "reboot"}),
        (["registration", "2"], {"op": "registration", "state": 2}),
        (["signal", "14"], {"op": "signal", "rssi": 14}),
        (["signal", "14", "3"], {"op": "signal", "rssi": 14, "ber": 3}),
        (["urc", "RING"], {"op": "urc", "text": "RING"}),
        (["registration", "2", "--seconds", "30"], {"op": "registration", "state": 2, "seconds": 30.0}),
        (["quirk", "gps", "on"], {"op": "quirk", "name": "gps", "value": "on"}),
        (["quirk", "gps"], {"op": "quirk", "name": "gps"}),
        (["quirks"], {"op": "quirks"}),
        (["mangle", "+CSQ", "cut"], {"op": "mangle", "command": "+CSQ", "how": "cut"}),
        (["mangle", "*", "drop", "--always"], {"op": "mangle", "command": "*", "how": "drop", "always": True}),
        (
            ["mangle", "+CSQ", "urc_inside", "--text", "RING", "--position", "1", "--times", "3", "--seconds", "2"],
            {
                "op": "mangle",
                "command": "+CSQ",
                "how": "urc_inside",
                "text": "RING",
                "position": 1,
                "times": 3,
                "seconds": 2.0,
            },
        ),
        (["unplug"], {"op": "unplug"}),
        (["plug"], {"op": "plug"}),
        (["tenant", "AT+CFUN=4"], {"op": "tenant", "line": "AT+CFUN=4"}),
        (["fill"], {"op": "fill"}),
        (["fill", "ME", "--leave", "2"], {"op": "fill", "memory": "ME", "leave": 2}),
        (["report", "7", "+391"], {"op": "report", "reference": 7, "to": "+391"}),
        (["report", "7", "+391", "--status", "70"], {"op": "report", "reference": 7, "to": "+391", "status": 70}),
        (["network"], {"op": "network"}),
        (["network", "--loss", "0.1", "--delay", "5"], {"op": "network", "loss": 0.1, "delay": 5.0}),
        (["uploads"], {"op": "uploads"}),
        (["uploads", "--clear"], {"op": "uploads", "clear": True}),
        (["state"], {"op": "state"}),
        (["seen"], {"op": "seen"}),
    ],
)
def test_each_subcommand_sends_its_operation(
    serve: Serve, capsys: Capture, arguments: list[str], request_: dict[str, object]
) -> None:
    server = serve(DONE)
    assert main(["sim", "--control", server.path, *arguments]) == 0
    assert server.seen == [request_]
    assert capsys.readouterr() == ("", "")


def test_the_environment_names_the_simulator(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(DONE)
    monkeypatch.setenv("ATRUND_SIM", server.path)
    assert main(["sim", "hang"]) == 0
    assert server.seen == [{"op": "hang"}]


def test_shows_what_the_answer_holds(serve: Serve, capsys: Capture) -> None:
    answer = b'{"ok":true,"sent":[{"to":"+39123","text":"OK\\u001b"}],"rssi":14}\n'
    assert main(["sim", "--control", serve(answer).path, "sent"]) == 0
    assert capsys.readouterr().out == "sent  to=+39123  text=OK\\x1b\nrssi  14\n"


@pytest.mark.parametrize(
    ("seen", "shown"),
    [([["AT", "ATE0"], ["AT+CSQ"]], "seen  AT\n      ATE0\n      AT+CSQ\n"), ([[], []], "seen  -\n")],
)
def test_shows_what_each_port_saw_line_by_line(serve: Serve, capsys: Capture, seen: object, shown: str) -> None:
    answer = json.dumps({"ok": True, "seen": seen}).encode() + b"\n"
    assert main(["sim", "--control", serve(answer).path, "seen"]) == 0
    assert capsys.readouterr().out == shown


def test_json_is_the_answer_without_its_verdict(serve: Serve, capsys: Capture) -> None:
    assert main(["sim", "--control", serve(b'{"ok":true,"rssi":14}\n').path, "--json", "state"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rssi": 14}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b'{"ok":false,"error":"text: \\u001b is no character"}\n', "refused: text: \\x1b is no character"),
        (b'{"ok":false}\n', "refused: it does not say why"),
    ],
)
def test_a_refusal_exits_with_1(serve: Serve, capsys: Capture, answer: bytes, words: str) -> None:
    assert main(["sim", "--control", serve(answer).path, "urc", "x"]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("answer", [b"hello\n", b"[1]\n", b'{"event":"error"}\n', b"[" * 100_000 + b"\n", b"\xff\n"])
def test_what_is_no_simulator_exits_with_3(serve: Serve, capsys: Capture, answer: bytes) -> None:
    assert main(["sim", "--control", serve(answer).path, "state"]) == 3
    assert "what answers there is no simulator of atrund" in capsys.readouterr().err


def test_no_simulator_exits_with_3(capsys: Capture) -> None:
    assert main(["sim", "--control", "/nowhere/sim.sock", "state"]) == 3
    assert "python -m atrund.sim" in capsys.readouterr().err


def test_names_every_mangle_that_the_simulator_has() -> None:
    from atrund.ctl.sim import MANGLES
    from atrund.sim.mangle import How

    assert tuple(how.value for how in How) == MANGLES


def test_without_a_socket_it_asks_for_one(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATRUND_SIM", raising=False)
    assert main(["sim", "state"]) == 2
    assert "--control PATH or ATRUND_SIM" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pdu", "0x00"], "these are no hexadecimal octets"),
        (["late", "+CSQ", "-1"], "is no number of seconds"),
        (["late", "+CSQ", "inf"], "'inf' is no number of seconds"),
        (["late", "+CSQ", "soon"], "'soon' is no number of seconds"),
        (["sms", "AT"], "the following arguments are required: --from"),
        (["registratio", "1"], "Did you mean 'registration'?"),
    ],
)
def test_bad_input_exits_with_2(capsys: Capture, arguments: list[str], words: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["sim", *arguments])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err
