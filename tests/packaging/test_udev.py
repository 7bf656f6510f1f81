# SPDX-License-Identifier: Apache-2.0
"""The udev rule: which port it takes from ModemManager, asked of the real udevadm about made-up devices."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from atrund.usb.compositions import COMPOSITIONS
from tests.support.mocked import DEVICE, PORTS, describe, is_ignored

UDEV = Path(__file__).parents[2] / "packaging" / "udev"
RULES = UDEV / "60-atrund.rules"

# udevadm test writes its database and its links: it gets a /run and a /dev of its own, and our rule in that /run.
IN_A_CORNER = """
mount -t tmpfs none /run && mkdir -p /run/udev/rules.d /run/dev/pts && cp "$1" /run/udev/rules.d/ &&
touch /run/dev/null && mount --bind /dev/null /run/dev/null && ln -s pts/ptmx /run/dev/ptmx &&
mount -t devpts -o newinstance,ptmxmode=0666 none /run/dev/pts && mount --rbind /run/dev /dev || exit 99
exec umockdev-run --device="$2" -- udevadm test --action="$3" "/sys$4" 2>&1
"""


def udev(device: Path, below: str, action: str = "add") -> str:
    """What udev makes of one of its ports."""
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", IN_A_CORNER, "sh", RULES, device, action, DEVICE + below],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "/run/udev/rules.d/60-atrund.rules" in done.stdout
    return done.stdout


@pytest.fixture
def module(tmp_path: Path) -> Path:
    if shutil.which("udevadm") is None:
        pytest.skip("no udevadm here: apt-get install udev umockdev")
    path = tmp_path / "module.umockdev"
    describe(path)
    return path


@pytest.mark.blackbox
@pytest.mark.parametrize("name", PORTS)
def test_the_secondary_port_alone_is_taken_from_modemmanager(module: Path, name: str) -> None:
    below, taken = PORTS[name]
    assert is_ignored(udev(module, below)) is taken


@pytest.mark.blackbox
def test_it_counts_on_a_change_too_and_a_removal_is_let_pass(module: Path) -> None:
    below = PORTS["secondary"][0]
    assert is_ignored(udev(module, below, "change"))
    assert not is_ignored(udev(module, below, "remove"))


@pytest.mark.blackbox
def test_the_port_stays_the_groups_that_it_was(module: Path) -> None:
    output = udev(module, PORTS["secondary"][0])
    assert re.search(r"ttyUSB3: .*/50-udev-default\.rules:\d+ GROUP", output)
    assert not re.search(r"60-atrund\.rules:\d+ (GROUP|MODE|OWNER|RUN)", output)


@pytest.mark.blackbox
@pytest.mark.parametrize(("vid", "pid"), [("1bc7", "1204"), ("1bc7", "ffff"), ("0403", "1201")])
def test_other_devices_are_let_be(module: Path, vid: str, pid: str) -> None:
    describe(module, vid=vid, pid=pid)
    assert not is_ignored(udev(module, PORTS["secondary"][0]))


def test_the_rule_is_that_of_the_compositions() -> None:
    printed = subprocess.run([UDEV / "make-rules"], check=True, capture_output=True, text=True, timeout=30).stdout
    assert RULES.read_text(encoding="utf-8") == printed, "run packaging/udev/make-rules --write"
    rule = re.compile(r'^ENV\{ID_MODEL_ID\}=="(\w+)", ENV\{ID_USB_INTERFACE_NUM\}=="(\w+)", (.*)$', re.MULTILINE)
    assert rule.findall(printed) == [
        (known.pid, known.secondary, 'ENV{ID_MM_PORT_IGNORE}="1"') for known in COMPOSITIONS if known.secondary
    ]


def test_the_rule_never_takes_a_whole_device_and_starts_nothing() -> None:
    lines = [line for line in RULES.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert not any(word in line for line in lines for word in ("DEVICE_IGNORE", "RUN", "PROGRAM", "ATTRS", "GROUP"))


@pytest.mark.blackbox
def test_the_ports_of_the_rule_are_those_that_are_named(module: Path) -> None:
    code = "from atrund.usb.sysfs import snapshot; print(*((p.path, p.role.value, *p.controls) for p in snapshot()))"
    program = ["umockdev-run", f"--device={module}", "--", sys.executable, "-c", code]
    printed = subprocess.run(
        program, check=True, capture_output=True, text=True, timeout=30, cwd=UDEV.parents[1]
    ).stdout
    assert re.findall("ttyUSB[0-9]'?\\)?, '([a-z]+)'", printed) == ["gnss", "primary", "secondary"]
    assert printed.count("cdc-wdm0") == 3
