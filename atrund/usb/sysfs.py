# SPDX-License-Identifier: Apache-2.0
"""What sysfs shows of USB modules and their serial ports. It is read only, and no port is opened."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from atrund.usb.compositions import TELIT, Role, composition

SYS: Final = Path("/sys")
DEV: Final = Path("/dev")

ATTRIBUTE_MAX: Final = 4096
"""Bytes read of an attribute: sysfs gives a page at most, and a USB string is at most 126 characters long."""

IFF_UP: Final = 0x1
"""Linux, net/if.h: an administrator (or ModemManager) switched the interface on."""


@dataclass(frozen=True, slots=True)
class UsbPort:
    """A serial port on USB, and what else its USB device has. Texts that the device does not give are empty."""

    path: Path
    vid: str
    pid: str
    serial: str
    usb: str
    """The device's place: bus, dash, port numbers, such as `1-1.4`."""
    interface: str
    """bInterfaceNumber: two lower-case hexadecimal digits."""
    product: str = ""
    links: tuple[Path, ...] = ()
    """Stable names in /dev/serial: those by id first."""
    networks: tuple[str, ...] = ()
    """Network interfaces of the same USB device."""
    controls: tuple[Path, ...] = ()
    """Control channels (cdc-wdm) of the same USB device."""
    network_up: bool = False
    """Whether one of the network interfaces carries data, or may."""

    @property
    def role(self) -> Role | None:
        """What the port is for, by its composition; None where that is not known."""
        known = composition(self.vid, self.pid)
        return None if known is None else known.role(self.interface)

    @property
    def name(self) -> str:
        """The name by place, that `resolve` takes: `usb:1-1.4/05`."""
        return f"usb:{self.usb}/{self.interface}"


@dataclass(frozen=True, slots=True)
class UsbDevice:
    """A USB device."""

    vid: str
    pid: str
    serial: str
    usb: str
    product: str = ""


def snapshot(root: Path = SYS, dev: Path = DEV) -> tuple[UsbPort, ...]:
    """Return every ttyUSB and ttyACM port on USB, in order of place and interface.

    `root` stands for /sys, `dev` for /dev. It reads some dozen small files for each port: a matter of milliseconds, and
    for a thread where a loop runs. What vanishes while it is read is left out; nothing is raised for it.
    """
    links = _links(dev / "serial")
    found = []
    for entry in _entries(root / "class" / "tty"):
        if not re.fullmatch(r"tty(USB|ACM)[0-9]+", entry.name):
            continue
        interface = _above(entry.resolve(), "bInterfaceNumber", root)
        device = interface and _above(interface.parent, "idVendor", root)
        if interface is None or device is None:
            continue
        path = dev / entry.name
        networks = tuple(sorted(_below(device, "net")))
        found.append(
            UsbPort(
                path=path,
                vid=_attribute(device / "idVendor").lower(),
                pid=_attribute(device / "idProduct").lower(),
                serial=_attribute(device / "serial"),
                usb=device.name,
                interface=_attribute(interface / "bInterfaceNumber").lower(),
                product=_attribute(device / "product"),
                links=tuple(links.get(path.name, ())),
                networks=tuple(network.name for network in networks),
                controls=tuple(
                    dev / control.name for control in sorted(_below(device, "usbmisc")) if "wdm" in control.name
                ),
                network_up=any(_is_up(network) for network in networks),
            )
        )
    return tuple(sorted(found, key=lambda port: (_place(port.usb), port.interface, port.path)))


def modules(root: Path = SYS) -> tuple[UsbDevice, ...]:
    """Return every USB device of Telit's, in order of place, whether a driver made serial ports for it or not."""
    devices = [
        UsbDevice(
            vid=TELIT,
            pid=_attribute(entry / "idProduct").lower(),
            serial=_attribute(entry / "serial"),
            usb=entry.name,
            product=_attribute(entry / "product"),
        )
        for entry in _entries(root / "bus" / "usb" / "devices")
        if _attribute(entry / "idVendor").lower() == TELIT
    ]
    return tuple(sorted(devices, key=lambda device: _place(device.usb)))


def _is_up(network: Path) -> bool:
    """Whether an interface carries data, or may: point-to-point ones say "unknown" even while they do."""
    try:
        flags = int(_attribute(network / "flags"), 16)
    except ValueError:
        return False
    return bool(flags & IFF_UP) and _attribute(network / "operstate") in {"up", "unknown"}


def _below(device: Path, kind: str) -> Iterator[Path]:
    """The entries of class `kind` at the interfaces of a USB device; those of devices behind it (a hub) are not its."""
    for interface in _entries(device):
        if interface.name.startswith(f"{device.name}:"):
            yield from _entries(interface / kind)


def _above(path: Path, attribute: str, root: Path) -> Path | None:
    """The nearest directory from `path` upwards, below `root`, that has this attribute."""
    top = root.resolve()
    for candidate in (path, *path.parents):
        if not candidate.is_relative_to(top):
            return None
        if (candidate / attribute).is_file():
            return candidate
    return None


def _links(serial: Path) -> dict[str, list[Path]]:
    """The links in /dev/serial, by the name of the device that each leads to."""
    links: dict[str, list[Path]] = {}
    for folder in ("by-id", "by-path"):
        for link in sorted(_entries(serial / folder)):
            try:
                links.setdefault(link.readlink().name, []).append(link)
            except OSError:
                continue
    return links


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _attribute(path: Path) -> str:
    """The text of an attribute without its end of line; empty where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, ATTRIBUTE_MAX).decode("utf-8", "replace").strip()
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def _place(usb: str) -> tuple[int, ...]:
    """A place as numbers, so that 1-10 comes behind 1-2."""
    return tuple(int(number) for number in re.findall("[0-9]+", usb))
