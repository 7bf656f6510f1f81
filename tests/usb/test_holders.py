# SPDX-License-Identifier: Apache-2.0
"""Who else is at the daemon's port, on hosts of the tests' own."""

import os
from pathlib import Path

import pytest

from atrund.usb.holders import RULE, others

NULL = Path("/dev/null")
"""A character device that is everywhere; its udev file would be c1:3."""


class World:
    def __init__(self, root: Path) -> None:
        self.proc, self.udev = root / "proc", root / "udev"
        self.proc.mkdir()
        self.udev.mkdir()
        (self.udev / "c1:3").write_text("S:null\nE:ID_VENDOR_ID=1bc7\n")

    def process(self, pid: int, name: str, *files: Path, unit: str = "") -> None:
        folder = self.proc / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "comm").write_text(name)
        (folder / "cmdline").write_text(f"/usr/bin/{name}\0")
        (folder / "cgroup").write_text(f"0::/system.slice/{unit}\n" if unit else "0::/\n")
        for number, file in enumerate(files):
            (folder / "fd" / str(number)).symlink_to(file)

    def others(self, path: Path = NULL) -> tuple[str, ...]:
        return others(path, proc=self.proc, udev=self.udev)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_nobody_is_nothing_to_say(world: World) -> None:
    world.process(7, "atrund", NULL, unit="atrund.service")
    world.process(os.getpid(), "python3", NULL)
    world.process(9, "bash", Path("/dev/zero"))
    assert world.others() == ()


def test_whoever_has_it_open_is_named_with_what_to_do(world: World) -> None:
    world.process(8, "ModemManager", NULL, unit="ModemManager.service")
    world.process(9, "gammu-smsd", NULL, unit="gammu-smsd.service")
    world.process(10, "minicom", NULL)
    stop = "systemctl stop gammu-smsd.service"
    assert world.others() == (
        f"ModemManager (pid 8, ModemManager.service) has /dev/null open as well: {RULE}",
        f"gammu-smsd (pid 9, gammu-smsd.service) has /dev/null open as well: {stop}, or give it another port",
        "minicom (pid 10) has /dev/null open as well: stop it, or give it another port",
    )


def test_a_manager_that_nothing_keeps_off_may_come(world: World) -> None:
    world.process(8, "ModemManager")
    assert world.others() == (
        f"ModemManager runs and is not kept off /dev/null, so it may send commands to it: {RULE}",
    )


@pytest.mark.parametrize("line", ["E:ID_MM_PORT_IGNORE=1\n", "S:x\nE:ID_MM_DEVICE_IGNORE=1\nE:OTHER=2\n"])
def test_one_that_is_kept_off_is_no_danger(world: World, line: str) -> None:
    world.process(8, "ModemManager")
    (world.udev / "c1:3").write_text(line)
    assert world.others() == ()


@pytest.mark.parametrize("line", ["E:ID_MM_PORT_IGNORE=0\n", "E:ID_MM_PORT_IGNORE=\n", "E:ID_MM_PORT_IGNORE_NOT=1\n"])
def test_a_mark_that_says_no_keeps_nobody_off(world: World, line: str) -> None:
    world.process(8, "ModemManager")
    (world.udev / "c1:3").write_text(line)
    assert len(world.others()) == 1


def test_without_udev_nobody_is_accused(world: World) -> None:
    world.process(8, "ModemManager")
    (world.udev / "c1:3").unlink()
    assert world.others() == ()


def test_a_port_that_is_not_there_has_nobody(world: World, tmp_path: Path) -> None:
    world.process(8, "ModemManager")
    assert world.others(tmp_path / "ttyUSB9") == ()


def test_without_proc_nothing_is_seen(world: World, tmp_path: Path) -> None:
    assert others(NULL, proc=tmp_path / "none", udev=world.udev) == ()
