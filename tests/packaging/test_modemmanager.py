# SPDX-License-Identifier: Apache-2.0
"""One module for two: the real ModemManager with its Telit plugin on the primary AT port, the daemon on the secondary.

The module is the simulated one. A made-up sysfs and /dev, seen by the programs of a test alone, give its two
pseudo-terminals the names, ids and interfaces of an LE910Cx; that udev gives the port its tag is shown by test_udev.py.
ModemManager reads rule files itself here, and the line of ours that counts stands among them.
"""

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from subprocess import PIPE, CompletedProcess, Popen, run
from typing import Any

import pytest

from tests.packaging.authority import Authority
from tests.scenarios.players import PATIENCE, Daemon, Module, Program, until

pytestmark = pytest.mark.blackbox

RULES = Path(__file__).parents[2] / "packaging" / "udev" / "60-atrund.rules"
SYSTEM_RULES = Path("/usr/lib/udev/rules.d")
FRIEND = "+393468686711"
PORTS = {"ttyUSB2": 4, "ttyUSB3": 5}
MODEM = "/org/freedesktop/ModemManager1/Modem/0"

# A /sys and a /dev of its own for one program: $1 is the folder that they are in.
IN_A_CORNER = """
mount -t tmpfs none /run && mkdir -p /run/dev/pts && mount --bind /dev/pts /run/dev/pts &&
for name in null zero random urandom ttyUSB2 ttyUSB3; do touch /run/dev/$name || exit 99; done &&
for name in null zero random urandom; do mount --bind /dev/$name /run/dev/$name || exit 99; done &&
mount --bind "$(readlink -f "$1/module")" /run/dev/ttyUSB2 &&
mount --bind "$(readlink -f "$1/secondary")" /run/dev/ttyUSB3 &&
mount --rbind /run/dev /dev && mount --bind "$1/sys" /sys && mount --bind "$1/rules" /usr/lib/udev/rules.d || exit 99
shift
exec "$@"
"""


class Corner:
    """A place with a module, a D-Bus, and the programs that share both.

    `privileged`: they have the real root's CAP_SYS_ADMIN, as ModemManager has where Debian starts it, and with it pass
    another's exclusive use of a port.
    """

    def __init__(self, folder: Path, stack: ExitStack, *, ignored: bool, privileged: bool = False) -> None:
        self._folder = folder
        self._stack = stack
        user = [] if privileged else ["--map-root-user"]
        self._wrap = ("unshare", *user, "--mount", "sh", "-c", IN_A_CORNER, "sh", str(folder))
        self.module = Module(folder, "--model", "LE910C1-EUX", "--link", str(folder / "secondary"), "--send-delay", "0")
        stack.callback(self.module.program.stop, signal.SIGKILL)
        describe(folder / "sys")
        self._write_rules(ignored=ignored)
        address = f"unix:path={folder}/bus"
        self._environ = {"DBUS_SESSION_BUS_ADDRESS": address, "DBUS_SYSTEM_BUS_ADDRESS": address}
        # The same corner for the bus, so that it takes the others for the user that they take themselves for.
        bus = self._program("bus", "dbus-daemon", "--session", "--nofork", "--print-address", f"--address={address}")
        until(lambda: bus.said("^unix:"), "the bus")

    def manager(self) -> Program:
        """Start ModemManager and wait until it has the modem."""
        events = self._folder / "events"
        events.write_text("".join(f"action=add,name={name},subsystem=tty,uid=modem\n" for name in PORTS))
        quiet = ("--test-session", "--test-no-udev", "--test-no-suspend-resume", "--test-no-qrtr", "--no-auto-scan")
        manager = self._program("manager", "ModemManager", *quiet, "--debug", f"--initial-kernel-events={events}")
        until(lambda: manager.said(r"state changed \(unknown -> disabled\)"), "the modem")
        return manager

    def daemon(self) -> Daemon:
        """Start the daemon on the module's secondary port, which it is to find, and wait until it is ready."""
        folder = self._folder / "daemon"
        folder.mkdir()
        daemon = Daemon(folder)
        self._stack.callback(lambda: daemon.program and daemon.program.stop(signal.SIGKILL))
        daemon.wrap = self._wrap
        daemon.configure(module={"port": "usb:1bc7:1201", "gap": 0}, sms={"enabled": True, "numbers": [FRIEND]})
        return daemon.start()

    def modem(self) -> dict[str, Any]:
        """What ModemManager says of its modem."""
        done = self.mmcli("--output-json")
        assert done.returncode == 0, done.stderr
        modem: dict[str, Any] = json.loads(done.stdout)["modem"]
        return modem

    def mmcli(self, *options: str) -> "CompletedProcess[str]":
        return self._run("mmcli", f"--modem={MODEM}", *options)

    def begin_mmcli(self, *options: str) -> "Popen[str]":
        command = [*self._wrap, "mmcli", f"--modem={MODEM}", *options]
        return Popen(command, stdout=PIPE, stderr=PIPE, text=True, env={**os.environ, **self._environ})

    def doctor(self) -> "CompletedProcess[str]":
        return self.ctl("doctor", "--json")

    def ctl(self, *words: str) -> "CompletedProcess[str]":
        """Run atrunctl where the others are."""
        return self._run(*self._atrunctl, *words)

    def begin_ctl(self, *words: str) -> "Popen[str]":
        environ = {**os.environ, **self._environ, "LC_ALL": "C"}
        return Popen([*self._wrap, *self._atrunctl, *words], stdout=PIPE, text=True, env=environ)

    @property
    def _atrunctl(self) -> list[str]:
        return [sys.executable, "-m", "atrund.ctl.main", "--socket", str(self._folder / "daemon" / "atrund.sock")]

    def modems(self) -> list[str]:
        """The modems that ModemManager has."""
        listed: list[str] = json.loads(self._run("mmcli", "--output-json", "--list-modems").stdout)["modem-list"]
        return listed

    def comes_back(self, manager: Program) -> bool:
        """Wait until ModemManager has the modem once more, as another one, and its port."""
        until(lambda: self.modems() == [MODEM.replace("/0", "/1")], "the modem once more")
        return until(lambda: opened(manager) == {"ttyUSB2"}, "its port once more")

    def asked(self, name: str) -> list[str]:
        """The command lines that reached the module through a port."""
        return list(self.module.ask("seen")["seen"][list(PORTS).index(name)])

    def _program(self, name: str, *command: str) -> Program:
        program = Program([*self._wrap, *command], self._folder / f"{name}.log", self._environ)
        self._stack.callback(program.stop, signal.SIGKILL)
        return program

    def _run(self, *command: str) -> "CompletedProcess[str]":
        environ = {**os.environ, **self._environ, "LC_ALL": "C"}
        return run([*self._wrap, *command], capture_output=True, text=True, check=False, timeout=PATIENCE, env=environ)

    def _write_rules(self, *, ignored: bool) -> None:
        """ModemManager's own rule files; with `ignored` the line that ours has for this module."""
        rules = self._folder / "rules"
        rules.mkdir()
        for file in SYSTEM_RULES.glob("*-mm-*.rules"):
            shutil.copy(file, rules)
        lines = [line for line in RULES.read_text(encoding="utf-8").splitlines() if line.startswith("ENV{")]
        (mine,) = (line for line in lines if '"1201"' in line)
        if ignored:
            (rules / "77-mm-atrund.rules").write_text(mine + "\n")


def describe(sys: Path) -> None:
    """Write what sysfs shows of an LE910Cx and its two AT ports."""
    device = sys / "devices/pci0000:00/0000:00:14.0/usb1/1-1"
    texts = {
        "idVendor": "1bc7",
        "idProduct": "1201",
        "bcdDevice": "0318",
        "manufacturer": "Telit",
        "product": "LE910C1-EU",
        "serial": "0123456789ABCDEF",
    }
    write(device, texts)
    link(device / "subsystem", sys / "bus/usb")
    link(device / "driver", sys / "bus/usb/drivers/usb")
    for name, number in PORTS.items():
        interface = device / f"1-1:1.{number}"
        write(interface, {"bInterfaceNumber": f"{number:02x}", "bInterfaceClass": "ff"})
        write(interface, {"bInterfaceSubClass": "00", "bInterfaceProtocol": "00"})
        link(interface / "subsystem", sys / "bus/usb")
        link(interface / "driver", sys / "bus/usb/drivers/option")
        link(interface / name / "subsystem", sys / "bus/usb-serial")
        link(interface / name / "driver", sys / "bus/usb-serial/drivers/option1")
        link(interface / name / "tty" / name / "subsystem", sys / "class/tty")
        link(interface / name / "tty" / name / "device", interface / name)
        link(sys / "class/tty" / name, interface / name / "tty" / name)


def write(folder: Path, texts: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text + "\n")


def link(at: Path, to: Path) -> None:
    """Make a symbolic link that stays right when the tree is seen elsewhere."""
    at.parent.mkdir(parents=True, exist_ok=True)
    if not to.exists():
        to.mkdir(parents=True)
    at.symlink_to(os.path.relpath(to, at.parent))


def opened(program: Program) -> set[str]:
    """The names of the ports that a program has open."""
    names = set()
    for entry in Path(f"/proc/{program.process.pid}/fd").iterdir():
        try:
            names.add(entry.readlink().name)
        except OSError:  # closed since
            continue
    return names & PORTS.keys()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    if shutil.which("ModemManager") is None:
        pytest.skip("no ModemManager here: apt-get install modemmanager")
    if os.geteuid() != 0:
        # ModemManager closes and opens its port, for itself alone each time, and a pseudo-terminal keeps that.
        pytest.skip("only root's simulated module can give a port back that was somebody's alone, under the same name")
    with ExitStack() as stack:
        yield stack


def test_both_work_at_the_same_time(tmp_path: Path, stack: ExitStack) -> None:
    corner = Corner(tmp_path, stack, ignored=True)
    manager = corner.manager()
    modem = corner.modem()["generic"]
    assert (modem["plugin"], modem["model"], modem["state"]) == ("telit", "LE910C1-EUX", "disabled")
    assert modem["ports"] == ["ttyUSB2 (at)", "ttyUSB3 (ignored)"]
    assert corner.asked("ttyUSB3") == [], "ModemManager wrote to the daemon's port"

    daemon = corner.daemon()
    until(lambda: daemon.status()["sms"]["state"] == "open", "the SMS door")
    assert corner.mmcli("--enable").returncode == 0
    until(lambda: corner.modem()["generic"]["state"] == "registered", "the modem registered")

    for _ in range(5):
        with corner.begin_mmcli("--command=AT+CGMM") as asked:
            done = daemon.ctl("at", "AT+GMM")
            assert (done.returncode, done.stdout) == (0, "LE910C1-EUX\nOK\n")
            assert asked.communicate(timeout=PATIENCE) == ("response: 'LE910C1-EUX'\n", "")
    corner.module.ask("sms", **{"from": FRIEND, "text": "AT+CGMM"})
    (answer,) = until(lambda: corner.module.ask("sent")["sent"], "the answer to an SMS")
    assert answer["text"] == "\r\nLE910C1-EUX\r\n\r\nOK\r\n"

    before = corner.modem()
    assert daemon.stop() == 0
    daemon.start()
    after = corner.modem()
    for name in ("state", "power-state", "ports", "current-modes", "current-bands"):
        assert after["generic"][name] == before["generic"][name]
    assert after["3gpp"]["registration-state"] == before["3gpp"]["registration-state"]
    assert opened(manager) == {"ttyUSB2"}
    assert "[ttyUSB3/at]" not in manager.text
    assert not re.search(r"state changed \((registered|connected) -> ", manager.text)


@contextmanager
def asleep(program: Program) -> Iterator[None]:
    """Stop a program as a debugger does, for as long as the context lasts."""
    program.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        program.process.send_signal(signal.SIGCONT)


def test_without_the_rule_it_uses_the_daemons_port_and_doctor_says_so(tmp_path: Path, stack: ExitStack) -> None:
    corner = Corner(tmp_path, stack, ignored=False, privileged=True)
    daemon = corner.daemon()
    own = len(corner.asked("ttyUSB3"))
    assert daemon.program is not None
    with asleep(daemon.program):  # each would take answers from the other, and neither be sure of the modem
        manager = corner.manager()
    assert corner.modem()["generic"]["ports"] == ["ttyUSB2 (at)", "ttyUSB3 (at)"]
    assert re.search(r"\[ttyUSB3/at\] --> 'AT<CR>'", manager.text)
    assert len(corner.asked("ttyUSB3")) > own
    done = corner.doctor()
    findings = [(item["level"], item["text"]) for item in json.loads(done.stdout)["findings"]]
    assert ("error", "ModemManager uses /dev/ttyUSB3, which is the daemon's") in findings
    assert done.returncode == 1


def test_without_privilege_the_exclusive_use_of_the_port_keeps_it_off(tmp_path: Path, stack: ExitStack) -> None:
    corner = Corner(tmp_path, stack, ignored=False)
    daemon = corner.daemon()
    manager = corner.manager()
    assert corner.modem()["generic"]["ports"] == ["ttyUSB2 (at)"]
    assert re.search("ttyUSB3.*(busy|Could not open serial device)", manager.text)
    assert daemon.ctl("at", "AT+GMM").stdout == "LE910C1-EUX\nOK\n"


@pytest.mark.parametrize("killed", [False, True], ids=["the command ends", "atrunctl is killed"])
def test_lent_with_inhibit_mm_it_lets_go_of_the_module_and_takes_it_up_again(
    tmp_path: Path, stack: ExitStack, *, killed: bool
) -> None:
    """`atrunctl lend --inhibit-mm`: ModemManager leaves all ports of the module alone for as long as that runs."""
    corner = Corner(tmp_path, stack, ignored=True)
    manager = corner.manager()
    daemon = corner.daemon()
    polkit = stack.enter_context(Authority(tmp_path / "bus"))
    assert corner.modems() == [MODEM]

    words = ("lend", "--inhibit-mm", "--", "sh", "-c", 'echo "$$ $ATRUND_PORT"; exec sleep 60')
    lent = stack.enter_context(corner.begin_ctl(*words))
    stack.callback(lent.kill)
    assert lent.stdout is not None
    command, port = lent.stdout.readline().split()
    stack.callback(end, int(command))
    assert port == "/dev/ttyUSB3"
    assert daemon.status()["module"]["state"] == "lent"
    assert polkit.asked == 1
    assert corner.modems() == []
    until(lambda: not opened(manager), "no port with ModemManager")

    if killed:
        lent.kill()
        assert corner.comes_back(manager), "also while the command goes on by itself"
    end(int(command))
    until(lambda: lent.poll() is not None, "the end of atrunctl")
    assert corner.comes_back(manager)
    until(lambda: daemon.status()["module"]["state"] == "ready", "the daemon's port")
    assert daemon.ctl("at", "AT+GMM").stdout == "LE910C1-EUX\nOK\n"
    assert "[ttyUSB3/at]" not in manager.text


def end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_a_module_that_modemmanager_does_not_let_go_of_is_not_lent(tmp_path: Path, stack: ExitStack) -> None:
    """Nobody on this bus says who may: it refuses, the command is not run, and the daemon has its port back."""
    corner = Corner(tmp_path, stack, ignored=True)
    manager = corner.manager()
    daemon = corner.daemon()
    done = corner.ctl("lend", "--inhibit-mm", "--", "touch", str(tmp_path / "ran"))
    assert done.returncode == 1
    assert re.match("atrunctl: ModemManager does not leave .* alone: .*PolicyKit authorization failed", done.stderr)
    assert not (tmp_path / "ran").exists()
    assert corner.modems() == [MODEM]
    until(lambda: opened(manager) == {"ttyUSB2"}, "ModemManager on its port")
    until(lambda: daemon.status()["module"]["state"] == "ready", "the daemon's port")
