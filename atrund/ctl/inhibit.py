# SPDX-License-Identifier: Apache-2.0
"""Has ModemManager leave a module alone for a while: its InhibitDevice, held by the program `mmcli`.

ModemManager ends an inhibition when whoever asked for it leaves the bus, so `mmcli` runs as long as it is wanted, and
ends with this program, however that ends (ModemManager reference, org.freedesktop.ModemManager1, InhibitDevice).
"""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from atrund.ctl.host import Host

PROMPT: Final = 10.0
"""Seconds for ModemManager to let go of a module: it closes its ports."""
MODEMS_MAX: Final = 16
"""Modems asked for, one program each."""
PR_SET_PDEATHSIG: Final = 1
"""Linux, prctl(2): the signal that the kernel sends when the parent has ended."""


class NotInhibitedError(Exception):
    """ModemManager was not told to leave the module alone. The text says why."""


class Inhibited:
    """ModemManager leaves the module of a port alone as long as the `with` block lasts; "" for no port does nothing.

    Raises `NotInhibitedError` on entering.
    """

    def __init__(self, path: str, host: Host | None = None) -> None:
        self._path = path
        self._host = host or Host()
        self._program: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if self._path:
            uid = uid_of(self._path, self._host)
            self._program = _start(uid)
            _await_success(self._program, uid)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._program is not None:
            _end(self._program)


def uid_of(path: str, host: Host) -> str:
    """Return what ModemManager knows the module of a port by. Raises `NotInhibitedError`."""
    name = Path(path).resolve().name
    for modem in _modems(host):
        generic = modem["generic"]
        if name in {port.partition(" ")[0] for port in generic["ports"]}:
            return str(generic["device"])
    device = (host.sys / "class/tty" / name / "device").resolve()
    for folder in (device, *device.parents):  # ModemManager's Device is the USB device's folder, unless udev says more
        if (folder / "idVendor").exists():
            return str(folder)
    raise NotInhibitedError(f"{path}: ModemManager knows no modem with this port, and it is no port of a USB device")


def _modems(host: Host) -> Iterator[dict[str, dict[str, list[str]]]]:
    """Yield what mmcli tells of each modem; nothing of what it tells in another shape."""
    try:
        listed = json.loads(host.run(("mmcli", "--output-json", "--list-modems")) or "{}").get("modem-list", [])
        for modem in listed[:MODEMS_MAX]:
            told = json.loads(host.run(("mmcli", "--output-json", "--modem", modem)) or "{}").get("modem")
            if isinstance(told, dict) and {"device", "ports"} <= told.get("generic", {}).keys():
                yield told
    except (ValueError, TypeError, AttributeError):
        return


def _start(uid: str) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(  # noqa: S603 - a fixed program, and an argument of its own
            ["mmcli", f"--inhibit-device={uid}"],  # noqa: S607 - as the host's PATH has it
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C is for the command
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - no thread runs yet
        )
    except OSError as error:
        raise NotInhibitedError(f"mmcli can't be run ({error.strerror}); it comes with ModemManager") from None


def _die_with_parent() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _await_success(program: "subprocess.Popen[bytes]", uid: str) -> None:
    """Wait for mmcli to say that the device is inhibited."""
    import selectors

    assert program.stdout is not None  # noqa: S101 - it was asked for
    with selectors.DefaultSelector() as selector:
        selector.register(program.stdout, selectors.EVENT_READ)
        line = program.stdout.readline() if selector.select(PROMPT) else b""
    said = line.decode("utf-8", "replace").strip()
    if not said or said.startswith("error"):
        _end(program)
        raise NotInhibitedError(f"ModemManager does not leave {uid} alone: {said or 'mmcli said nothing'}")


def _end(program: "subprocess.Popen[bytes]") -> None:
    """Have mmcli leave; ModemManager takes the module up again."""
    program.send_signal(signal.SIGINT)
    try:
        program.wait(PROMPT)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()
    if program.stdout is not None:
        program.stdout.close()
