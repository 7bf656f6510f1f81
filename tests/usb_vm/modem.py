# SPDX-License-Identifier: Apache-2.0
"""A USB modem with the ids and interfaces of an LE910Cx, on the kernel's dummy controller, around the simulated module.

A function of FunctionFS (Linux, Documentation/usb/functionfs.rst), because the kernel's own serial gadget refuses the
requests by which the host's driver `option` sets DTR and RTS.
"""

import contextlib
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

GADGET: Final = Path("/sys/kernel/config/usb_gadget/modem")
FILES: Final = Path("/run/modem")
"""Where the function's control file and endpoints are."""
VENDOR: Final = "1bc7"
PRODUCT: Final = "1201"
SERIAL: Final = "0123456789ABCDEF"

DIAGNOSTIC, ADB, NETWORK, GNSS, PRIMARY, SECONDARY = range(6)
PORTS: Final = (DIAGNOSTIC, GNSS, PRIMARY, SECONDARY)
"""The interfaces with endpoints; `option` leaves the second and third to others."""

# Linux, uapi/linux/usb/functionfs.h
_DESCRIPTORS_V2, _STRINGS = 3, 2
_HAS_FULL_SPEED, _HAS_HIGH_SPEED = 1, 2
_ENABLE, _DISABLE, _SETUP = 2, 3, 4
_EVENT: Final = struct.Struct("<BBHHHBxxx")

_USB_DT_INTERFACE, _USB_DT_ENDPOINT, _VENDOR_SPECIFIC, _BULK = 4, 5, 0xFF, 2


class Modem:
    """It is there, and not plugged in yet. The simulated module runs on, plugged in or not."""

    def __init__(self) -> None:
        _describe()
        self._plugged = threading.Event()
        self._control = os.open(FILES / "ep0", os.O_RDWR)
        os.write(self._control, _descriptors())
        os.write(self._control, struct.pack("<IIII", _STRINGS, 16, 0, 0))
        self._start(self._answer_requests)

    def plug(self) -> None:
        """Plug it in."""
        (GADGET / "UDC").write_text("dummy_udc.0")

    def unplug(self) -> None:
        """Pull it out."""
        (GADGET / "UDC").write_text("\n")

    @contextlib.contextmanager
    def module(self, *options: str) -> Iterator[None]:
        """Run the simulated module behind the AT ports."""
        # The first one is the port of a module's unsolicited codes.
        links = {number: Path(f"/run/module-{number}") for number in (SECONDARY, PRIMARY)}
        words = [word for link in links.values() for word in ("--link", str(link))]
        command = [sys.executable, "-m", "atrund.sim", *words, *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as module:
            try:
                assert module.stdout is not None
                for _ in links:
                    assert module.stdout.readline().startswith(b"ready"), "the simulated module"
                for number, link in links.items():
                    self._wire(number, os.open(link, os.O_RDWR | os.O_NOCTTY))
                yield
            finally:
                module.terminate()

    def _wire(self, number: int, module: int) -> None:
        """Carry bytes both ways between an interface and a port of the simulated module."""
        first = 1 + 2 * PORTS.index(number)
        to_host = os.open(FILES / f"ep{first}", os.O_RDWR)
        from_host = os.open(FILES / f"ep{first + 1}", os.O_RDWR)
        self._start(_carry_for_ever, from_host, module)
        self._start(_carry_for_ever, module, to_host, self._plugged)

    def _answer_requests(self) -> None:
        """Take note of what happens, and take whatever the host sets: the control lines are nobody's here."""
        while True:
            kind, _, _, _, length, event = _EVENT.unpack(os.read(self._control, _EVENT.size))
            if event == _SETUP:
                with contextlib.suppress(OSError):
                    # A question is not answered: reading where writing was expected refuses it.
                    os.read(self._control, length if not kind & 0x80 else 0)
            elif event == _ENABLE:
                self._plugged.set()
            elif event == _DISABLE:
                self._plugged.clear()

    @staticmethod
    def _start(work: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()


def _carry_for_ever(source: int, target: int, while_: threading.Event | None = None) -> None:
    """What comes while `while_` is not set, or while the cable is pulled out, is lost."""
    while True:
        try:
            data = os.read(source, 512)
            if while_ is None or while_.is_set():
                os.write(target, data)
        except OSError:  # ESHUTDOWN: pulled out; the next read waits until it is plugged in again
            time.sleep(0.01)


def _describe() -> None:
    """Tell the kernel what modem it is."""
    strings = GADGET / "strings/0x409"
    function = GADGET / "functions/ffs.modem"
    configuration = GADGET / "configs/c.1"
    for folder in (GADGET, strings, function, configuration):
        folder.mkdir()
    for path, text in {
        GADGET / "idVendor": f"0x{VENDOR}",
        GADGET / "idProduct": f"0x{PRODUCT}",
        strings / "manufacturer": "Telit",
        strings / "product": "LE910C1-EU",
        strings / "serialnumber": SERIAL,
    }.items():
        path.write_text(text)
    (configuration / "ffs.modem").symlink_to(function)
    FILES.mkdir()
    subprocess.run(["mount", "-t", "functionfs", "modem", FILES], check=True, timeout=10)


def _descriptors() -> bytes:
    """All interfaces, at full and at high speed (USB 2.0, 9.6.5 and 9.6.6; the largest bulk packets are of 5.8.3)."""
    count, speeds = 0, []
    for packet in (64, 512):
        described = []
        for number in range(6):
            ends = 2 if number in PORTS else 0
            described.append(struct.pack("<9B", 9, _USB_DT_INTERFACE, number, 0, ends, _VENDOR_SPECIFIC, 0, 0, 0))
            first = 1 + 2 * PORTS.index(number) if ends else 0
            described += [
                struct.pack("<4BHB", 7, _USB_DT_ENDPOINT, address, _BULK, packet, 0)
                for address in (0x80 | first, first + 1)[:ends]
            ]
        count = len(described)
        speeds.append(b"".join(described))
    body = struct.pack("<II", count, count) + b"".join(speeds)
    return struct.pack("<III", _DESCRIPTORS_V2, 12 + len(body), _HAS_FULL_SPEED | _HAS_HIGH_SPEED) + body
