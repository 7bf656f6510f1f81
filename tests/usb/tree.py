# SPDX-License-Identifier: Apache-2.0
"""A made-up /sys and /dev with USB devices, laid out as Linux does it."""

from collections.abc import Mapping
from pathlib import Path

PCI = "devices/pci0000:00/0000:00:14.0/usb1"


class Tree:
    """`sys` and `dev` below a directory of the test's own."""

    def __init__(self, root: Path) -> None:
        self.sys = root / "sys"
        self.dev = root / "dev"
        for folder in (
            self.sys / "class/tty",
            self.sys / "bus/usb/devices",
            self.sys / PCI,
            self.dev / "serial/by-id",
        ):
            folder.mkdir(parents=True)

    def device(self, usb: str, *, vid: str = "1bc7", pid: str = "1201", serial: str = "", product: str = "") -> Path:
        """A USB device without interfaces; `usb` is its place."""
        folder = self.sys / PCI / usb
        folder.mkdir(parents=True)
        _write(folder, {"idVendor": vid, "idProduct": pid, "serial": serial, "product": product})
        (self.sys / "bus/usb/devices" / folder.name).symlink_to(folder)
        return folder

    def tty(self, device: Path, interface: str, name: str, *, link: str = "", node: Path | None = None) -> Path:
        """A serial port on an interface: ttyUSB has a usb-serial device of its own, ttyACM has none."""
        folder = self._interface(device, interface)
        below = folder / name / "tty" / name if name.startswith("ttyUSB") else folder / "tty" / name
        below.mkdir(parents=True)
        (self.sys / "class/tty" / name).symlink_to(below)
        path = self.dev / name
        if node is not None:
            path.symlink_to(node)
        else:
            path.touch()
        if link:
            (self.dev / "serial/by-id" / link).symlink_to(f"../../{name}")
        return path

    def net(self, device: Path, interface: str, name: str, *, flags: str = "0x1003", operstate: str = "up") -> None:
        """A network interface."""
        folder = self._interface(device, interface) / "net" / name
        folder.mkdir(parents=True)
        _write(folder, {"flags": flags, "operstate": operstate})

    def wdm(self, device: Path, interface: str, name: str) -> None:
        """A control channel."""
        (self._interface(device, interface) / "usbmisc" / name).mkdir(parents=True)

    def le910(self, usb: str = "1-1.4", *, first: int = 0, serial: str = "0123456789ABCDEF") -> Path:
        """An LE910C1 in its QMI composition: diagnostic, GNSS, primary, secondary, one more; from ttyUSB`first`."""
        device = self.device(usb, serial=serial, product="LE910C1-EU")
        for number, interface in enumerate(("00", "03", "04", "05", "06"), first):
            link = f"usb-Telit_LE910C1-EU_{serial}-if{interface}-port0"
            self.tty(device, interface, f"ttyUSB{number}", link=link)
        self.wdm(device, "02", f"cdc-wdm{first}")
        self.net(device, "02", f"wwan{first}")
        return device

    def _interface(self, device: Path, interface: str) -> Path:
        folder = device / f"{device.name}:1.{int(interface, 16)}"
        folder.mkdir(exist_ok=True)
        _write(folder, {"bInterfaceNumber": interface})
        return folder


def _write(folder: Path, attributes: Mapping[str, str]) -> None:
    for name, text in attributes.items():
        if text:
            (folder / name).write_text(f"{text}\n")
