# SPDX-License-Identifier: Apache-2.0
"""Who else has a port open, or may come to it: what /proc and udev's own files show (MOD-1, MOD-8).

Everything is read, nothing is opened that is a device. What may not be read is left out: without root only the own
user's processes show what they have open.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROGRAM: Final = "atrund"
UNIT: Final = "atrund.service"
"""The daemon's program, and its systemd unit."""

MANAGER: Final = "ModemManager"

KEPT_OFF: Final = frozenset({"ID_MM_PORT_IGNORE", "ID_MM_DEVICE_IGNORE"})
"""udev properties by which ModemManager leaves a port alone."""

PROC: Final = Path("/proc")
UDEV: Final = Path("/run/udev/data")


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has a port open; `unit` is its systemd unit, empty where it has none."""

    pid: int
    process: str
    unit: str
    daemon: bool
    """Whether it is atrund."""

    def __str__(self) -> str:
        return f"{self.process} (pid {self.pid}{', ' + self.unit if self.unit else ''})"


@dataclass(frozen=True, slots=True)
class Holders:
    """Who has which port open. `complete`: nobody's open files were hidden from this user."""

    by_path: dict[Path, tuple[Holder, ...]]
    complete: bool

    def of(self, path: Path) -> tuple[Holder, ...]:
        """Return who has this port open, as far as it is seen."""
        return self.by_path.get(path, ())


def holders(paths: Iterable[Path], proc: Path = PROC) -> Holders:
    """Return who has which of these ports open: one look at all open files of all processes."""
    wanted = {os.path.realpath(path): path for path in paths}
    found: dict[Path, list[Holder]] = {}
    complete = True
    for process in _processes(proc):
        try:
            names = os.listdir(process / "fd")  # noqa: PTH208 - as in _target
        except PermissionError:
            complete = False
            continue
        except OSError:  # it has ended
            continue
        targets = {_target(process / "fd" / name) for name in names}
        for target in targets & wanted.keys():
            found.setdefault(wanted[target], []).append(_holder(process))
    return Holders({path: tuple(those) for path, those in found.items()}, complete)


def running(name: str, proc: Path = PROC) -> bool:
    """Return whether a process of that name is seen to run (the kernel keeps 15 characters of it)."""
    return any(_text(process / "comm") == name[:15] for process in _processes(proc))


def others(path: Path, *, proc: Path = PROC, udev: Path = UDEV) -> tuple[str, ...]:
    """Return what is seen of others on the daemon's port, each with what to do; nothing of a port that is away."""
    try:
        number = path.stat().st_rdev
    except OSError:
        return ()
    seen = []
    for holder in holders((path,), proc).of(path):
        if not holder.daemon and holder.pid != os.getpid():
            stop = f"systemctl stop {holder.unit}" if holder.unit.endswith(".service") else "stop it"
            keep = RULE if holder.process == MANAGER else f"{stop}, or give it another port"
            seen.append(f"{holder} has {path} open as well: {keep}")
    if not seen and running(MANAGER, proc) and not _kept_off(number, udev):
        seen.append(f"{MANAGER} runs and is not kept off {path}, so it may send commands to it: {RULE}")
    return tuple(seen)


RULE: Final = (
    "set ID_MM_PORT_IGNORE for the port as packaging/udev/60-atrund.rules does, "
    "then replug the module or restart ModemManager"
)
"""What keeps ModemManager off."""


def _kept_off(number: int, udev: Path) -> bool:
    """Whether udev's properties of a character device keep ModemManager off; True where they can't be read."""
    try:
        lines = (udev / f"c{os.major(number)}:{os.minor(number)}").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    properties = (line[2:].partition("=") for line in lines.splitlines() if line.startswith("E:"))
    return any(name in KEPT_OFF and value not in {"", "0"} for name, _, value in properties)


def _processes(proc: Path) -> Iterator[Path]:
    try:
        yield from sorted((entry for entry in proc.iterdir() if entry.name.isdecimal()), key=_number)
    except OSError:
        return


def _holder(process: Path) -> Holder:
    unit = ""
    for line in _text(process / "cgroup").splitlines():
        names = [name for name in line.split("/") if name.endswith((".service", ".scope"))]
        unit = names[-1] if names else unit
    name = _text(process / "comm")
    daemon = unit == UNIT or name == PROGRAM or _runs_atrund(_text(process / "cmdline").split("\0"))
    return Holder(int(process.name), name or "?", unit, daemon)


def _runs_atrund(arguments: list[str]) -> bool:
    """Whether a command line starts the daemon: its script, or `python -m atrund`."""
    return (
        Path(arguments[0]).name == PROGRAM
        or arguments[1:3] == ["-m", PROGRAM]
        or (len(arguments) > 1 and Path(arguments[1]).name == PROGRAM)
    )


def _target(descriptor: Path) -> str:
    try:
        return os.readlink(descriptor)  # noqa: PTH115 - a Path for each of thousands is slow, and no path is needed
    except OSError:
        return ""


def _number(process: Path) -> int:
    return int(process.name)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
