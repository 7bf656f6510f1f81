# SPDX-License-Identifier: Apache-2.0
"""`atrunctl status` against a scripted daemon."""

import json
from pathlib import Path

import pytest

from atrund.control import Answer, ErrorAnswer, LineAnswer, StatusAnswer, encode
from atrund.ctl import status
from atrund.ctl.main import main
from tests.ctl.server import Serve

Capture = pytest.CaptureFixture[str]

STATUS: dict[str, object] = {
    "version": "0.1.0",
    "uptime_s": 61,
    "module": {"port": "/dev/ttyUSB2", "ready": True, "operator": None, "signal": {"rssi": 14, "ber": 99}, "extra": {}},
    "doors": {
        "open": ["sms", "tcp"],
        "sessions": [{"peer": "127.0.0.1", "for_s": 3}, {"peer": "\x1b[2J", "for_s": 1}],
        "held": [],
    },
    "empty": {},
}

SHOWN = """\
version   0.1.0
uptime_s  61

module
  port         /dev/ttyUSB2
  ready        yes
  operator     -
  signal.rssi  14
  signal.ber   99
  extra        -

doors
  open      sms, tcp
  sessions  peer=127.0.0.1  for_s=3
            peer=\\x1b[2J  for_s=1
  held      -

empty
"""


def test_shows_sections_aligned(serve: Serve, capsys: Capture) -> None:
    server = serve(encode(StatusAnswer(STATUS)))
    assert main(["--socket", server.path, "status"]) == 0
    assert capsys.readouterr() == (SHOWN, "")
    assert server.seen == [{"op": "status"}]


def test_json_is_the_status_itself(serve: Serve, capsys: Capture) -> None:
    assert main(["--socket", serve(encode(StatusAnswer(STATUS))).path, "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (ErrorAnswer("not now"), 1, "the daemon refused the request: not now"),
        (LineAnswer("OK"), 3, "the daemon answered another question"),
    ],
)
def test_another_answer_is_an_error(serve: Serve, capsys: Capture, answer: Answer, code: int, words: str) -> None:
    assert main(["--socket", serve(encode(answer)).path, "status"]) == code
    assert words in capsys.readouterr().err


def test_what_is_no_answer_exits_with_3(serve: Serve, capsys: Capture) -> None:
    assert main(["--socket", serve(b"\x00\n").path, "status"]) == 3
    assert "does not know: the line is no JSON" in capsys.readouterr().err


def test_a_silent_daemon_exits_with_3(serve: Serve, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "ANSWER_WAIT", 0.01)
    assert main(["--socket", serve(b"", b"").path, "status"]) == 3
    assert "the daemon did not answer within 0.01 s" in capsys.readouterr().err


def test_who_else_is_at_the_port_is_looked_for_here_too(
    serve: Serve, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root sees more than the daemon in its sandbox does."""
    asked: list[Path] = []

    def seen(path: Path) -> tuple[str, ...]:
        asked.append(path)
        return ("told", "seen")

    monkeypatch.setattr("atrund.usb.holders.others", seen)
    told: dict[str, object] = {"module": {"path": "/dev/ttyUSB2", "others": ["told"]}}
    assert main(["--socket", serve(encode(StatusAnswer(told))).path, "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["module"]["others"] == ["told", "seen"]
    assert asked == [Path("/dev/ttyUSB2")]


@pytest.mark.parametrize("module", [{"path": ""}, {"path": 7}, {}, "text", {"path": "/nowhere", "others": []}])
def test_where_no_port_is_none_is_looked_at(serve: Serve, capsys: Capture, module: object) -> None:
    assert main(["--socket", serve(encode(StatusAnswer({"module": module}))).path, "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"module": module}


def test_the_queue_has_a_line_for_each_place(serve: Serve, capsys: Capture) -> None:
    places = [
        {"place": 0, "door": "tcp", "id": "r1", "command": "+COPS", "for_s": 61.5},
        {"place": 1, "door": "sms", "id": "", "command": "+CMGL", "for_s": 3.0},
        {"more": 7},
    ]
    assert main(["--socket", serve(encode(StatusAnswer({"queue": {"usb:1bc7:1201": places}}))).path, "status"]) == 0
    assert capsys.readouterr().out == (
        "queue\n"
        "  usb:1bc7:1201  place=0  door=tcp  id=r1  command=+COPS  for_s=61.5\n"
        "                 place=1  door=sms  id=-  command=+CMGL  for_s=3.0\n"
        "                 more=7\n"
    )
