# SPDX-License-Identifier: Apache-2.0
"""Programs for modems, at a terminal: they see a module and know of no daemon."""

import contextlib
import os
import re
import select
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.peers.conftest import PATIENCE, Terminal

SMSD = "/usr/sbin/smsd"


def run(command: Sequence[str | Path]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def until(look: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < end, f"never seen: {what}"
        time.sleep(0.02)


def picocom(terminal: Terminal, *lines: str, quiet_ms: int = 500) -> str:
    """Return what picocom shows until there has been nothing for a while."""
    typed = "".join(f"{line}\r" for line in lines)
    done = run(
        ["picocom", "-q", "-b", "115200", "--noreset", "-t", typed, "--exit-after", str(quiet_ms), terminal.link]
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.replace("\r", "")


def test_picocom(terminal: Terminal) -> None:
    shown = picocom(terminal, "AT+CSQ")
    assert re.fullmatch(r"AT\+CSQ\n+\+CSQ: \d+,\d+\n+OK\n", shown), shown
    assert terminal.seen[-1] == "AT+CSQ"


def test_lines_pasted_into_picocom_are_run_in_order(terminal: Terminal) -> None:
    """The firewall of the note's 3.9, and what it was before."""
    shown = picocom(
        terminal,
        'AT#TCPATRUNFRWL=2;#TCPATRUNFRWL=1,"217.0.0.0","255.0.0.0"',
        "AT#TCPATRUNFRWL?",
        "AT+CGMI",
    )
    assert [line for line in shown.splitlines() if line and not line.startswith("AT")] == [
        "OK",
        '#TCPATRUNFRWL: "217.0.0.0","255.0.0.0"',
        "OK",
        "Telit",
        "OK",
    ]


def test_a_shell(terminal: Terminal) -> None:
    """Nobody is there any more when the commands are run, and they are run all the same."""
    script = 'stty -F "$1" 9600 raw && printf "ATE0\\rAT+CGMM\\r" >"$1" && printf "AT+CGMR\\r" >"$1"'
    assert run(["sh", "-c", script, "sh", terminal.link]).returncode == 0
    until(lambda: terminal.seen[-2:] == ["AT+CGMM", "AT+CGMR"], "the commands at the module")


class Screen:
    """A program on a terminal of its own."""

    def __init__(self, command: Sequence[str | Path], home: Path) -> None:
        self.text = b""
        self._master, slave = os.openpty()
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "vt100", "HOME": str(home), "LANG": "C"},
        )
        os.close(slave)

    def type(self, text: bytes) -> None:
        """Type, once the program takes key by key: before that its terminal would echo, and make LF of Enter."""
        until(lambda: not termios.tcgetattr(self._master)[3] & termios.ICANON, "a program that takes keys")
        os.write(self._master, text)

    def shows(self, text: bytes) -> None:
        """Wait until it shows this, then forget what it showed."""
        end = time.monotonic() + PATIENCE
        while text not in self.text:
            assert time.monotonic() < end, self.text[-2000:]
            ready, _, _ = select.select([self._master], [], [], 0.1)
            if ready:
                self.text += os.read(self._master, 4096)
        self.text = b""

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self._master)


def test_minicom(terminal: Terminal, tmp_path: Path) -> None:
    screen = Screen(["minicom", "-D", terminal.link, "-b", "115200", "-C", tmp_path / "capture"], tmp_path)
    try:
        screen.shows(b"CTRL-A Z for help")
        screen.type(b"AT+CGMM\r")
        screen.shows(b"OK\r\n")
        screen.type(b"\x01x")
        screen.shows(b"Leave")
        screen.type(b"\r")
        until(lambda: screen.process.poll() is not None, "minicom's end")
    finally:
        screen.close()
    captured = (tmp_path / "capture").read_text().replace("\r", "")
    assert re.fullmatch(r"AT\+CGMM\n+HE910-D\n+OK\n+", captured), captured


@pytest.fixture
def gammu(terminal: Terminal, tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs gammu on the terminal."""
    (tmp_path / "gammurc").write_text(f"[gammu]\ndevice = {terminal.link}\nconnection = at\n")
    return lambda *arguments: run(["gammu", "-c", tmp_path / "gammurc", *arguments])


def test_gammu_identifies_the_module(
    terminal: Terminal, gammu: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    done = gammu("--identify")
    assert done.returncode == 0, done.stdout
    assert re.search(r"^Manufacturer +: Telit$", done.stdout, re.MULTILINE)
    assert re.search(r"^Model +: HE910-D", done.stdout, re.MULTILINE)
    assert re.search(r"^SIM IMSI +: \d{15}$", done.stdout, re.MULTILINE)
    assert terminal.look(lambda: terminal.door.states) == {1: "free"}


def test_gammu_receives_a_message(terminal: Terminal, gammu: Callable[..., "subprocess.CompletedProcess[str]"]) -> None:
    terminal.look(lambda: terminal.house.sms("hello from afar"))
    done = gammu("--getallsms")
    assert done.returncode == 0, done.stdout
    assert "hello from afar" in done.stdout
    assert '"+393468686711"' in done.stdout


def test_gammu_sends_a_message(terminal: Terminal, gammu: Callable[..., "subprocess.CompletedProcess[str]"]) -> None:
    done = gammu("sendsms", "TEXT", "+393461234567", "-text", "hello from here")
    assert done.returncode == 0, done.stdout + done.stderr
    assert terminal.look(lambda: terminal.house.sent) == [("+393461234567", "hello from here")]


def test_gammu_sends_a_message_of_several_parts(
    terminal: Terminal, gammu: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    done = gammu("sendsms", "TEXT", "+393461234567", "-len", "400", "-text", "x" * 400)
    assert done.returncode == 0, done.stdout + done.stderr
    sent = terminal.look(lambda: terminal.house.sent)
    assert "".join(text for _, text in sent) == "x" * 400


@pytest.fixture
def smstools(terminal: Terminal, tmp_path: Path) -> Iterator[Path]:
    """smsd on the terminal; its folder."""
    folders = ("incoming", "outgoing", "checked", "sent", "failed")
    for folder in folders:
        (tmp_path / folder).mkdir()
    settings = {
        "devices": "M1",
        "logfile": tmp_path / "log",
        "loglevel": 7,
        "infofile": tmp_path / "info",
        "pidfile": tmp_path / "pid",
        "stats": tmp_path,
        "delaytime": 1,
        **{folder: tmp_path / folder for folder in folders},
    }
    modem = {"device": terminal.link, "incoming": "yes", "baudrate": 115200, "rtscts": "no"}
    lines = [f"{key} = {value}" for key, value in settings.items()]
    lines += ["[M1]", *(f"{key} = {value}" for key, value in modem.items())]
    (tmp_path / "smsd.conf").write_text("\n".join(lines) + "\n")
    command = [SMSD, "-t", "-c", str(tmp_path / "smsd.conf")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, process_group=0) as program:
        try:
            yield tmp_path
        finally:
            program.terminate()
            try:
                program.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                program.kill()


def test_smstools_receives_a_message(terminal: Terminal, smstools: Path) -> None:
    """It reads the message, writes it to a file, and deletes it from the module."""
    terminal.look(lambda: terminal.house.sms("hello from afar"))
    until(lambda: any((smstools / "incoming").iterdir()), "the message")
    until(lambda: "AT+CMGD=1" in terminal.seen, "its deletion")
    (message,) = (smstools / "incoming").iterdir()
    until(lambda: "hello from afar" in message.read_text(), "its text")
    assert "From: 393468686711" in message.read_text()


def test_smstools_sends_a_message(terminal: Terminal, smstools: Path) -> None:
    (smstools / "message").write_text("To: 393461234567\n\nhello from here")
    (smstools / "message").rename(smstools / "outgoing" / "message")
    until(lambda: any((smstools / "sent").iterdir()), "the message among those sent")
    assert terminal.look(lambda: terminal.house.sent) == [("+393461234567", "hello from here")]
    assert not any((smstools / "failed").iterdir())
