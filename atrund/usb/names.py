# SPDX-License-Identifier: Apache-2.0
"""How a port is named in the configuration, and which of the ports that are there it is (MOD-2).

    /dev/serial/by-id/…            a path
    usb:1-1.4                      by place: bus, dash, port numbers
    usb:1bc7:1201                  by vendor and product id
    usb:1bc7:1201:SERIAL           and by serial number
    imei:353xxxxxxxxxxxx           by the module's IMEI

Behind all but a path may stand which port of the module: `/05` (its interface number), `/primary` or `/secondary`.
Without it the secondary AT port is meant, for the primary one is ModemManager's. A name that fits several modules is an
error, never the first of them.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from atrund.usb.compositions import TELIT, Role, composition
from atrund.usb.sysfs import UsbPort

NAME_MAX: Final = 4096
"""Longest name, in characters: Linux's longest path (PATH_MAX)."""

LISTED_MAX: Final = 8
"""Ports that an error lists; a box with more modules has a better place to show them."""

IMEI_DIGITS: Final = 14
"""Digits of an IMEI that tell modules apart; the 15th is a check digit or a spare 0 (3GPP TS 23.003 6.2.1)."""

RIGHT: Final = (
    "a path such as /dev/serial/by-id/…, usb:1-1.4, usb:1bc7:1201, usb:1bc7:1201:SERIAL or imei:…, "
    "with /05, /primary or /secondary behind it unless it is a path"
)


class PortNameError(ValueError):
    """A name that is none, or that fits no port or several. The text says what would be right, or lists what there is.

    `missing`: the name is right and nothing that it fits is there; it may come.
    """

    def __init__(self, text: str, *, missing: bool = False) -> None:
        super().__init__(text)
        self.missing = missing


Which = Role | str | None
"""Which port of a module: its role, its interface number, or (None) the secondary AT port."""


@dataclass(frozen=True, slots=True)
class ByPath:
    """A port by its path."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class ByPlace:
    """A port by the place of its USB device, such as `1-1.4`."""

    usb: str
    which: Which = None

    def __str__(self) -> str:
        return f"usb:{self.usb}{_suffix(self.which)}"


@dataclass(frozen=True, slots=True)
class ById:
    """A port by the ids, and if given the serial number, of its USB device."""

    vid: str
    pid: str
    serial: str | None = None
    which: Which = None

    def __str__(self) -> str:
        serial = "" if self.serial is None else f":{self.serial}"
        return f"usb:{self.vid}:{self.pid}{serial}{_suffix(self.which)}"


@dataclass(frozen=True, slots=True)
class ByImei:
    """A port by the module's IMEI, which has to be asked for: see `candidates` and `decide`. Shown without the IMEI."""

    imei: str
    which: Which = None

    def __str__(self) -> str:
        return f"imei:…{self.imei[-4:]}{_suffix(self.which)}"


Located = ByPath | ByPlace | ById
"""Names that sysfs alone can resolve."""
Name = Located | ByImei


def parse_name(text: str) -> Name:
    """Read a port's name. Raises `PortNameError` with what would be right."""
    if not text or len(text) > NAME_MAX or not text.isprintable():
        raise PortNameError(f"a port's name is 1 to {NAME_MAX} printable characters: {RIGHT}")
    kind, _, rest = text.partition(":")
    match kind:
        case "usb":
            return _usb(text, rest)
        case "imei":
            imei, which = _split(text, rest)
            if not re.fullmatch("[0-9]{15}", imei):
                raise PortNameError("an IMEI has 15 digits, such as imei:353000000000000; AT+CGSN tells it")
            return ByImei(imei, which)
    if text.startswith("/"):
        return ByPath(Path(text))
    if re.fullmatch(r"tty[A-Za-z0-9]+", text):
        raise PortNameError(f"{text!r} is no port's name; did you mean /dev/{text}?")
    raise PortNameError(f"{text!r} is no port's name; {RIGHT}")


def resolve(name: Located, ports: Iterable[UsbPort]) -> UsbPort | Path:
    """Return the port of `ports` (a snapshot) that the name means.

    A path that is none of theirs is returned as it is: it may be no USB port at all. Raises `PortNameError`, with
    `missing` set where nothing fits, and the candidates listed where several modules do.
    """
    ports = tuple(ports)
    match name:
        case ByPath(path):
            return next((port for port in ports if path == port.path or path in port.links), path)
        case ByPlace(usb, which):
            mine = [port for port in ports if port.usb == usb]
        case ById(vid, pid, serial, which):
            mine = [port for port in ports if (port.vid, port.pid) == (vid, pid) and serial in {None, port.serial}]
    if not mine:
        raise PortNameError(f"{name}: no such serial port on USB; {_there(ports)}", missing=True)
    if len({port.usb for port in mine}) > 1:
        _ambiguous(name, mine, "name one by its place or serial number")
    return _choose(name, which, mine)


def candidates(name: ByImei, ports: Iterable[UsbPort]) -> tuple[UsbPort, ...]:
    """Return the ports to ask for the IMEI: of each Telit module the one that the name would mean.

    Nothing is written to other makers' devices, for not everything that has a serial port on USB is a modem, nor to a
    port whose role is not known, unless the name has its interface. Raises `PortNameError` with `missing` set where
    there is none to ask.
    """
    ports = tuple(ports)
    asked = []
    for usb in dict.fromkeys(port.usb for port in ports if port.vid == TELIT):
        try:
            port = _choose(name, name.which, [port for port in ports if port.usb == usb])
        except PortNameError:  # this module has no such port; another may
            continue
        if isinstance(name.which, str) or port.role is not None:
            asked.append(port)
    if not asked:
        raise PortNameError(f"{name}: no port of a Telit module to ask for its IMEI; {_there(ports)}", missing=True)
    return tuple(asked)


def decide(name: ByImei, asked: Iterable[UsbPort], answers: Mapping[Path, str]) -> UsbPort:
    """Return the port whose module has the IMEI.

    `answers` has the information text of +CGSN (or #CGSN) by the path of the port; one that gave none is left out.
    Raises `PortNameError`, with `missing` set where no answer fits: it says who gave none.
    """
    asked = tuple(asked)
    mine = [port for port in asked if _same_imei(name.imei, answers.get(port.path, ""))]
    if len(mine) == 1:
        return mine[0]
    if mine:
        _ambiguous(name, mine, "two modules with one IMEI: name one by its place")
    told = ", ".join(
        f"{port.path} {'has another' if port.path in answers else 'gave no answer'}" for port in asked[:LISTED_MAX]
    )
    raise PortNameError(f"{name}: no module with this IMEI; {told or 'there was none to ask'}", missing=True)


def network_up(ports: Iterable[UsbPort], port: UsbPort | Path) -> bool:
    """Return whether a network interface on the USB device of this port carries data, or may (MOD-8).

    `ports` is a snapshot of now; the port may be of an earlier one. False for a port that is none of them: of what is
    not on USB nothing is known.
    """
    for now in ports:
        if now.usb == port.usb if isinstance(port, UsbPort) else port == now.path or port in now.links:
            return now.network_up
    return False


def _usb(text: str, rest: str) -> ByPlace | ById:
    device, which = _split(text, rest)
    if re.fullmatch(r"[0-9]{1,3}-[0-9]{1,3}(\.[0-9]{1,3}){0,6}", device):
        return ByPlace(device, which)
    ids = re.fullmatch(r"([0-9a-fA-F]{4}):([0-9a-fA-F]{4})(?::(.{1,126}))?", device)
    if ids is None:
        raise PortNameError(
            f"{text!r} names no USB device; right is usb:1-1.4 (its place), usb:1bc7:1201 (its ids, four hexadecimal "
            "digits each) or usb:1bc7:1201:SERIAL"
        )
    return ById(ids[1].lower(), ids[2].lower(), ids[3], which)


def _split(text: str, rest: str) -> tuple[str, Which]:
    """Take off which port of the module is meant."""
    device, slash, which = rest.partition("/")
    if not slash:
        return device, None
    for role in (Role.PRIMARY, Role.SECONDARY):
        if which == role.value:
            return device, role
    if not re.fullmatch("[0-9a-fA-F]{2}", which):
        raise PortNameError(
            f"{text!r}: behind the / stands an interface number of two hexadecimal digits such as 05, primary or "
            "secondary"
        )
    return device, which.lower()


def _suffix(which: Which) -> str:
    return "" if which is None else f"/{which.value if isinstance(which, Role) else which}"


def _choose(name: Name, which: Which, mine: list[UsbPort]) -> UsbPort:
    """The one of a module's ports that is meant."""
    if isinstance(which, str):
        interface = which
    elif (known := composition(mine[0].vid, mine[0].pid)) is not None:
        role = which or Role.SECONDARY
        found = known.interface(role)
        if found is None:
            raise PortNameError(
                f"{name}: a module with these ids ({known.models}) has one AT port alone; "
                "/primary behind the name takes it, and ModemManager must do without"
            )
        interface = found
    elif which is None and len(mine) == 1:
        return mine[0]
    else:
        raise PortNameError(
            f"{name}: which port is the {(which or Role.SECONDARY).value} one is not known for "
            f"{mine[0].vid}:{mine[0].pid}; put its interface behind the name. {_there(mine)}"
        )
    fitting = [port for port in mine if port.interface == interface]
    if not fitting:
        raise PortNameError(f"{name}: no serial port on interface {interface}; {_there(mine)}", missing=True)
    if len(fitting) > 1:
        _ambiguous(name, fitting, "name it by its path")
    return fitting[0]


def _ambiguous(name: Name, mine: list[UsbPort], advice: str) -> NoReturn:
    raise PortNameError(f"{name}: that fits several; {advice}: {_listed(mine)}")


def _there(ports: Iterable[UsbPort]) -> str:
    listed = _listed(tuple(ports))
    return f"there are: {listed}" if listed else "there is no serial port on USB"


def _listed(ports: tuple[UsbPort, ...] | list[UsbPort]) -> str:
    shown = []
    for port in ports[:LISTED_MAX]:
        serial = f" serial {port.serial!r}" if port.serial else ""
        role = f" {port.role.value}" if port.role else ""
        shown.append(f"{port.name} ({port.path}, {port.vid}:{port.pid}{serial}{role})")
    more = len(ports) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _same_imei(imei: str, answer: str) -> bool:
    """Whether an information text has this IMEI; the 15th digit may be left out, be spare, or (IMEISV) be two."""
    found = re.search("(?<![0-9])[0-9]{14,16}(?![0-9])", answer)
    return found is not None and found[0][:IMEI_DIGITS] == imei[:IMEI_DIGITS]
