# SPDX-License-Identifier: Apache-2.0
"""The kinds of values that the configuration holds: each function here gives a reader for `option`."""

import math
import re
import stat
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TypeVar

from atrund.atrun.rules import Rule, RuleError, read_rule
from atrund.atrun.secrets import MaskError, Secret, read_masks
from atrund.config.reader import Mistake, Place, Read, Refused, expect, quote, read_table, shown
from atrund.usb.names import RIGHT, PortNameError, parse_name

T = TypeVar("T")

SECRET_FILE_MAX = 4096  # bytes; no password, token or key phrase of ours comes near it
SOCKET_PATH_MAX = 107  # bytes; sun_path of Linux is 108 with its closing zero (unix(7))

RATES = (300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600)
"""What a serial port of the host may run at: those that termios(3) names and `+IPR` has."""

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SIZES = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def flag(value: object, place: Place) -> bool:
    """A boolean."""
    return expect(bool, value, place, "true or false")


def integer(low: int, high: int, what: str = "a whole number") -> Read[int]:
    """A whole number of that range; `what` is it called in errors."""
    right = f"{what} from {low} to {high}"

    def read(value: object, place: Place) -> int:
        number = expect(int, value, place, right)
        if not low <= number <= high:
            place.refuse(f"{quote(number)} is out of range", right)
        return number

    return read


def port(value: object, place: Place) -> int:
    """A TCP port. 0, with which the kernel chooses one, is taken but not advertised: it is for tests and the demo."""
    return 0 if value == 0 and type(value) is int else integer(1, 65535, "a port")(value, place)


def serial_rate(value: object, place: Place) -> int:
    """The rate of a serial port."""
    right = f"one of {', '.join(map(str, RATES))}"
    rate = expect(int, value, place, right)
    if rate not in RATES:
        place.refuse(f"{quote(rate)} is no rate of a serial port", right)
    return rate


def weight(value: object, place: Place) -> int:
    """A share of the turns on the port; the greatest is `WEIGHT_MAX` of `atrund.module.turns`."""
    return integer(1, 10, "a weight")(value, place)


def duration(low: float, high: float, *, zero: bool = False) -> Read[float]:
    """Seconds, as a number or a string with a unit (`"90s"`); `zero` allows 0 below the range."""
    right = f'seconds or a string such as "90s", "10m", "24h", "7d", from {span(low)} to {span(high)}'
    right += ", or 0" if zero and low > 0 else ""

    def read(value: object, place: Place) -> float:
        if isinstance(value, str):
            found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)", value)
            if found is None:
                place.refuse(f"{quote(value)} is no duration", right)
            seconds = float(found[1]) * UNITS[found[2]]
        elif type(value) is int or type(value) is float:
            if not -1e12 < value < 1e12:
                place.refuse(f"{quote(value)} is out of range", right)
            seconds = float(value)
        else:
            seconds = expect(float, value, place, right)
        if not (low <= seconds <= high or (zero and seconds == 0)):
            place.refuse(f"{quote(value)} is out of range", right)
        return seconds

    return read


def span(seconds: float) -> str:
    """Seconds in the largest unit that leaves a whole number: 5400 is `90m`."""
    for unit in ("d", "h", "m", "s"):
        if seconds and math.isclose(seconds % UNITS[unit], 0):
            return f"{int(seconds / UNITS[unit])}{unit}"
    return f"{seconds:g}s"


def size(low: int, high: int) -> Read[int]:
    """Bytes, as a number or a string with a unit (`"32MiB"`)."""
    right = f'bytes or a string such as "512KiB", "32MiB", from {low // 1024}KiB to {high // 1024**2}MiB'

    def read(value: object, place: Place) -> int:
        if isinstance(value, str):
            found = re.fullmatch(r"([0-9]{1,9})(KiB|MiB|GiB)", value)
            if found is None:
                place.refuse(f"{quote(value)} is no size", right)
            count = int(found[1]) * SIZES[found[2]]
        else:
            count = expect(int, value, place, right)
        if not low <= count <= high:
            place.refuse(f"{quote(value)} is out of range", right)
        return count

    return read


def choice(*values: T) -> Read[T]:
    """One of these strings."""
    right = "one of " + ", ".join(f'"{value}"' for value in values)

    def read(value: object, place: Place) -> T:
        text = expect(str, value, place, right)
        for known in values:
            if known == text:
                return known
        return place.refuse(f"{quote(text)} is unknown", right)

    return read


def text(pattern: str, right: str) -> Read[str]:
    """A string that matches the whole pattern; `right` says in words which."""
    compiled = re.compile(pattern)

    def read(value: object, place: Place) -> str:
        string = expect(str, value, place, right)
        if compiled.fullmatch(string) is None:
            place.refuse(f"{quote(string)} is not allowed", right)
        return string

    return read


def policy_rule(value: object, place: Place) -> Rule:
    """A rule of the policy: `{ deny = ["+CPIN", "+CFUN=4"] }`."""
    try:
        return read_rule(value)
    except RuleError as error:
        (place.at(error.key) if error.key else place).refuse(shown(error.wrong), error.right)


def mask(value: object, place: Place) -> str:
    """A mask for secrets of a kind that the gateway does not know."""
    text_ = expect(str, value, place, 'a mask: "#OEM=,*", "#OEM: ,*" or "token=*"')
    try:
        read_masks([text_])
    except MaskError as error:
        place.refuse(error.wrong, error.right)
    return text_


def octal(value: object, place: Place) -> int:
    """A file mode: a string of octal digits, `"0660"`."""
    right = 'a file mode in octal, as a string: "0660"'
    digits = expect(str, value, place, right)
    if re.fullmatch(r"0?[0-7]{3}", digits) is None:
        place.refuse(f"{quote(digits)} is no file mode", right)
    return int(digits, 8)


def port_name(value: object, place: Place) -> str:
    """The name of a serial port (MOD-2), or "" for none."""
    right = f'{RIGHT}, or "" for none'
    name = expect(str, value, place, right)
    if name:
        try:
            parse_name(name)
        except PortNameError as error:
            wrong, _, better = str(error).partition("; ")
            place.refuse(wrong, better or right)
    return name


def items(
    read_one: Read[T], *, at_most: int, at_least: int = 0, what: str = "entries", repeated: bool = False
) -> Read[tuple[T, ...]]:
    """A list, each entry read by `read_one`, equal ones refused unless `repeated`; every wrong entry is reported."""
    right = f"a list of at most {at_most} {what}"
    few = f"at least {at_least} of them"

    def read(value: object, place: Place) -> tuple[T, ...]:
        raw = expect(list, value, place, right)
        if len(raw) > at_most:
            place.refuse(f"has {len(raw)} entries", right)
        if len(raw) < at_least:
            place.refuse("is empty", few)
        good: list[T] = []
        mistakes: list[Mistake] = []
        for index, entry in enumerate(raw):
            try:
                one = read_one(entry, place.item(index))
                if one in good and not repeated:
                    place.item(index).refuse("stands in the list twice", "each entry once")
                good.append(one)
            except Refused as refused:
                mistakes += refused.mistakes
        if mistakes:
            raise Refused(*mistakes)
        return tuple(good)

    return read


def table(cls: type[T]) -> Read[T]:
    """A table inside a list, as the dataclass `cls`."""

    def read(value: object, place: Place) -> T:
        one, mistakes = read_table(cls, value, place)
        if mistakes:
            raise Refused(*mistakes)
        return one

    return read


def address(value: object, place: Place) -> IPv4Address | IPv6Address:
    """An IPv4 or IPv6 address; host names are not looked up. An IPv4-mapped one counts as IPv4."""
    right = "an IPv4 or IPv6 address"
    string = expect(str, value, place, right)
    try:
        found = ip_address(string)
    except ValueError:
        place.refuse(f"{quote(string)} is no address", right)
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def absolute(value: object, place: Place) -> Path:
    """An absolute path; it need not exist."""
    right = "an absolute path"
    string = expect(str, value, place, right)
    if not string.startswith("/") or "\0" in string:
        place.refuse(f"{quote(string)} is none", right)
    return Path(string)


def socket_path(value: object, place: Place) -> Path | None:
    """An absolute path short enough for a UNIX socket, or "" for none."""
    if value == "":
        return None
    path = absolute(value, place)
    if len(bytes(path)) > SOCKET_PATH_MAX:
        place.refuse(f"has {len(bytes(path))} bytes", f"an absolute path of at most {SOCKET_PATH_MAX} bytes")
    return path


def group(value: object, place: Place) -> str:
    """The name of a group, or "" for none."""
    return text(r"|[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}", "the name of a group")(value, place)


def link_path(value: object, place: Place) -> Path | None:
    """The absolute path of a link to be made, or "" for none."""
    return None if value == "" else absolute(value, place)


def public_file(value: object, place: Place) -> Path | None:
    """A file that must be there and readable, such as a certificate; "" is none."""
    return None if value == "" else _find(value, place, "the path of a readable file", private=False)


def private_file(value: object, place: Place) -> Path | None:
    """The same for a private key: it may not be readable by everybody."""
    return None if value == "" else _find(value, place, "the path of a private key file", private=True)


def secret(check: Callable[[str], str | None]) -> Read[Secret | None]:
    """A secret held by a file, read now; "" is none. `check` gives what would be right, or None if it is."""

    def read(value: object, place: Place) -> Secret | None:
        return None if value == "" else secret_file(check)(value, place)

    return read


def secret_file(check: Callable[[str], str | None]) -> Read[Secret]:
    """A secret held by a file, read now; one newline at its end is not part of it. No error ever shows its content."""

    def read(value: object, place: Place) -> Secret:
        right = "the path of a file that holds the secret and nothing else"
        path = _find(value, place, right, private=True)
        with path.open("rb") as file:
            content = file.read(SECRET_FILE_MAX + 1)
        if len(content) > SECRET_FILE_MAX:
            place.refuse("the file is too long", f"{right}, at most {SECRET_FILE_MAX} bytes")
        try:
            string = content.decode("utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            place.refuse("the file's content is not UTF-8", right)
        wanted = check(string)
        if wanted is not None:
            place.refuse("the file's content doesn't fit", wanted)
        return Secret(string)

    return read


def sms_password(content: str) -> str | None:
    """16 printable characters, exactly (80000NT10029a 2.2; `#SMSATWL`)."""
    fits = len(content) == 16 and content.isascii() and content.isprintable()
    return None if fits else "exactly 16 printable ASCII characters"


def code_secret(content: str) -> str | None:
    """The secret of an authenticator app, in base32."""
    from atrund.atrun.codes import read_secret  # noqa: PLC0415 - few have codes

    try:
        read_secret(content)
    except ValueError as error:
        return str(error)
    return None


def seal_key(content: str) -> str | None:
    """The key of sealed SMS with its number."""
    from atrund.sms.seal import SealError, read_key  # noqa: PLC0415 - few have seals

    try:
        read_key(content)
    except SealError as error:
        return str(error)
    return None


def tcp_password(content: str) -> str | None:
    """1 to 50 characters without control characters (`#TCPATRUNAUTH`)."""
    fits = 1 <= len(content) <= 50 and content.isprintable()
    return None if fits else "1 to 50 printable characters"


def tcp_token(content: str) -> str | None:
    """The far end's first line in client mode (TCP-13)."""
    fits = 16 <= len(content) <= 128 and content.isascii() and content.isprintable()
    return None if fits else "16 to 128 printable ASCII characters"


def sim_pin(content: str) -> str | None:
    """4 to 8 digits (3GPP TS 31.101)."""
    fits = 4 <= len(content) <= 8 and content.isascii() and content.isdecimal()
    return None if fits else "a PIN of 4 to 8 digits"


def mqtt_user(content: str) -> str | None:
    """A user name for the broker."""
    return None if re.fullmatch(r"[^\x00-\x1f\x7f]{1,256}", content) else "1 to 256 characters on one line"


def mqtt_password(content: str) -> str | None:
    """Anything, but not nothing."""
    return None if content else "a password that is not empty"


def _find(value: object, place: Place, right: str, *, private: bool) -> Path:
    """The file that `value` names: absolute, or the first found in the place's folders. It is opened once, as a check.

    A relative name is never quoted: whoever puts a password here instead of a path must not find it in the log.
    """
    name = expect(str, value, place, right)
    if not name or "\0" in name:
        place.refuse("is no path", right)
    wanted = [folder / name for folder in place.folders]
    where = quote(name) if name.startswith("/") else "no such file in " + " or ".join(map(str, place.folders))
    try:
        path = next((path for path in wanted if path.is_file()), None)
        if path is None:
            place.refuse(f"{where} is no file" if name.startswith("/") else where, right)
        with path.open("rb"):
            mode = path.stat().st_mode
    except OSError as error:
        if isinstance(error, PermissionError):
            right = "chgrp atrund and chmod 640 it, so that the daemon can"
        place.refuse(f"the file can't be read: {error.strerror}", right)
    if private and mode & stat.S_IROTH:
        place.refuse("everybody can read the file", "chmod o-rwx it")
    return path
