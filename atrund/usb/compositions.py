# SPDX-License-Identifier: Apache-2.0
"""Telit's USB compositions: which interface of which product id is which serial port. Data, and nothing read.

A composition is chosen with AT#USBCFG and has a product id of its own. Numbers are bInterfaceNumber as sysfs and udev
write it: two lower-case hexadecimal digits.
"""

import enum
from dataclasses import dataclass
from typing import Final

TELIT: Final = "1bc7"
"""Telit's USB vendor id (the USB-IF's list; usb.ids of the Linux USB project)."""

MM_1_20: Final = "ModemManager 1.20.4, 77-mm-telit-port-types.rules"
MM_MAIN: Final = "ModemManager main branch at 4d013cd1, 77-mm-telit-port-types.rules"
"""Where the port roles of a composition were read: in the port type hints that ModemManager gives to udev."""


class Role(enum.Enum):
    """What a serial port of a module is for."""

    PRIMARY = "primary"
    SECONDARY = "secondary"
    GNSS = "gnss"
    DIAGNOSTIC = "diagnostic"

    @property
    def at(self) -> bool:
        """Whether the port takes AT commands."""
        return self in {Role.PRIMARY, Role.SECONDARY}


@dataclass(frozen=True, slots=True)
class Composition:
    """One product id: what it is, the interfaces of its ports (None where there is none), and who says so."""

    pid: str
    models: str
    primary: str
    secondary: str | None
    gnss: str | None
    diagnostic: str | None
    source: str
    vid: str = TELIT

    def role(self, interface: str) -> Role | None:
        """Return what the port on this interface is for; None where that is not known."""
        numbers = {
            self.primary: Role.PRIMARY,
            self.secondary: Role.SECONDARY,
            self.gnss: Role.GNSS,
            self.diagnostic: Role.DIAGNOSTIC,
        }
        return numbers.get(interface)

    def interface(self, role: Role) -> str | None:
        """Return the interface of the AT port with this role; None where the composition has none."""
        return self.primary if role is Role.PRIMARY else self.secondary if role is Role.SECONDARY else None


# Product id, models, then the interfaces: primary AT, secondary AT, GNSS (NMEA), diagnostic.
COMPOSITIONS: Final = tuple(
    Composition(pid, models, primary, secondary, gnss, diagnostic, source)
    for pid, models, primary, secondary, gnss, diagnostic, source in (
        ("1003", "UC864-E, -K, -WD", "00", "02", None, None, MM_1_20),
        ("1004", "UC864-G", "00", "03", "02", None, MM_1_20),
        ("1005", "CC864-DUAL", "00", "03", "02", None, MM_1_20),
        ("1006", "CC864-SINGLE, CC864-KPS", "00", "02", None, None, MM_1_20),
        ("1010", "DE910-DUAL", "03", "02", "01", None, MM_1_20),
        ("1011", "CE910-DUAL", "01", None, None, None, MM_1_20),
        ("1031", "LE910C1-EUX", "01", "02", None, "00", MM_1_20),
        ("1033", "LE910C1-EUX (ECM)", "01", "02", None, "00", MM_1_20),
        ("1040", "LE922, LM9x0", "04", "05", None, "00", MM_1_20),
        ("1041", "LE922, LM9x0 (MBIM)", "05", "06", None, "00", MM_1_20),
        ("1050", "FN980", "04", "05", None, "00", MM_1_20),
        ("1051", "FN980 (MBIM)", "05", "06", None, "00", MM_1_20),
        ("1060", "LN920", "04", "05", "03", "00", MM_1_20),
        ("1061", "LN920 (MBIM)", "05", "06", "04", "00", MM_1_20),
        ("1070", "FN990", "04", "05", "03", "00", MM_MAIN),
        ("1071", "FN990 (MBIM)", "05", "06", "04", "00", MM_MAIN),
        ("10a0", "FN920C04 (rmnet, GNSS)", "02", None, "01", "03", MM_MAIN),
        ("10a2", "FN920C04 (MBIM, GNSS)", "03", None, "02", "04", MM_MAIN),
        ("10a4", "FN920C04 (rmnet)", "01", "02", None, "03", MM_MAIN),
        ("10a7", "FN920C04 (MBIM)", "02", "03", None, "04", MM_MAIN),
        ("10a9", "FN920C04 (rmnet, one AT port)", "01", None, None, "02", MM_MAIN),
        ("10aa", "FN920C04 (MBIM, one AT port)", "02", None, None, "03", MM_MAIN),
        ("10b0", "FE990B40 (rmnet)", "02", "03", "01", "05", MM_MAIN),
        ("10b1", "FE990B40 (MBIM)", "03", "04", "02", "06", MM_MAIN),
        ("10c0", "FE910C04 (rmnet, GNSS)", "02", None, "01", "03", MM_MAIN),
        ("10c2", "FE910C04 (MBIM, GNSS)", "03", None, "02", "04", MM_MAIN),
        ("10c4", "FE910C04 (rmnet)", "01", "02", None, "03", MM_MAIN),
        ("10c6", "FE910C04 (MBIM)", "02", "03", None, "04", MM_MAIN),
        ("10c8", "FE910C04 (rmnet, one AT port)", "01", None, None, "02", MM_MAIN),
        ("10c9", "FE910C04 (MBIM, one AT port)", "02", None, None, "03", MM_MAIN),
        ("10d0", "FN990B40 (rmnet)", "02", "03", "01", "05", MM_MAIN),
        ("10d1", "FN990B40 (MBIM)", "03", "04", "02", "06", MM_MAIN),
        ("1101", "ME910C1", "01", "02", None, "00", MM_1_20),
        ("110a", "MEx10G1", "01", "02", None, "00", MM_1_20),
        ("1201", "LE910Cx (QMI)", "04", "05", "03", "00", MM_1_20),
        ("1204", "LE910Cx (MBIM)", "05", "06", "04", "00", MM_1_20),
        ("3000", "FN912C04 (GNSS)", "02", None, "01", "03", MM_MAIN),
        ("3001", "FN912C04", "01", None, None, "02", MM_MAIN),
        ("7010", "LE910S1 (RNDIS)", "04", "03", None, "02", MM_1_20),
        ("7011", "LE910S1 (ECM)", "04", "03", None, "02", MM_1_20),
        ("7020", "LE910Q1, ELS63 (RNDIS)", "06", "02", None, "04", MM_MAIN),
        ("7021", "LE910Q1, ELS63 (ECM)", "06", "02", None, "04", MM_MAIN),
    )
)


def composition(vid: str, pid: str) -> Composition | None:
    """Return the composition with these ids (four lower-case hexadecimal digits each), if it is known."""
    return _BY_IDS.get((vid, pid))


_BY_IDS: Final = {(known.vid, known.pid): known for known in COMPOSITIONS}
