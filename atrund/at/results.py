# SPDX-License-Identifier: Apache-2.0
"""Result codes and the parameters of an information line (ITU-T V.250 5.7, 3GPP TS 27.007 9.2, TS 27.005 3.2.5)."""

import re
from dataclasses import dataclass

from atrund.at.syntax import arguments
from atrund.table import Word


class FinalKind(Word):
    """What a final result code says."""

    OK = "OK"
    ERROR = "ERROR"
    CME = "+CME ERROR"
    CMS = "+CMS ERROR"
    ABORTED = "ABORTED"
    NO_CARRIER = "NO CARRIER"
    NO_DIALTONE = "NO DIALTONE"
    NO_ANSWER = "NO ANSWER"
    BUSY = "BUSY"
    CONNECT = "CONNECT"

    @property
    def of_a_call(self) -> bool:
        """Whether only dial, socket and data commands end so; elsewhere the same words are unsolicited."""
        return self in _OF_A_CALL


@dataclass(frozen=True, slots=True)
class Final:
    """A final result code: `text` as the module wrote it, `code` where it carries a number."""

    kind: FinalKind
    text: str
    code: int | None = None

    @property
    def ok(self) -> bool:
        """Whether the command line succeeded."""
        return self.kind is FinalKind.OK


OK = Final(FinalKind.OK, "OK")
ERROR = Final(FinalKind.ERROR, "ERROR")


def classify(text: str) -> Final | None:
    """Return the final result code that a verbose line is, or None. `NO CARRIER:3` is none: it names a socket."""
    if (kind := _WORDS.get(text)) is not None:
        return Final(kind, text)
    if (matched := _NUMBERED.fullmatch(text)) is not None:
        value = matched[2]
        return Final(FinalKind(matched[1]), text, int(value) if _CODE.fullmatch(value) else None)
    if _CONNECT.fullmatch(text):
        return Final(FinalKind.CONNECT, text)
    return None


def classify_numeric(text: str) -> Final | None:
    """Return the final that a V0 result code is (V.250 table 1), in its verbose words, or None."""
    kind = _NUMERIC.get(text)
    return None if kind is None else Final(kind, kind.value)


@dataclass(frozen=True, slots=True)
class Information:
    """An information line `<name>: <parameters>`, such as `+CSQ: 14,99`."""

    name: str
    text: str

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters as written, quotes on, blanks around them off."""
        return tuple(part.strip() for part in arguments(self.text))


def information(line: str) -> Information | None:
    """Split an information line with an extended command's name before a colon, or return None."""
    matched = _INFORMATION.match(line)
    return None if matched is None else Information(matched[1], line[matched.end() :].strip())


CME_TEXTS = {
    0: "phone failure",
    1: "no connection to phone",
    2: "phone-adaptor link reserved",
    3: "operation not allowed",
    4: "operation not supported",
    5: "PH-SIM PIN required",
    10: "SIM not inserted",
    11: "SIM PIN required",
    12: "SIM PUK required",
    13: "SIM failure",
    14: "SIM busy",
    15: "SIM wrong",
    16: "incorrect password",
    17: "SIM PIN2 required",
    18: "SIM PUK2 required",
    20: "memory full",
    21: "invalid index",
    22: "not found",
    23: "memory failure",
    24: "text string too long",
    25: "invalid characters in text string",
    26: "dial string too long",
    27: "invalid characters in dial string",
    30: "no network service",
    31: "network timeout",
    32: "network not allowed - emergency calls only",
    50: "Incorrect parameters",
    100: "unknown",
}
"""The texts of +CMEE=2 (TS 27.007 9.2.1) that the daemon itself answers with, and a module's usual ones."""

_OF_A_CALL = frozenset(
    {FinalKind.NO_CARRIER, FinalKind.NO_DIALTONE, FinalKind.NO_ANSWER, FinalKind.BUSY, FinalKind.CONNECT}
)
_WORDS = {kind.value: kind for kind in FinalKind if kind not in {FinalKind.CME, FinalKind.CMS}}
_NUMBERED = re.compile(r"(\+CM[ES] ERROR): *(.*)")
_CODE = re.compile(r"[0-9]{1,5}")
_CONNECT = re.compile(r"CONNECT [ -~]*")
_NUMERIC = {
    "0": FinalKind.OK,
    "1": FinalKind.CONNECT,
    "3": FinalKind.NO_CARRIER,
    "4": FinalKind.ERROR,
    "6": FinalKind.NO_DIALTONE,
    "7": FinalKind.BUSY,
    "8": FinalKind.NO_ANSWER,
}
_INFORMATION = re.compile(r"([+#$*@^][A-Z][A-Z0-9!%\-./_]*):")
