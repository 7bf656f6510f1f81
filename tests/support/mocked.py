# SPDX-License-Identifier: Apache-2.0
"""A module on USB as umockdev makes it up, and what udev's rules are to say of it. The standard library is enough."""

import re
from pathlib import Path
from typing import Final

DEVICE: Final = "/devices/pci0000:00/0000:00:14.0/usb1/1-1"

PORTS: Final = {
    "gnss": ("/1-1:1.3/ttyUSB1/tty/ttyUSB1", False),
    "primary": ("/1-1:1.4/ttyUSB2/tty/ttyUSB2", False),
    "secondary": ("/1-1:1.5/ttyUSB3/tty/ttyUSB3", True),
    "control": ("/1-1:1.2/usbmisc/cdc-wdm0", False),
    "network": ("/1-1:1.2/net/wwan0", False),
    "device": ("", False),
}
"""The device below `DEVICE` of each port, and whether it is taken from ModemManager."""


def describe(path: Path, *, vid: str = "1bc7", pid: str = "1201") -> None:
    """Write an LE910C1's ports as umockdev reads them."""
    lines = [f"P: {DEVICE}\nE: SUBSYSTEM=usb\nE: DEVTYPE=usb_device\nA: idVendor={vid}\nA: idProduct={pid}"]
    lines[0] += "\nA: serial=0123456789ABCDEF\nA: product=LE910C1-EU\nA: manufacturer=Telit"
    for interface in ("02", "03", "04", "05"):
        folder = f"{DEVICE}/1-1:1.{int(interface)}"
        lines.append(f"P: {folder}\nE: SUBSYSTEM=usb\nE: DEVTYPE=usb_interface\nA: bInterfaceClass=ff")
        lines[-1] += f"\nA: bInterfaceNumber={interface}"
    for interface, minor in (("03", 1), ("04", 2), ("05", 3)):
        name = f"ttyUSB{minor}"
        folder = f"{DEVICE}/1-1:1.{int(interface)}/{name}"
        lines.append(f"P: {folder}\nE: SUBSYSTEM=usb-serial")
        lines.append(f"P: {folder}/tty/{name}\nN: {name}\nE: SUBSYSTEM=tty\nE: DEVNAME=/dev/{name}")
        lines[-1] += f"\nE: MAJOR=188\nE: MINOR={minor}\nA: dev=188:{minor}"
    lines.append(f"P: {DEVICE}/1-1:1.2/usbmisc/cdc-wdm0\nN: cdc-wdm0\nE: SUBSYSTEM=usbmisc\nE: DEVNAME=/dev/cdc-wdm0")
    lines.append(f"P: {DEVICE}/1-1:1.2/net/wwan0\nE: SUBSYSTEM=net\nE: INTERFACE=wwan0\nE: IFINDEX=4")
    path.write_text("\n\n".join(lines) + "\n")


def is_ignored(output: str) -> bool:
    """Whether ModemManager leaves a port alone, by what `udevadm test` printed; it never does the whole device."""
    assert not re.search(r"^\s*ID_MM_DEVICE_IGNORE=", output, re.MULTILINE)
    return re.search(r"^\s*ID_MM_PORT_IGNORE=1$", output, re.MULTILINE) is not None
