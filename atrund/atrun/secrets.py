# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: A005 - the name of the room; imports are absolute, so it hides no library
"""What must not be shown, and how text is made fit to be shown (POL-3).

Rules of this file: the tables below are the only place that names commands with secrets; `Masks` adds to them what the
configuration names. From the first secret argument on everything is hidden, for a comma in an unquoted password would
shift what stands behind it. When in doubt more is hidden than needed.
"""

import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from atrund.at.results import classify
from atrund.at.syntax import Command, LineRefused, arguments, parse, unparse

MASK: Final = "****"

# The first secret argument of a command, counted from 1. Telit's, unless another source stands beside it.
SECRET_ARGUMENT: Final[dict[str, int]] = {
    "+CPIN": 1,  # pin, newpin (3GPP TS 27.007 8.3)
    "+CLCK": 3,  # fac, mode, passwd (27.007 7.4)
    "+CPWD": 2,  # fac, oldpwd, newpwd (27.007 7.5)
    "+CGAUTH": 3,  # cid, protocol, userid, password (27.007 10.1.31)
    "+CSIM": 2,  # length, a raw APDU: may be VERIFY or CHANGE PIN (27.007 8.17)
    "+CGLA": 3,  # session, length, APDU (27.007 8.43)
    "#SGACT": 3,  # cid, state, user, password
    "#PDPAUTH": 3,  # cid, type, user, password
    "#USERID": 1,
    "#PASSW": 1,
    "#GPRS": 2,  # mode; user, password
    "#FTPOPEN": 2,  # server, user, password
    "#FTPGETOTAENH": 4,  # server, port, path, user, password
    "#HTTPCFG": 5,  # profile, server, port, type, user, password
    "#HTTPQRY": 4,  # profile, command, resource, header line: may be an authorisation
    "#HTTPSND": 6,  # profile, command, resource, length, type, header line
    "#EUSER": 1,
    "#EPASSW": 1,
    "#MQCONN": 3,  # instance, client, user, password
    "#DWCFG": 3,  # server, selector, application token
    "#SMSATWL": 4,  # action, index, type, password or number
    "#TCPATRUNAUTH": 3,  # action, user, password
    "$QCPDPP": 3,  # cid, type, password, user (Qualcomm's, on the families built on it)
}

# The same for the values of an information line `NAME: a,b,…`, as the read forms print them. 0: the whole answer is
# hidden, lines without the prefix too.
SECRET_VALUE: Final[dict[str, int]] = {
    "+CGAUTH": 3,
    "#PDPAUTH": 3,
    "#USERID": 1,
    "#PASSW": 1,
    "#HTTPCFG": 5,
    "#EUSER": 1,
    "#EPASSW": 1,
    "#DWCFG": 3,
    "#SMSATWL": 2,  # type, password or number
    "#TCPATRUNAUTH": 2,  # user, password
    "#SSLSECDATA": 0,  # reads certificates and keys back; what is written goes through a prompt
    "$QCPDPP": 3,
}

# Dial strings that carry a PIN, PUK or barring password (3GPP TS 22.030 6.5.2, 6.5.4, 6.6.2 and annex B): change PIN
# and PIN2, unblock, register a password, and the barring services.
_SECRET_DIAL: Final = r"D[*#]{1,2}(?:03|04|042|05|052|33|330|331|332|333|35|351|353)\*"
_SIGN: Final = re.compile("[+#$*\xab\xa3\xa4\xaa]")  # what each name of such a command begins with, bit 8 set or not

# C0, DEL, C1, and what Unicode calls format characters, separators of lines and paragraphs, and surrogates: invisible,
# turning the order of what follows, or (surrogates) impossible to write as UTF-8.
_UNSHOWABLE: Final = (
    "\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f"
)
_TO_ESCAPE: Final = re.compile(
    rf"(\\+)(?=x[0-9a-fA-F]{{2}}|u[0-9a-fA-F]{{4}}|U[0-9a-fA-F]{{8}}|[{_UNSHOWABLE}])|[{_UNSHOWABLE}]"
)


MASKS_MAX: Final = 32
MASK_LENGTH: Final = range(4, 101)
"""How many masks the configuration may add, and their characters: each text that is shown is searched for all."""


class MaskError(ValueError):
    """What is no mask: `wrong` and `right` are for whoever wrote it."""

    def __init__(self, wrong: str, right: str) -> None:
        super().__init__(f"{wrong}; {right}")
        self.wrong = wrong
        self.right = right


@dataclass(frozen=True, slots=True)
class Masks:
    """What is hidden: the first secret argument of commands, the first secret value of answers, and words.

    Everything that follows one of the `words` is hidden, to the next blank, comma, semicolon or quote.
    """

    commands: Mapping[str, int]
    values: Mapping[str, int]
    words: re.Pattern[str] | None
    names: re.Pattern[str]


def read_masks(masks: Iterable[str]) -> Masks:
    """Return the tables of this file and what the configuration adds to them. Raises `MaskError`.

    `#NAME=,,*` hides a command's third argument and what follows, `#NAME: ,*` an answer's second value and what
    follows; any other text that ends with `*`, as `token=*`, is a word. Capitals make no difference.
    """
    commands, values, words = dict(SECRET_ARGUMENT), dict(SECRET_VALUE), list[str]()
    given = tuple(masks)
    if len(given) > MASKS_MAX:
        raise MaskError(f"{len(given)} masks", f"at most {MASKS_MAX}")
    for mask in given:
        if len(mask) not in MASK_LENGTH or not mask.isascii() or not mask.isprintable():
            raise MaskError(
                f"a mask of {len(mask)} characters", f"{MASK_LENGTH[0]} to {MASK_LENGTH[-1]} printable ASCII characters"
            )
        found = _MASK.fullmatch(mask)
        if found is None:
            raise MaskError(f'"{mask}" is no mask', 'such as "#NAME=,,*", "#NAME: ,*" or "token=*"')
        table = {"=": commands, ":": values}.get(found[2] or "")
        if table is None:
            words.append(mask[:-1])
        else:
            name = found[1].upper()
            table[name] = min(len(found[3]) + 1, table.get(name, 99))
    return _masks(commands, values, words)


class Secret:
    """A secret text. It shows as `****` wherever it is printed, logged or written as JSON; `reveal` gives it out."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself. Only for the place that compares or sends it."""
        return self._text

    def __repr__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode("utf-8"), other._text.encode("utf-8"))

    def __hash__(self) -> int:
        return hash(self._text)


def adopt(masks: Masks) -> None:
    """Hide by these wherever no others are given; for the program's start, before anything is shown."""
    _in_force[:] = [masks]


def mask_line(text: str, masks: Masks | None = None) -> str:
    """A command line (AT or HAT) with its secrets hidden; unchanged if there are none.

    What doesn't parse is cut behind the first name of a command with secrets, however that is written.
    """
    masks = masks or _in_force[0]
    masked = text if _SIGN.search(text) is None else _mask_line(text, masks)
    return _hide_words(masked, masks)


def _mask_line(text: str, masks: Masks) -> str:
    stripped = text.lstrip()
    head = stripped[:1] if stripped[:1] in ("H", "h") else ""
    if stripped[len(head) : len(head) + 2].upper() != "AT":
        return _cut(text, masks)
    if _end_of_secret_name(text, masks) is None and _CODE.search(text) is None:
        return text
    try:
        commands = parse(stripped[len(head) :])
    except LineRefused:
        return _CODE.sub(f"#{MASK}", _cut(text, masks))
    if _end_of_secret_name(text, masks) is None:
        return text
    return head + unparse(_masked(command, masks) for command in commands)


_CODE: Final = re.compile("# *[0-9][0-9 ]{2,}[0-9]")
"""A code of an authenticator app, or most of one, that is not where it should be, and so can still be used."""


def mask_answer(names: Iterable[str], line: str, masks: Masks | None = None) -> str:
    """One line of the answer to the commands `names` (`#SMSATWL`, `+COPS`, …) with its secrets hidden.

    A line with the prefix of such a command is masked whoever asked for it; an echoed command line is masked as one.
    """
    masks = masks or _in_force[0]
    return _hide_words(_mask_answer(names, line, masks), masks)


def _mask_answer(names: Iterable[str], line: str, masks: Masks) -> str:
    prefix, colon, values = line.strip().partition(":")
    position = masks.values.get(prefix.upper()) if colon else None
    if position is not None and position > 0:
        kept = arguments(values.strip())
        if len(kept) < position or (prefix.upper() == "#SMSATWL" and _is_number_entry(kept[0])):
            return line
        return f"{prefix}: {','.join((*kept[: position - 1], MASK))}"
    if position == 0 or any(masks.values.get(name.upper()) == 0 for name in names):
        return line if classify(line.strip()) is not None else MASK
    if line.lstrip()[:2].upper() == "AT":
        return _mask_line(line, masks)
    return _cut(line, masks) if prefix.upper() not in masks.commands else line


def mask_number(number: str) -> str:
    """A telephone number with all but its last 4 digits as `*`; a leading `+` stays."""
    plus = "+" if number.startswith("+") else ""
    digits = number[len(plus) :]
    hidden = max(0, len(digits) - 4)
    return plus + "*" * hidden + digits[hidden:]


def mask_numbers(text: str) -> str:
    """A command line, or a line of an answer, with the telephone numbers in it masked.

    Known places are masked however the number is written there, as hex of UCS-2 too; elsewhere what begins with `+`.
    """
    head, colon, values = text.partition(":")
    if colon and (places := NUMBER_VALUE.get(head.strip().upper())) is not None:
        text = f"{head}: {_with_places_masked(values.strip(), places)}"
    elif text[:3].upper().lstrip("H")[:2] == "AT":
        text = _numbers_of_line(text)
    return mask_prose(text)


def mask_prose(text: str) -> str:
    """A sentence with the telephone numbers in it masked: what begins with `+`."""
    return _NUMBER.sub(lambda found: mask_number(found[0]), text)


NUMBER_VALUE: Final[Mapping[str, tuple[int, ...]]] = {
    # Text mode, sender and service centre; reports and PDU mode have other values there (3GPP TS 27.005 3.4, 3.1).
    "+CMGL": (3, 5),
    "+CMGR": (2, 4, 9),
    "+CMT": (1, 8),
    "+CDS": (3,),
    "+CSCA": (1,),
    # 3GPP TS 27.007 7.1, 7.6, 7.8, 7.9, 7.11, 7.12, 7.18, 7.30, 8.12, 8.13
    "+CNUM": (2,),
    "+CLIP": (1,),
    "+COLP": (1,),
    "+CDIP": (1,),
    "+CCFC": (3,),
    "+CCWA": (1,),
    "+CLCC": (6,),
    "+CPBR": (2,),
    "+CPBF": (2,),
    "#ECAM": (6,),
    "#SMSATWL": (2,),
}
"""Where telephone numbers stand in answers and unsolicited lines, counted from 1."""

NUMBER_ARGUMENT: Final[Mapping[str, tuple[int, ...]]] = {
    "+CMGS": (1,),
    "+CMGW": (1,),
    "+CMGC": (4,),
    "+CMSS": (2,),
    "#CMGS": (1,),
    "#CMGW": (1,),
    "+CSCA": (1,),
    "+CPBW": (2,),
    "+CCFC": (3,),
    "#SNUM": (2,),
    "#SMSATWL": (4,),
}
"""The same in commands; and the dial string of `D`."""


def escape(text: str) -> str:
    r"""Text that can be shown on one line: `\xNN`, `\uNNNN` or `\UNNNNNNNN` for what can't be seen or turns the order.

    A backslash stays one, so that `AT\Q3` reads as it was sent, except in a run of them right before something that
    would read as such an escape, or is one: there each is doubled, which keeps the text unambiguous.
    """
    if text.isascii() and text.isprintable() and "\\" not in text:  # nearly all are
        return text
    return _TO_ESCAPE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    if found[1]:
        return found[1] * 2
    code = ord(found[0])
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _masked(command: Command, masks: Masks) -> Command:
    for name in masks.commands:
        tail = command.name.removeprefix(name)
        # "+CPIN1234" and "+CPIN-1234" are one name to the parser and a slip of the pen to us; "#SGACTCFG" is neither.
        if tail and tail != command.name and not tail[0].isalpha():
            return replace(command, name=name + MASK, args="")
    position = masks.commands.get(command.name)
    if position is None:
        whole = command.name + command.args
        cut = _cut(whole, masks)
        return command if cut == whole else replace(command, args=cut[len(command.name) :])
    kept = arguments(command.args)
    if len(kept) < position or (command.name == "#SMSATWL" and _is_number_entry(kept[2])):
        return command
    return replace(command, args=",".join((*kept[: position - 1], MASK)))


def _is_number_entry(kind: str) -> bool:
    """Whether an entry of the white list is a telephone number; the other kind is a password (`#SMSATWL`)."""
    return kind.strip('" 0') == "" and "0" in kind


def _cut(text: str, masks: Masks) -> str:
    end = _end_of_secret_name(text, masks)
    return text if end is None or end == len(text) else text[:end] + MASK


def _end_of_secret_name(text: str, masks: Masks) -> int | None:
    """Where the first name of a command with secrets ends, blanks, control characters, case and bit 8 ignored."""
    if _SIGN.search(text) is None:  # most texts end here: each value of each log entry is looked at
        return None
    if text.isascii() and text.isprintable() and " " not in text:  # and most others here
        found = masks.names.search(text.upper())
        return found.end() if found else None
    places = [(at, chr(ord(character) & 0x7F).upper()) for at, character in enumerate(text) if ord(character) < 256]
    visible = [(at, character) for at, character in places if "!" <= character <= "~"]
    found = masks.names.search("".join(character for _, character in visible))
    return visible[found.end() - 1][0] + 1 if found else None


_MASK: Final = re.compile(r"(?:([+#$*@^][A-Za-z][A-Za-z0-9]*)(=|:) ?(,{0,31})|[^*]+)\*")
_WORD_END: Final = " ,;\"'"


def _masks(commands: Mapping[str, int], values: Mapping[str, int], words: Iterable[str]) -> Masks:
    # Literals without any repetition but the last: the search takes a time that grows with the text alone.
    any_word = "|".join(map(re.escape, words))
    pattern = re.compile(rf"((?:{any_word}) ?[\"']?)[^{_WORD_END}]+", re.IGNORECASE) if any_word else None
    names = re.compile(rf"(?:{'|'.join(map(re.escape, commands))})(?![A-Z])|{_SECRET_DIAL}")
    return Masks(commands, values, pattern, names)


BUILT_IN: Final = _masks(SECRET_ARGUMENT, SECRET_VALUE, ())
"""What is hidden without any configuration."""
_in_force: Final = [BUILT_IN]
"""What is hidden in this program: in one place, for a text that is shown anywhere without it would be shown whole."""


def _hide_words(text: str, masks: Masks) -> str:
    return text if masks.words is None else masks.words.sub(rf"\g<1>{MASK}", text)


_NUMBER: Final = re.compile(r"\+\d{5,}")
"""A telephone number as it shows itself anywhere; nothing else in the language has so many digits behind a plus."""
_DIGITS_MIN: Final = 5
"""Digits from which on a text in such a place is a telephone number: fewer are a length, an index or a short code."""
_NUMBER_LIKE: Final = re.compile(r"[+*#0-9A-Fa-f]+")
"""What such a text is made of, as hex of UCS-2 too; a time stamp, which may stand in the same place, is not."""


def _numbers_of_line(text: str) -> str:
    head = text[:1] if text[:1] in {"H", "h"} else ""
    try:
        commands = parse(text[len(head) :])
    except LineRefused:
        return text
    masked = tuple(map(_numbers_of_command, commands))
    return text if masked == commands else head + unparse(masked)


def _numbers_of_command(command: Command) -> Command:
    if command.name == "D":
        return replace(command, args=_DIALLED.sub(lambda found: mask_number(found[0]), command.args))
    places = NUMBER_ARGUMENT.get(command.name, ())
    return replace(command, args=_with_places_masked(command.args, places)) if places else command


_DIALLED: Final = re.compile(r"\+?\d{5,}")


def _with_places_masked(values: str, places: Iterable[int]) -> str:
    kept = list(arguments(values))
    for place in places:
        given = kept[place - 1].strip() if place <= len(kept) else ""
        plain = given.strip('"')
        if sum(map(str.isdecimal, plain)) >= _DIGITS_MIN and _NUMBER_LIKE.fullmatch(plain):
            quote = '"' if given.startswith('"') else ""
            kept[place - 1] = quote + mask_number(plain) + quote
    return ",".join(kept)
