# SPDX-License-Identifier: Apache-2.0
"""`atrunctl at` against a scripted daemon."""

import json
import signal
import threading
from pathlib import Path

import pytest

from atrund.control import AcceptedAnswer, Answer, ErrorAnswer, FinalAnswer, LineAnswer, StatusAnswer, encode
from atrund.ctl import at
from atrund.ctl.main import main
from tests.ctl.server import Serve

Capture = pytest.CaptureFixture[str]


def lines(*answers: Answer) -> bytes:
    return b"".join(map(encode, answers))


OK = lines(AcceptedAnswer("r1"), LineAnswer("+CSQ: 14,99"), FinalAnswer("ok", "OK", None, 12, "r1"))


def test_prints_the_lines_and_the_final(serve: Serve, capsys: Capture) -> None:
    server = serve(OK)
    assert main(["--socket", server.path, "at", "AT+CSQ"]) == 0
    assert capsys.readouterr() == ("+CSQ: 14,99\nOK\n", "")
    assert server.seen == [{"op": "at", "cmd": "AT+CSQ", "timeout_ms": 300_000, "id": None}]


def test_what_will_be_undone_is_said_with_the_way_to_keep_it(serve: Serve, capsys: Capture) -> None:
    answer = lines(LineAnswer("#ATRUNCONFIRM: 3,5"), FinalAnswer("ok", "OK", None, 1, "r"))
    assert main(["--socket", serve(answer).path, "at", "AT+CFUN=4"]) == 0
    undone = "atrunctl: undone within 5 min, unless AT#ATRUNCONFIRM=3 comes before\n"
    assert capsys.readouterr() == ("#ATRUNCONFIRM: 3,5\nOK\n", undone)


@pytest.mark.parametrize("text", ["#ATRUNCONFIRM: (0-9)", "#ATRUNCONFIRM=1,5", "x #ATRUNCONFIRM: 1,5"])
def test_what_only_looks_like_it_is_not(serve: Serve, capsys: Capture, text: str) -> None:
    answer = lines(LineAnswer(text), FinalAnswer("ok", "OK", None, 1, "r"))
    assert main(["--socket", serve(answer).path, "at", "AT#ATRUNCONFIRM=?"]) == 0
    assert capsys.readouterr().err == ""


def test_the_timeout_goes_with_the_request(serve: Serve) -> None:
    server = serve(OK)
    assert main(["--socket", server.path, "at", "AT", "--timeout", "1.5"]) == 0
    assert server.seen == [{"op": "at", "cmd": "AT", "timeout_ms": 1_500, "id": None}]


def test_the_environment_names_the_socket(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATRUND_SOCKET", serve(OK).path)
    assert main(["at", "AT+CSQ"]) == 0


def test_json_is_the_daemons_messages(serve: Serve, capsys: Capture) -> None:
    assert main(["--socket", serve(OK).path, "at", "AT+CSQ", "--json"]) == 0
    events = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert events == ["accepted", "line", "final"]


@pytest.mark.parametrize(
    ("answer", "out", "err"),
    [
        (FinalAnswer("error", "+CME ERROR: 3", None, 1, "r"), "+CME ERROR: 3\n", ""),
        (
            FinalAnswer("rejected", "+CME ERROR: 3", "policy", 1, "r"),
            "+CME ERROR: 3\n",
            "atrunctl: rejected (policy)\n",
        ),
        (
            FinalAnswer("rejected", "ERROR", "policy", 1, "r", "+CFUN: restarts\x1b[2J it; way back: none"),
            "ERROR\n",
            "atrunctl: rejected (policy): +CFUN: restarts\\x1b[2J it; way back: none\n",
        ),
        (FinalAnswer("error", "ERROR", None, 1, "r", "9 is no slot"), "ERROR\n", "atrunctl: error: 9 is no slot\n"),
        (FinalAnswer("timeout", None, None, 1, "r"), "", "atrunctl: timeout\n"),
        (FinalAnswer("lost", None, "port_down", 1, "r"), "", "atrunctl: lost (port_down)\n"),
        (ErrorAnswer("cmd: wrong\x1b[2J"), "", "atrunctl: the daemon refused the request: cmd: wrong\\x1b[2J\n"),
    ],
)
def test_what_is_no_success_exits_with_1(serve: Serve, capsys: Capture, answer: Answer, out: str, err: str) -> None:
    assert main(["--socket", serve(lines(answer)).path, "at", "AT"]) == 1
    assert capsys.readouterr() == (out, err)


def test_control_characters_of_the_module_are_escaped(serve: Serve, capsys: Capture) -> None:
    answer = lines(LineAnswer("\x1b]0;x\x07 \u202e \udc80 é C:\\x"), FinalAnswer("ok", "OK", None, 1, "r"))
    assert main(["--socket", serve(answer).path, "at", "AT"]) == 0
    assert capsys.readouterr().out == "\\x1b]0;x\\x07 \\u202e \\udc80 é C:\\x\nOK\n"


def test_ctrl_c_gives_the_command_up_and_waits_for_its_end(serve: Serve, capsys: Capture) -> None:
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    def interrupt() -> bytes:
        signal.pthread_kill(main_thread, signal.SIGINT)
        return b""

    server = serve(interrupt, lines(FinalAnswer("cancelled", None, None, 5, "r")))
    assert main(["--socket", server.path, "at", "AT+COPS=?"]) == 1
    assert capsys.readouterr().err == "atrunctl: giving the command up\natrunctl: cancelled\n"
    assert server.seen[1] == {"op": "cancel"}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closed the connection without an answer\nThe command may run or have run all the same."),
        (lines(AcceptedAnswer("r1")), "closed the connection without an answer"),
        (b"HTTP/1.1 400\r\n", "the daemon sent what this atrunctl does not know: the line is no JSON"),
        (lines(StatusAnswer({})), "the daemon answered another question"),
    ],
)
def test_a_daemon_that_goes_or_is_none_exits_with_3(serve: Serve, capsys: Capture, answer: bytes, words: str) -> None:
    assert main(["--socket", serve(answer).path, "at", "AT"]) == 3
    assert words in capsys.readouterr().err


def test_a_daemon_that_stays_silent_exits_with_3(
    serve: Serve, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at, "ACCEPT_WAIT", 0.01)
    assert main(["--socket", serve(b"{", b"").path, "at", "AT"]) == 3
    assert "the daemon did not answer within 0.01 s" in capsys.readouterr().err


def test_no_daemon_exits_with_3_and_says_what_to_type(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "none"
    assert main(["--socket", str(path), "at", "AT"]) == 3
    error = capsys.readouterr().err
    assert f"can't be reached at {path}: No such file or directory." in error
    assert "systemctl status atrund" in error
    assert "may run" not in error


@pytest.mark.parametrize("timeout", ["0", "3601", "nan", "soon"])
def test_a_timeout_out_of_range_is_refused(capsys: Capture, timeout: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["at", "AT", "--timeout", timeout])
    assert caught.value.code == 2
    assert "is no number of seconds from 1 to 3600" in capsys.readouterr().err


def test_a_command_too_long_to_send_is_refused(capsys: Capture) -> None:
    assert main(["at", "AT" + "x" * 70_000]) == 2
    assert "at most 65536 can be sent" in capsys.readouterr().err
