# SPDX-License-Identifier: Apache-2.0
"""`atrunctl doctor` on made-up hosts, and its questions put to the simulated module."""

import fcntl
import json
import os
import pty
import re
import socket
import struct
import subprocess
import sys
import termios
import threading
import tty
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from atrund.control import ErrorAnswer, StatusAnswer, encode
from atrund.ctl import doctor, host, manager, probe
from atrund.ctl.examine import Report, examine
from atrund.ctl.findings import Finding, Level, worst
from atrund.ctl.host import Host
from atrund.ctl.main import main
from atrund.ctl.probe import Answers
from atrund.ctl.probed import judge_answers, masked_imei
from tests.ctl.server import Serve
from tests.usb.tree import Tree

Capture = pytest.CaptureFixture[str]

ROUTE = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
MARKED = "DEVNAME=/dev/x\nID_MM_PORT_IGNORE=1\n"


class World:
    """A host of the test's own: USB tree, processes, routes, programs and their output."""

    def __init__(self, root: Path) -> None:
        self.tree = Tree(root)
        self.proc = root / "proc"
        self.proc.mkdir()
        self.programs: dict[str, str | None] = {}
        self.ran: list[tuple[str, ...]] = []
        self.addresses: dict[str, str] = {}

    @property
    def host(self) -> Host:
        return Host(self.tree.sys, self.tree.dev, self.proc, self.run, self.addresses.get)

    def run(self, arguments: Sequence[str]) -> str | None:
        self.ran.append(tuple(arguments))
        line = " ".join(arguments)
        return next((output for part, output in self.programs.items() if part in line), None)

    def process(self, pid: int, comm: str, cgroup: str, *files: Path, cmdline: str = "") -> Path:
        folder = self.proc / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "comm").write_text(f"{comm}\n")
        (folder / "cgroup").write_text(f"{cgroup}\n")
        (folder / "cmdline").write_text(cmdline.replace(" ", "\0"))
        for number, file in enumerate(files):
            (folder / "fd" / str(number)).symlink_to(file)
        return folder

    def route(self, *lines: str) -> None:
        (self.proc / "net").mkdir()
        (self.proc / "net/route").write_text(ROUTE + "".join(f"{line}\n" for line in lines))

    def le910(self) -> Path:
        """Plug a module in; return its secondary port, which group may use."""
        self.tree.le910()
        for path in self.tree.dev.glob("ttyUSB*"):
            path.chmod(0o660)
        return self.tree.dev / "ttyUSB3"

    def look(self, name: str = "", *, probing: bool = False, status: dict[str, object] | None = None) -> Report:
        return examine(self.host, status=status, name=name, probing=probing)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def about(report: Report, subject: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.about == subject]


def only(report: Report, subject: str) -> Finding:
    (finding,) = about(report, subject)
    return finding


def test_all_is_well(world: World) -> None:
    path = world.le910()
    world.process(7, "atrund", "0::/system.slice/atrund.service", path, Path("/dev/null"))
    world.process(8, "ModemManager", "0::/system.slice/ModemManager.service", world.tree.dev / "ttyUSB2")
    world.programs = {"udevadm": MARKED, "busctl": managed([["ttyUSB2", 3], ["ttyUSB3", 9], ["cdc-wdm0", 6]])}
    world.route("wwan0\t00000000\t0101A8C0\t0003\t0\t0\t700\t00000000\t0\t0\t0")
    world.addresses = {"wwan0": "198.51.100.7"}
    report = world.look("usb:1-1.4", status={"module": {"state": "ready", "model": "LE910C1-EU", "port": "usb:1-1.4"}})
    assert [finding.level for finding in report.findings] == [Level.OK] * len(report.findings)
    texts = [f"{finding.about}: {finding.text}".replace(f"{world.tree.dev}/", "") for finding in report.findings]
    has = (
        "ttyUSB0 diagnostic, ttyUSB1 gnss, ttyUSB2 primary, ttyUSB3 secondary, ttyUSB4 interface 06, cdc-wdm0, wwan0 up"
    )
    me = f"{path.owner()}:{path.group()}"
    assert texts == [
        f"module: LE910C1-EU (1bc7:1201) at 1-1.4: {has}",
        "port: ttyUSB3 (usb:1-1.4/05, secondary) is the daemon's port",
        "holder: ttyUSB3 is open in atrund (pid 7, atrund.service) alone",
        f"access: ttyUSB3 is {me} 0660",
        "manager: ModemManager is running; it uses cdc-wdm0, ttyUSB2",
        "manager: ttyUSB3 is marked as not ModemManager's (ID_MM_PORT_IGNORE)",
        "module: ready, model LE910C1-EU",
        "network: wwan0 has 198.51.100.7",
    ]


def test_json_has_modules_ports_and_holders(world: World) -> None:
    path = world.le910()
    world.process(7, "atrund", "1:name=systemd:/system.slice/atrund.service\n0::/", path)
    world.programs = {"udevadm": MARKED}
    report = world.look("usb:1-1.4").as_json()
    assert json.loads(json.dumps(report)) == report
    (module,) = json.loads(json.dumps(report))["modules"]
    assert (module["usb"], module["pid"], module["networks"], module["network_up"]) == (
        "1-1.4",
        "1201",
        ["wwan0"],
        True,
    )
    assert module["controls"] == [f"{world.tree.dev}/cdc-wdm0"]
    port = module["ports"][3]
    assert port["holders"] == [{"pid": 7, "process": "atrund", "unit": "atrund.service"}]
    assert (port["path"], port["name"], port["role"]) == (str(path), "usb:1-1.4/05", "secondary")
    assert (port["daemon"], port["mode"], port["manager_uses"], port["manager_ignores"]) == (True, "0660", None, True)
    assert module["ports"][0]["manager_ignores"] is None
    assert (report["daemon"], report["level"]) == (None, "note")


def test_a_host_without_anything(world: World) -> None:
    report = world.look()
    assert [(finding.level, finding.about) for finding in report.findings] == [
        (Level.WARNING, "module"),
        (Level.NOTE, "port"),
        (Level.OK, "manager"),
        (Level.NOTE, "sim"),
        (Level.NOTE, "network"),
    ]
    assert 'module.port = "usb:1-1.4"' in only(report, "port").advice


def test_a_module_that_no_driver_took(world: World) -> None:
    world.tree.device("1-2", pid="1204")
    finding = only(world.look(), "module")
    assert finding.level is Level.ERROR
    assert finding.text == "LE910Cx (MBIM) (1bc7:1204) at 1-2 has no serial port: no driver took it"
    assert "echo 1bc7 1204 >" in finding.advice


def test_a_composition_that_is_not_known(world: World) -> None:
    world.tree.tty(world.tree.device("1-2", pid="fffe"), "02", "ttyUSB0")
    finding = only(world.look(), "module")
    assert (finding.level, finding.advice) == (Level.NOTE, "name the AT port with its interface: usb:1-2/NN")


def test_nothing_configured_names_the_port_to_take(world: World) -> None:
    world.le910()
    assert 'module.port = "usb:1-1.4/05"' in only(world.look(), "port").advice


@pytest.mark.parametrize(
    ("name", "level", "words", "advice"),
    [
        ("usb:9-9", Level.ERROR, "no such serial port on USB; there are: usb:1-1.4/00", "plugged in"),
        ("ttyUSB3", Level.ERROR, "did you mean /dev/ttyUSB3?", "correct module.port"),
        ("/nowhere/ttyX", Level.ERROR, "/nowhere/ttyX is not there", "plugged in"),
        ("usb:1-1.4/03", Level.ERROR, "gnss) is the daemon's port, and takes no AT commands", "/secondary"),
        ("DEV/ttyUSB3", Level.NOTE, "its number may be another", "name it usb:1-1.4/05, or "),
        ("usb:1-1.4/primary", Level.NOTE, "ModemManager prefers that one", "secondary"),
        (
            "DEV/serial/by-id/usb-Telit_LE910C1-EU_0123456789ABCDEF-if05-port0",
            Level.OK,
            "secondary) is the daemon's",
            "",
        ),
        ("imei:353000111222333", Level.NOTE, "imei:…2333 is one of ", "--probe asks"),
    ],
)
def test_the_configured_port(world: World, name: str, level: Level, words: str, advice: str) -> None:
    world.le910()
    finding = only(world.look(name.replace("DEV", str(world.tree.dev))), "port")
    assert finding.level is level
    assert words in finding.text
    assert advice in finding.advice


def test_a_port_that_is_not_on_usb(world: World) -> None:
    uart = world.tree.dev / "ttyS1"
    uart.touch(0o660)
    report = world.look(str(uart))
    assert only(report, "port").text.endswith("it is not on USB")
    assert only(report, "module").level is Level.NOTE
    assert only(report, "holder").text == f"nobody has {uart} open"


def test_somebody_else_has_the_port_open(world: World) -> None:
    path = world.le910()
    world.process(7, "atrund", "0::/system.slice/atrund.service", path)
    world.process(9, "minicom", "0::/user.slice/user-0.slice/session-3.scope", path)
    world.process(11, "gammu-smsd", "0::/system.slice/gammu-smsd.service", path)
    finding = only(world.look("usb:1-1.4"), "holder")
    assert finding.level is Level.ERROR
    assert finding.text == (
        f"{path} is open in minicom (pid 9, session-3.scope), gammu-smsd (pid 11, gammu-smsd.service) beside the daemon"
    )
    assert finding.advice == "end pid 9; systemctl stop gammu-smsd.service"


def test_modemmanager_has_the_port(world: World) -> None:
    path = world.le910()
    world.process(8, "ModemManager", "0::/system.slice/ModemManager.service", path)
    world.programs = {"busctl": managed([["ttyUSB3", 3]]), "udevadm": "DEVNAME=x\n"}
    report = world.look("usb:1-1.4")
    assert "60-atrund.rules" in only(report, "holder").advice
    finding = about(report, "manager")[-1]
    assert (finding.level, finding.text) == (Level.ERROR, f"ModemManager uses {path}, which is the daemon's")
    assert finding.advice.startswith("install 60-atrund.rules")
    world.programs["udevadm"] = MARKED
    assert about(world.look("usb:1-1.4"), "manager")[-1].advice.startswith("replug the module")


def test_what_a_user_can_not_see_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.le910()
    hidden = world.process(1, "systemd", "0::/init.scope") / "fd"
    listdir = os.listdir

    def deny(path: Path) -> list[str]:
        if path == hidden:
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", deny)
    report = world.look("usb:1-1.4", probing=True)
    assert only(report, "holder").advice == "run it as root: sudo atrunctl doctor"
    assert only(report, "probe").text == "nothing was asked: whether a port is free can't be seen by this user"


def test_a_process_that_ends_meanwhile_is_passed_over(world: World) -> None:
    world.le910()
    (world.proc / "77").mkdir()
    assert only(world.look("usb:1-1.4"), "holder").text.startswith("nobody has")


@pytest.mark.parametrize(
    ("cmdline", "daemon"),
    [
        ("/usr/bin/python3 /usr/bin/atrund --config x", True),
        ("/usr/bin/python3 -m atrund", True),
        ("/opt/atrund", True),
        ("vi -- atrund", False),
        ("cat /dev/ttyUSB3", False),
        ("", False),
    ],
)
def test_the_daemon_is_known_however_it_was_started(world: World, cmdline: str, *, daemon: bool) -> None:
    path = world.le910()
    path.chmod(0o600)
    world.process(7, "python3", "0::/user.slice", path, cmdline=cmdline)
    report = world.look("usb:1-1.4")
    assert only(report, "holder").level is (Level.OK if daemon else Level.ERROR)
    assert only(report, "access").level is (Level.OK if daemon else Level.WARNING)


def test_a_node_that_its_group_may_not_use(world: World) -> None:
    path = world.le910()
    path.chmod(0o600)
    finding = only(world.look("usb:1-1.4"), "access")
    assert finding.level is Level.WARNING
    assert "0600: its group may not read and write" in finding.text


def test_the_user_of_the_daemon_is_not_in_the_group(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import grp
    import pwd

    path = world.le910()
    someone = pwd.struct_passwd(("atrund", "x", 4242, 4242, "", "/", "/bin/false"))
    monkeypatch.setattr(pwd, "getpwnam", {"atrund": someone}.__getitem__)
    monkeypatch.setattr(os, "getgrouplist", lambda _name, gid: [gid])
    finding = only(world.look("usb:1-1.4"), "access")
    assert (finding.level, finding.advice.split()[-3:]) == (Level.NOTE, ["-aG", path.group(), "atrund"])
    group = grp.getgrnam(path.group()).gr_gid
    monkeypatch.setattr(os, "getgrouplist", lambda _name, gid: [gid, group])
    assert only(world.look("usb:1-1.4"), "access").level is Level.OK


def acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def test_an_access_control_list() -> None:
    nobody, root = (0x02, 6, 0), (0x08, 6, 0)
    assert host.named_in_acl(acl((1, 6, 0), nobody, (4, 6, 0), root, (0x10, 6, 0), (0x20, 0, 0))) == (
        "user:root",
        "group:root",
    )
    assert host.named_in_acl(acl(nobody, (0x10, 4, 0))) == ()  # its mask takes writing away
    assert host.named_in_acl(acl((0x02, 4, 0), (0x02, 6, 4_000_000_000))) == ()
    assert host.named_in_acl(b"") == host.named_in_acl(b"\x02\0\0\0\0") == host.named_in_acl(b"\x03\0\0\0") == ()


def managed(ports: object) -> str:
    """What busctl prints for GetManagedObjects of ModemManager with one modem."""
    properties = {"Ports": {"type": "a(su)", "data": ports}, "State": {"type": "i", "data": 11}}
    objects = {"/org/freedesktop/ModemManager1/Modem/0": {"org.freedesktop.ModemManager1.Modem": properties}}
    return json.dumps({"type": "a{oa{sa{sv}}}", "data": [objects]})


MMCLI = {
    "--list-modems": json.dumps({"modem-list": ["/org/freedesktop/ModemManager1/Modem/0"]}),
    "--modem": json.dumps({"modem": {"generic": {"ports": ["cdc-wdm0 (qmi)", "ttyUSB2 (at)", "ttyUSB3 (ignored)"]}}}),
}


@pytest.mark.parametrize(
    ("programs", "ports"),
    [
        ({"busctl": managed([["ttyUSB2", 3], ["ttyUSB3", 9]])}, {"ttyUSB2"}),
        ({"busctl": json.dumps({"data": [{"/o": {"other": {}}}]})}, set()),
        (MMCLI, {"cdc-wdm0", "ttyUSB2"}),
        ({"busctl": "no JSON", **MMCLI}, {"cdc-wdm0", "ttyUSB2"}),
        ({"busctl": '{"data": 1}'}, None),
        ({"--list-modems": MMCLI["--list-modems"]}, None),
        ({"--list-modems": "[]"}, None),
        ({}, None),
    ],
)
def test_modemmanagers_ports(world: World, programs: Mapping[str, str], ports: set[str] | None) -> None:
    world.process(8, "ModemManager", "0::/")
    world.programs = {**programs}
    assert manager.look(world.host) == manager.Manager(running=True, ports=None if ports is None else frozenset(ports))
    assert all("--auto-start=no" in line for line in world.ran if line[0] == "busctl")


def test_modemmanager_that_does_not_run_is_not_asked(world: World) -> None:
    assert not manager.look(world.host).running
    assert world.ran == []


@pytest.mark.parametrize(
    ("properties", "level", "words"),
    [
        ("A=1\n", Level.WARNING, "is not marked"),
        (None, Level.NOTE, "can't be seen"),
        ("ID_MM_DEVICE_IGNORE=1\nID_MM_PORT_IGNORE=1\n", Level.WARNING, "leaves all of this module"),
    ],
)
def test_the_mark_of_udev(world: World, properties: str | None, level: Level, words: str) -> None:
    world.le910()
    world.process(8, "ModemManager", "0::/")
    world.programs = {"udevadm": properties}
    findings = about(world.look("usb:1-1.4"), "manager")
    assert (level, True) in [(finding.level, words in finding.text) for finding in findings]


@pytest.mark.parametrize(
    ("address", "level", "words"),
    [
        ("10.20.30.40", Level.NOTE, "a private address"),
        ("172.31.0.1", Level.NOTE, "a private address"),
        ("192.168.1.2", Level.NOTE, "a private address"),
        ("100.64.0.1", Level.NOTE, "an address that the operator shares"),
        ("100.128.0.1", Level.OK, "wwan0 has 100.128.0.1"),
        ("172.32.0.1", Level.OK, "wwan0 has"),
        (None, Level.NOTE, "no IPv4 address"),
    ],
)
def test_the_address_towards_the_world(world: World, address: str | None, level: Level, words: str) -> None:
    world.route(
        "eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0",
        "eth9\t00000000\t00000000\t0002\t0\t0\t1\t00000000\t0\t0\t0",
        "broken",
        "wwan0\t00000000\t00000000\t0003\t0\t0\t700\t00000000\t0\t0\t0",
    )
    world.addresses = {"wwan0": address} if address else {}
    finding = only(world.look(), "network")
    assert finding.level is level
    assert words in finding.text


def test_the_preferred_route_comes_first(world: World) -> None:
    world.route(
        "wwan0\t00000000\t0\t0003\t0\t0\t700\t00000000\t0\t0\t0",
        "eth0\t00000000\t0\t0003\t0\t0\t100\t00000000\t0\t0\t0",
    )
    assert world.host.default_routes() == ("eth0", "wwan0")


@pytest.mark.parametrize(
    ("section", "values", "level", "words"),
    [
        ("module", {"state": "no SIM"}, Level.ERROR, "no SIM"),
        ("module", {"state": "absent", "detail": "/dev/x: no such device"}, Level.ERROR, "absent: /dev/x: no such"),
        ("module", {"state": "not registered"}, Level.WARNING, "not registered"),
        ("module", {"state": "levitating"}, Level.WARNING, "levitating"),
        ("module", {"state": "ready", "smsc": "+39", "sim": {"iccid": None, "tries": 3}}, Level.OK, "sim.tries 3"),
        ("sms", {"state": "shut"}, Level.ERROR, "nothing can be recorded"),
        ("sms", {"state": "waiting"}, Level.WARNING, "waiting for"),
        ("sms", {"state": "open"}, Level.OK, "state open"),
        ("mqtt", {"state": "on", "connected": False}, Level.WARNING, "no connection to the broker"),
        ("mqtt", {"state": "on", "connected": False, "detail": "refused"}, Level.WARNING, "to the broker: refused"),
        ("mqtt", {"state": "on", "another_device": True}, Level.WARNING, "another device uses this node's name"),
        ("mqtt", {"state": "on", "connected": True}, Level.OK, "connected yes"),
        ("mqtt", {"state": "off", "connected": False}, Level.OK, "connected no"),
        ("ledger", {"state": "disk full"}, Level.ERROR, "unusable: disk full"),
        ("ledger", {"state": "ok", "requests": 4}, Level.OK, "requests 4"),
        ("ledger", {"state": "ok", "aside": 0}, Level.OK, "aside 0"),
        ("ledger", {"state": "ok", "aside": 3}, Level.WARNING, "3 records for the broker set aside"),
        ("clock", {"known": False}, Level.WARNING, "not known"),
        ("clock", {"known": True}, Level.OK, "known yes"),
        ("new", {"a": [1, 2]}, Level.OK, "a 1 2"),
        ("plain", 7, Level.OK, "value 7"),
    ],
)
def test_what_the_daemon_says(world: World, section: str, values: object, level: Level, words: str) -> None:
    world.le910()
    finding = about(world.look(status={section: values}), section)[-1]
    assert finding.level is level
    assert words in finding.text
    assert bool(finding.advice) == (level is not Level.OK)


def test_empty_sections_are_left_out_and_long_ones_cut(world: World) -> None:
    report = world.look(status={"empty": {}, "long": {str(number): number + 1 for number in range(100)}})
    assert about(report, "empty") == []
    assert only(report, "long").text.count(",") == 39


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[Path]:
    """A port of the simulated module."""
    link = tmp_path / "sim-tty"
    arguments = [sys.executable, "-m", "atrund.sim", "--link", str(link), "--control", str(tmp_path / "sim")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"ready: {link}\n"
        yield link
        process.terminate()


def seen(tmp_path: Path) -> list[str]:
    """The command lines that the simulated module got."""
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(str(tmp_path / "sim"))
        control.sendall(b'{"op": "seen"}\n')
        answer = json.loads(control.makefile("rb").readline())
    return [line for port in answer["seen"] for line in port]


def test_a_free_port_is_asked_who_it_is(world: World, tmp_path: Path, simulated: Path) -> None:
    world.tree.tty(world.tree.device("1-1.4"), "05", "ttyUSB3", node=simulated)
    report = world.look("usb:1-1.4", probing=True)
    path = world.tree.dev / "ttyUSB3"
    texts = {finding.about: finding.text for finding in report.findings}
    assert re.fullmatch(rf"{path} answers: \S+, IMEI …\d{{4}}", texts["probe"])
    assert texts["sim"] == "the SIM is ready"
    assert texts["registration"] == "registered, home network"
    assert re.fullmatch(r"the SMS centre is \+\d+", texts["sms"])
    assert not re.search(r"\d{14}", json.dumps(report.as_json()["findings"]))
    assert seen(tmp_path) == ["AT", "AT+CGMM", "AT+CGSN", "AT+CPIN?", "AT+CREG?", "AT+CSCA?"]


def test_an_imei_is_found_by_asking(world: World, simulated: Path) -> None:
    world.tree.tty(world.tree.device("1-1.4"), "05", "ttyUSB3", node=simulated)
    path = world.tree.dev / "ttyUSB3"
    imei = probe.probe(path, lambda: "").value("+CGSN")
    report = world.look(f"imei:{imei}", probing=True)
    assert any("secondary) is the daemon's port" in finding.text for finding in about(report, "port"))
    report = world.look("imei:000000000000000", probing=True)
    assert [finding.level for finding in about(report, "port")] == [Level.NOTE, Level.WARNING]


def test_without_probe_no_port_is_opened(world: World, tmp_path: Path, simulated: Path) -> None:
    world.tree.tty(world.tree.device("1-1.4"), "05", "ttyUSB3", node=simulated)
    report = world.look("usb:1-1.4")
    assert about(report, "probe") == []
    assert seen(tmp_path) == []


def test_a_port_that_is_open_elsewhere_is_left_alone(world: World, tmp_path: Path, simulated: Path) -> None:
    world.tree.tty(world.tree.device("1-1.4"), "05", "ttyUSB3", node=simulated)
    world.process(9, "minicom", "0::/", simulated.resolve())
    report = world.look("usb:1-1.4", probing=True)
    assert only(report, "probe").text.endswith("was not asked: open in minicom (pid 9)")
    assert seen(tmp_path) == []


def test_a_port_of_modemmanagers_is_left_alone(world: World, tmp_path: Path, simulated: Path) -> None:
    world.tree.tty(world.tree.device("1-1.4"), "05", "ttyUSB3", node=simulated)
    world.process(8, "ModemManager", "0::/")
    world.programs = {"busctl": managed([["ttyUSB3", 3]])}
    assert only(world.look("usb:1-1.4", probing=True), "probe").text.endswith("not asked: ModemManager uses it")
    assert seen(tmp_path) == []


def test_who_opens_it_meanwhile_is_seen(world: World, tmp_path: Path, simulated: Path) -> None:
    world.tree.tty(world.tree.device("1-1.4"), "05", "ttyUSB3", node=simulated)
    calls = []

    def late() -> str:
        calls.append(1)
        return "open in minicom (pid 9)"

    assert probe.probe(world.tree.dev / "ttyUSB3", late) == Answers(refused="open in minicom (pid 9)")
    assert calls == [1]
    assert seen(tmp_path) == []


class Terminal:
    """A pseudo-terminal whose master answers by a script, a piece for each line that it gets."""

    def __init__(self, *script: bytes) -> None:
        self.got: list[bytes] = []
        self.master, self.slave = pty.openpty()
        tty.setraw(self.slave)
        self.path = Path(os.ttyname(self.slave))
        self._script = script
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        line = b""
        for piece in self._script:
            while not line.endswith(b"\r"):
                try:
                    line += os.read(self.master, 100)
                except OSError:  # the test has closed the other side
                    return
            self.got.append(line)
            line = b""
            os.write(self.master, piece)

    def close(self) -> None:
        os.close(self.slave)
        self._thread.join(10)
        os.close(self.master)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    made: list[Terminal] = []
    yield made
    for terminal in made:
        terminal.close()


def ask(terminals: list[Terminal], *script: bytes) -> Answers:
    terminals.append(Terminal(*script))
    return probe.probe(terminals[-1].path, lambda: "")


def test_echo_unsolicited_lines_and_errors_are_told_apart(terminals: list[Terminal]) -> None:
    answers = ask(
        terminals,
        b"AT\r\r\nOK\r\n",
        b"AT+CGMM\r\r\n+CREG: 2\r\n\r\nNO CARRIER\r\nLE910C1-EU\r\n\r\nOK\r\n",
        b'\r\n+CGSN: "353000111222333"\r\n\r\nOK\r\n',
        b"\r\nERROR\r\n",
        b"\r\n+CREG: 0,5\r\n\r\nOK\r\n",
        b'\r\n+CSCA: "",129\r\n\r\nOK\r\n',
    )
    assert answers.value("+CGMM") == "LE910C1-EU"
    assert answers.value("+CGSN") == '"353000111222333"'
    assert answers.errors == {"+CPIN?": "ERROR"}
    assert answers.value("+CREG?") == "0,5"
    assert answers.value("+CSCA?") == '"",129'
    assert [line for line in terminals[0].got if b"=" in line] == []


def test_a_numeric_result_code_is_an_end_too(terminals: list[Terminal]) -> None:
    assert not ask(terminals, b"0\r", b"LE910\r\n0\r").silent


def test_a_port_that_says_nothing(terminals: list[Terminal], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "WAKE_WAIT", 0.05)
    assert ask(terminals, b"", b"").silent
    assert terminals[0].got == [b"AT\r", b"AT\r"]


def test_after_an_answer_that_never_comes_nothing_more_is_asked(
    terminals: list[Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "QUESTIONS", (("+CGMM", 0.05), ("+CPIN?", 0.05)))
    answers = ask(terminals, b"\r\nOK\r\n", b"\r\nLE9")
    assert (answers.errors, answers.lines) == ({"+CGMM": "no answer"}, {})
    assert terminals[0].got == [b"AT\r", b"AT+CGMM\r"]


def test_a_flood_has_an_end(terminals: list[Terminal], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "ANSWER_MAX", 100)
    monkeypatch.setattr(probe, "WAKE_TRIES", 1)
    assert ask(terminals, b"x" * 200).silent


@pytest.mark.parametrize("how", ["exclusive", "locked"])
def test_a_port_that_is_taken_is_left_alone(terminals: list[Terminal], how: str) -> None:
    terminals.append(Terminal())
    if how == "exclusive":
        fcntl.ioctl(terminals[0].slave, termios.TIOCEXCL)
    else:
        fcntl.flock(terminals[0].slave, fcntl.LOCK_EX)
    refused = probe.probe(terminals[0].path, lambda: "").refused
    assert refused in {"in exclusive use", "in exclusive use (TIOCEXCL)", "locked by another program (flock)"}
    assert terminals[0].got == []


def test_what_can_not_be_opened_is_said(tmp_path: Path) -> None:
    assert probe.probe(tmp_path / "none", lambda: "").refused == "No such file or directory"
    file = tmp_path / "file"
    file.touch()
    assert "ioctl" in probe.probe(file, lambda: "").refused


@pytest.mark.parametrize(
    ("command", "line", "level", "words"),
    [
        ("+CPIN?", "+CPIN: SIM PIN", Level.ERROR, "asks for its PIN"),
        ("+CPIN?", "+CPIN: SIM PUK", Level.ERROR, "asks for SIM PUK"),
        ("+CREG?", "+CREG: 2,0", Level.WARNING, "not registered"),
        ("+CREG?", '+CREG: 2,3,"00A1","0B2C"', Level.ERROR, "denied"),
        ("+CREG?", "+CREG: 0,9", Level.WARNING, "registration state 9"),
        ("+CSCA?", '+CSCA: "",129', Level.WARNING, "no SMS centre"),
        ("+CSCA?", '+CSCA: "+39349",145', Level.OK, "+39349"),
    ],
)
def test_answers_judged(command: str, line: str, level: Level, words: str) -> None:
    findings = list(judge_answers({Path("/dev/x"): Answers(lines={command: (line,)})}, ()))
    assert (level, True) in [(finding.level, words in finding.text) for finding in findings]


def test_sim_and_network_are_told_once_for_a_module(world: World) -> None:
    world.le910()
    ports = world.look().seen.ports
    answer = Answers(lines={"+CPIN?": ("+CPIN: READY",), "+CREG?": ("+CREG: 0,1",)})
    both = list(judge_answers({port.path: answer for port in ports[2:4]}, ports))
    assert [finding.about for finding in both] == ["probe", "sim", "registration", "probe"]
    silent = list(judge_answers({ports[2].path: replace(answer, silent=True)}, ports))
    assert [(finding.level, finding.about) for finding in silent] == [(Level.WARNING, "probe")]


def test_an_imei_is_masked() -> None:
    assert masked_imei('+CGSN: "353000111222333"') == "…2333"
    assert masked_imei("") == "unknown"


def test_the_worst_level_counts() -> None:
    assert worst([]) is Level.OK
    findings = [Finding(level, "x", "y") for level in (Level.NOTE, Level.ERROR, Level.OK)]
    assert worst(findings) is Level.ERROR


def test_programs_that_are_not_there_fail_or_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.run_program(("no-such-program-here",)) is None
    assert host.run_program(("false",)) is None
    assert host.run_program(("echo", "a\u00e9")) == "a\u00e9\n"
    monkeypatch.setattr(host, "PROGRAM_TIMEOUT", 0.05)
    assert host.run_program(("sleep", "30")) is None


def test_addresses_of_this_host() -> None:
    assert host.ipv4_address("lo") in {"127.0.0.1", None}
    assert host.ipv4_address("none-such") is None


def run_on(world: World, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(host, "Host", lambda: world.host)
    return main([*arguments])


def test_the_program_shows_lines_and_counts(
    world: World, serve: Serve, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.le910()
    status = {"module": {"state": "no SIM", "port": "usb:1-1.4"}, "clock": {"known": False, "\x1b[2J": 1}}
    server = serve(encode(StatusAnswer(status)))
    assert run_on(world, monkeypatch, "--socket", server.path, "doctor") == 1
    shown = capsys.readouterr().out
    assert "error    module   no SIM\n                  -> put a SIM in" in shown
    assert f"ok       port     {world.tree.dev}/ttyUSB3 (usb:1-1.4/05, secondary) is the daemon's port\n" in shown
    assert "\\x1b[2J 1" in shown
    assert shown.endswith("\n1 error and 1 warning\n")


def test_nothing_wrong_is_0(world: World, serve: Serve, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    world.le910()
    server = serve(encode(StatusAnswer({"module": {"state": "ready", "port": ["odd"]}})))
    assert run_on(world, monkeypatch, "--socket", server.path, "doctor", "--port", "usb:1-1.4") == 0
    assert capsys.readouterr().out.endswith("\nnothing is wrong\n")


def test_a_daemon_that_is_not_there_is_an_error_and_the_rest_is_shown(
    world: World, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world.le910()
    assert run_on(world, monkeypatch, "--socket", str(tmp_path / "none"), "doctor", "--json") == 1
    shown = json.loads(capsys.readouterr().out)
    assert (shown["level"], shown["daemon"]) == ("error", None)
    assert shown["findings"][0]["about"] == "daemon"
    assert shown["findings"][0]["advice"].startswith("Is it running? systemctl status atrund; Another socket ")
    assert shown["modules"][0]["usb"] == "1-1.4"


@pytest.mark.parametrize("piece", [encode(ErrorAnswer("no")), b"{}\n", b""])
def test_a_daemon_that_says_something_else(
    world: World, serve: Serve, capsys: Capture, monkeypatch: pytest.MonkeyPatch, piece: bytes
) -> None:
    words = {encode(ErrorAnswer("no")): "refused to tell", b"{}\n": "does not know", b"": "closed the connection"}
    assert run_on(world, monkeypatch, "--socket", serve(piece).path, "doctor") == 1
    assert words[piece] in capsys.readouterr().out


def test_a_wrong_name_is_wrong_usage(capsys: Capture) -> None:
    assert main(["doctor", "--port", "ttyUSB3"]) == 2
    assert "--port: 'ttyUSB3' is no port's name; did you mean /dev/ttyUSB3?" in capsys.readouterr().err


def test_the_help_tells_what_it_does_and_never_does(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["doctor", "--help"])
    shown = capsys.readouterr().out
    for words in ("It only reads", "AT+CSCA?", "exit codes:", "sudo atrunctl doctor", "--json"):
        assert words in shown
    assert doctor.DESCRIPTION.splitlines()[0] in shown


def test_starts_without_what_it_does_not_need() -> None:
    code = "import sys; from atrund.ctl.main import build; build(['doctor']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=30)
    heavy = {"dataclasses", "json", "socket", "subprocess", "atrund.control", "atrund.usb", "atrund.ctl.examine"}
    assert set(loaded.stdout.split()) & heavy == set()
