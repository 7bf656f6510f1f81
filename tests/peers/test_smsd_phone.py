# SPDX-License-Identifier: Apache-2.0
"""smstools' smsd on a second module as the operator's phone: it asks by SMS, and the real daemon on the first answers.

smsd codes and decodes, numbers and puts parts together in its own way; nothing of ours stands between its files and the
module's serial port but the simulated network.
"""

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from atrund.sms.digest import build_request, parse_response
from tests.peers.conftest import PATIENCE
from tests.peers.test_terminal_programs import SMSD
from tests.scenarios.players import LOOK_EVERY, Daemon, Module, until

FIELD, PHONE, STRANGER = "+393468686711", "+393461234567", "+393330000000"
DIGEST_PASSWORD = "1234567890123456"
FOLDERS = ("incoming", "outgoing", "checked", "sent", "failed", "report")
SIGNAL = "\r\n+CSQ: 14,99\r\n\r\nOK\r\n"
LONG = "AT+CIND=?;+CESQ=?;+CPMS=?;+CGMM;+CGMR"


class Phone:
    """smsd, whose user interface are files in folders."""

    def __init__(self, folder: Path, modem: Path) -> None:
        self._folder = folder
        folder.mkdir()
        for name in FOLDERS:
            (folder / name).mkdir()
        settings = {
            "devices": "M1",
            "logfile": folder / "log",
            "loglevel": 7,
            "infofile": folder / "info",
            "pidfile": folder / "pid",
            "stats": folder,
            "delaytime": 1,
            "outgoing_utf8": "no",
            **{name: folder / name for name in FOLDERS},
        }
        port = {
            "device": modem,
            "init": "AT+CNMI=2,0,0,2,1",  # reports are stored, where it looks for messages
            "incoming": "yes",
            "report": "yes",
            "baudrate": 115200,
            "rtscts": "no",
        }
        lines = [f"{key} = {value}" for key, value in settings.items()]
        lines += ["[M1]", *(f"{key} = {value}" for key, value in port.items())]
        (folder / "smsd.conf").write_text("\n".join(lines) + "\n")
        self._process = subprocess.Popen(
            [SMSD, "-t", "-c", str(folder / "smsd.conf")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        self._sent = 0

    def send(self, body: str | bytes, *header: str) -> str:
        """Write to the module in the field, wait until the message is sent, and return its reference."""
        self._sent += 1
        text = body if isinstance(body, bytes) else body.encode("latin-1")
        head = "\n".join([f"To: {FIELD.removeprefix('+')}", *header, "", ""])
        (self._folder / "message").write_bytes(head.encode() + text)
        (self._folder / "message").rename(self._folder / "outgoing" / f"message{self._sent}")
        sent = re.search(r"^Message_id: (\d+)$", self.message("sent")[0], re.MULTILINE)
        assert sent is not None
        return sent[1]

    def message(self, folder: str = "incoming") -> tuple[str, bytes]:
        """Wait for a message, and take it: its header and its body."""
        end = time.monotonic() + PATIENCE
        while (found := next(filter(None, map(_read, (self._folder / folder).iterdir())), None)) is None:
            assert time.monotonic() < end, f"no message in {folder}; smsd said {self._log()}"
            time.sleep(LOOK_EVERY)
        file, head, body = found
        file.unlink()
        return head, body

    def has(self, folder: str = "incoming") -> bool:
        return any((self._folder / folder).iterdir())

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _log(self) -> str:
        file = self._folder / "log"
        return file.read_text(errors="replace")[-1500:] if file.exists() else "nothing"


def _read(file: Path) -> tuple[Path, str, bytes] | None:
    """Read a message, None while it is still being written: its header tells how long it will be."""
    head, _, body = file.read_bytes().partition(b"\n\n")
    length = re.search(rb"^Length: (\d+)", head, re.MULTILINE)
    whole = length is None or len(body) >= int(length[1])
    return (file, head.decode("latin-1"), body) if body and whole else None


class Stage:
    """Both modules, the daemon on the one and the phone on the other."""

    def __init__(self, folder: Path, stack: ExitStack, number: str) -> None:
        link = folder / "phone-module"
        password = folder / "digest-password"
        password.touch(mode=0o600)
        password.write_text(DIGEST_PASSWORD)
        self.module = Module(
            folder,
            *("--peer-link", str(link), "--number", FIELD, "--peer-number", number),
            *("--send-delay", "0.05", "--sm-slots", "30"),
        )
        stack.callback(self.module.program.stop)
        self.daemon = Daemon(folder, self.module)
        self.daemon.configure(
            sms={"enabled": True, "numbers": [PHONE], "password_files": [str(password)]},
            tcp={"enabled": False},
        )
        stack.callback(lambda: self.daemon.program and self.daemon.stop())
        self.daemon.start()
        self.phone = Phone(folder / "phone", link)
        stack.callback(self.phone.close)

    @property
    def answers(self) -> list[str]:
        """What the module in the field has sent."""
        return [message["text"] for message in self.module.ask("sent")["sent"]]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(tmp_path_factory.mktemp("phone"), stack, PHONE)


def test_a_command_is_answered(stage: Stage) -> None:
    stage.phone.send("AT+CSQ")
    head, body = stage.phone.message()
    assert f"From: {FIELD.removeprefix('+')}" in head
    assert body == SIGNAL.encode()
    assert stage.module.count("AT+CSQ") == 1
    until(lambda: stage.module.ask("state")["state"]["messages"]["SM"] == 0, "the request's deletion")


def test_hat_is_run_and_not_answered(stage: Stage) -> None:
    """The note's 2.3: the answer to the next request shows that there was time for one to this."""
    before = len(stage.answers)
    stage.phone.send("HAT#MONI")
    until(lambda: stage.module.count("AT#MONI") == 1, "the command")
    stage.phone.send("AT+CSQ")
    assert stage.phone.message()[1] == SIGNAL.encode()
    assert stage.answers[before:] == [SIGNAL]
    assert not stage.phone.has()


def test_a_long_answer_comes_in_parts_and_is_put_together(stage: Stage) -> None:
    before = len(stage.answers)
    stage.phone.send(LONG)
    _, body = stage.phone.message()
    parts = stage.answers[before:]
    assert len(parts) > 1
    assert body.decode("latin-1") == "".join(parts)
    assert body.endswith(b"\r\nOK\r\n")
    assert b"\r\n+CPMS: (" in body


def test_a_digest_is_answered_by_a_digest(stage: Stage) -> None:
    """The note's 2.1: 8-bit both ways; smsd writes what is binary as it came."""
    stage.phone.send(build_request(DIGEST_PASSWORD, b"AT+CSQ", 0, 1), "Alphabet: binary", "UDH: no")
    head, body = stage.phone.message()
    assert "Alphabet: binary" in head
    response = parse_response(body)
    assert response is not None
    assert response.matches([DIGEST_PASSWORD]) == 0
    assert response.text == SIGNAL.encode()


def test_the_phone_is_told_that_its_message_arrived(stage: Stage) -> None:
    """Its status report says delivered (TP-ST 0), also for one that is run and not answered."""
    before = stage.module.count("AT#MONI")
    reference = stage.phone.send("HAT#MONI")
    while f"Message_id: {reference}\n" not in (report := stage.phone.message("report"))[1].decode():
        pass  # of a message before
    assert f"From: {FIELD.removeprefix('+')}" in report[0]
    assert b"Status: 0,Ok" in report[1]
    until(lambda: stage.module.count("AT#MONI") > before, "the command")


def test_a_stranger_is_not_answered_and_nothing_of_it_is_run(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stage = Stage(tmp_path, stack, STRANGER)
        stage.phone.send("AT#MONI")
        stage.daemon.heard("sms not accepted")
        assert stage.module.count("AT#MONI") == 0
        assert stage.answers == []
        assert not stage.phone.has()
