# SPDX-License-Identifier: Apache-2.0
"""`atrunctl lend` against a scripted daemon, and whom it asks about ModemManager."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from atrund.control import ErrorAnswer, LentAnswer, LineAnswer, encode
from atrund.ctl import inhibit, terminal
from atrund.ctl.host import Host
from atrund.ctl.inhibit import Inhibited, NotInhibitedError, uid_of
from atrund.ctl.main import main
from tests.ctl.server import Serve

Capture = pytest.CaptureFixture[str]

PORT = "/dev/ttyUSB2"
LENT = encode(LentAnswer(PORT))


def test_the_command_gets_the_port_and_its_exit_code_is_ours(
    serve: Serve, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATRUND_PORT", "/dev/other")
    server = serve(LENT)
    words = ["sh", "-c", 'echo "$ATRUND_PORT" "$@"; exit 3', "sh", "{}", "speed={},raw"]
    assert main(["--socket", server.path, "lend", "--for", "2h", "--", *words]) == 3
    assert capfd.readouterr().out == f"{PORT} {PORT} speed={PORT},raw\n"
    assert server.seen == [{"op": "lend", "seconds": 7200}]


def test_a_signal_ends_it_as_a_shell_would_say(serve: Serve) -> None:
    assert main(["--socket", serve(LENT).path, "lend", "--", "sh", "-c", "kill -TERM $$"]) == 143


def test_the_time_is_over_and_the_daemon_goes(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(LENT + encode(LentAnswer(PORT, over=True)))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    said: list[str] = []

    def complain(text: str) -> None:
        """Let the command end once all was said."""
        said.append(text)
        if len(said) == 2:
            fifo.write_text("go\n")

    monkeypatch.setattr(terminal, "complain", complain)
    assert main(["--socket", server.path, "lend", "--", "sh", "-c", f"read line <{fifo}"]) == 0
    assert said == [
        "the time is over: the daemon takes the port back once it is closed",
        "the daemon is gone; started again, it will want the port",
    ]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (encode(ErrorAnswer("the port is lent to uid 7 already")), "does not lend the port: the port is lent to uid 7"),
        (encode(LineAnswer("OK")), "answered another question"),
        (b'{"event":"?"}\n', "what this atrunctl does not know"),
    ],
)
def test_a_port_that_is_not_lent(serve: Serve, capfd: Capture, answer: bytes, says: str) -> None:
    assert main(["--socket", serve(answer).path, "lend", "--", "sh", "-c", "echo ran"]) == 1
    out, error = capfd.readouterr()
    assert out == ""
    assert says in error


def test_a_daemon_that_is_not_there(capfd: Capture, tmp_path: Path) -> None:
    assert main(["--socket", str(tmp_path / "none"), "lend", "--", "true"]) == 3
    assert "can't be reached" in capfd.readouterr().err


def test_a_command_that_can_not_be_run(serve: Serve, capfd: Capture, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)
    assert main(["--socket", serve(LENT).path, "lend", "--", str(broken)]) == 126
    assert f"{broken}: No such file or directory" in capfd.readouterr().err


# ModemManager.


def host(tmp_path: Path, told: dict[str, object] | None = None) -> Host:
    """A host whose ModemManager tells this of its modems, by name; None: there is none."""

    def run(arguments: Sequence[str]) -> str | None:
        if told is None:
            return None
        if "--list-modems" in arguments:
            return json.dumps({"modem-list": list(told)})
        return json.dumps(told[arguments[-1]])

    return Host(sys=tmp_path / "sys", run=run)


def modem(*ports: str, device: str) -> dict[str, object]:
    return {"modem": {"generic": {"device": device, "ports": list(ports)}}}


def test_the_device_of_the_modem_that_has_the_port(tmp_path: Path) -> None:
    told: dict[str, object] = {
        "1": modem("ttyUSB0 (at)", device="/sys/a"),
        "2": {"modem": {"odd": 1}},
        "3": modem("cdc-wdm0 (qmi)", "ttyUSB2 (ignored)", device="/sys/b"),
    }
    assert uid_of(PORT, host(tmp_path, told)) == "/sys/b"


@pytest.mark.parametrize("told", [None, {}, {"1": ["no", "object"]}, {"1": modem("ttyUSB0 (at)", device="/sys/a")}])
def test_without_such_a_modem_it_is_the_usb_devices_folder(tmp_path: Path, told: dict[str, object] | None) -> None:
    usb = tmp_path / "sys/devices/usb1/1-2"
    (usb / "1-2:1.2/ttyUSB2").mkdir(parents=True)
    (usb / "idVendor").write_text("1bc7\n")
    tty = tmp_path / "sys/class/tty/ttyUSB2"
    tty.mkdir(parents=True)
    (tty / "device").symlink_to(usb / "1-2:1.2/ttyUSB2")
    assert uid_of(PORT, host(tmp_path, told)) == str(usb)


def test_a_port_that_is_none_of_a_modem(tmp_path: Path) -> None:
    with pytest.raises(NotInhibitedError, match="/dev/ttyS0: ModemManager knows no modem with this port"):
        uid_of("/dev/ttyS0", host(tmp_path))


def with_mmcli(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Host:
    """A host with this program for mmcli; it has one modem with the port."""
    program = folder / "mmcli"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return host(folder, {"1": modem("ttyUSB2 (at)", device="/sys/b")})


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ('echo "error: cannot inhibit device: no such uid"; exit 1', "cannot inhibit device: no such uid"),
        ("exit 1", "mmcli said nothing"),
        ("exec sleep 60", "mmcli said nothing"),
    ],
)
def test_a_modemmanager_that_does_not_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    monkeypatch.setattr(inhibit, "PROMPT", 0.5)
    with pytest.raises(NotInhibitedError, match=says), Inhibited(PORT, with_mmcli(tmp_path, monkeypatch, script)):
        pytest.fail("it was inhibited")


def test_an_mmcli_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inhibit, "PROMPT", 0.5)
    script = "trap '' INT; echo successfully inhibited device; while :; do sleep 0.1; done"
    with Inhibited(PORT, with_mmcli(tmp_path, monkeypatch, script)) as inhibited:
        program = inhibited._program
        assert program is not None
        assert program.poll() is None
    assert program.returncode == -9


def test_without_mmcli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotInhibitedError, match="mmcli can't be run"):
        Inhibited(PORT, host(tmp_path, {"1": modem("ttyUSB2 (at)", device="/sys/b")})).__enter__()
