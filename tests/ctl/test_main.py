# SPDX-License-Identifier: Apache-2.0
"""The program atrunctl as a whole: its help, its errors, its start, its end."""

import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

from atrund.control import StatusAnswer, encode
from atrund.ctl import link
from atrund.ctl.main import COMMANDS, build, main
from tests.ctl.server import Serve

Capture = pytest.CaptureFixture[str]


def exit_code(*arguments: str) -> object:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


def test_help_names_the_commands_and_the_exit_codes(capsys: Capture) -> None:
    assert exit_code("--help") == 0
    shown = capsys.readouterr().out
    for name, what in COMMANDS.items():
        assert re.search(rf"(?m)^    {name} +{what}$", shown)
    assert "3  the daemon or the simulator cannot be reached" in shown


def test_a_command_says_the_same_of_itself(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        build([]).parse_args(["--help"])
    names_alone = capsys.readouterr().out
    with pytest.raises(SystemExit):
        build(list(COMMANDS)).parse_args(["--help"])
    assert capsys.readouterr().out == names_alone


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["statsu"], "Did you mean 'status'?"),
        (["sim", "snet"], "Did you mean 'sent'?"),
        (["zzz"], "invalid choice: 'zzz'"),
        ([], "the following arguments are required: COMMAND"),
        (["status", "--jso"], "unrecognized arguments: --jso"),
    ],
)
def test_a_wrong_word_exits_with_2(capsys: Capture, arguments: list[str], words: str) -> None:
    assert exit_code(*arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.splitlines()[-1].startswith("Try: atrunctl")
    assert ("Did you mean" in error) == ("Did you mean" in words)


@pytest.mark.parametrize("command", ["status", "at", "sim", "explain", "doors", "nvm", "whitelist", "user"])
def test_starts_without_what_it_does_not_need(command: str) -> None:
    code = f"import sys; from atrund.ctl.main import build; build([{command!r}]); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=30)
    heavy = {"asyncio", "structlog", "paho", "sqlite3", "dataclasses", "json", "socket", "atrund.sms", "atrund.control"}
    assert set(loaded.stdout.split()) & heavy == set()


def test_output_that_nobody_reads_is_no_fault(serve: Serve) -> None:
    server = serve(encode(StatusAnswer({"x": "y" * 60_000})))
    program = [sys.executable, "-m", "atrund.ctl.main", "--socket", server.path, "status"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (1, "")


def test_an_interrupt_says_so(serve: Serve, capsys: Capture) -> None:
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    def interrupt() -> bytes:
        signal.pthread_kill(main_thread, signal.SIGINT)
        return b""

    assert main(["--socket", serve(interrupt, b"").path, "status"]) == 1
    assert capsys.readouterr().err == "atrunctl: interrupted\n"


def test_a_socket_of_others_says_how_to_get_in(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", deny)
    assert main(["status"]) == 3
    assert capsys.readouterr().err == (
        "atrunctl: the daemon can't be reached at /run/atrund.sock: Permission denied.\n"
        "Try as root (sudo), or join its group and log in again:  sudo usermod -aG atrund $USER\n"
    )


def test_one_of_several_daemons_that_is_not_there_is_asked_after_by_its_unit(capsys: Capture) -> None:
    assert main(["-n", "no-such-one", "status"]) == 3
    assert "\nIs it running?  systemctl status atrund@no-such-one\n" in capsys.readouterr().err


def test_a_path_too_long_for_a_socket_is_said(capsys: Capture) -> None:
    assert main(["--socket", "/" + "x" * 200, "status"]) == 3
    assert "AF_UNIX path too long" in capsys.readouterr().err


def test_a_line_without_end_is_cut_off(serve: Serve, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "LINE_MAX", 100)
    assert main(["--socket", serve(b"x" * 101, b"").path, "status"]) == 3
    assert "sent a line of more than 100 bytes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "words"), [("recv", "the daemon is gone"), ("sendall", "the daemon takes nothing any more")]
)
def test_a_connection_that_breaks_is_said(
    serve: Serve, capsys: Capture, monkeypatch: pytest.MonkeyPatch, call: str, words: str
) -> None:
    def break_off(*_: object) -> bytes:
        raise ConnectionResetError(104, "Connection reset by peer")

    server = serve(b"")
    monkeypatch.setattr(socket.socket, call, break_off)
    assert main(["--socket", server.path, "status"]) == 3
    assert f"{words}: Connection reset by peer\nIts last words:  journalctl -u atrund -n 20" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("-n", ""), ("-n", "a/b"), ("-n", "roof", "--socket", "/x")])
def test_a_name_stands_alone(words: tuple[str, ...], capsys: Capture) -> None:
    assert exit_code(*words, "status") == 2
    assert "argument -n/--name: a name alone, and no --socket beside it" in capsys.readouterr().err


def test_a_name_is_that_of_a_socket(capsys: Capture) -> None:
    assert main(["-n", "roof", "status"]) == 3
    assert "/run/atrund-roof.sock" in capsys.readouterr().err
