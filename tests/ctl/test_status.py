# SPDX-License-Identifier: Apache-2.0
"""`atrunctl status` against a scripted daemon."""

import json

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
