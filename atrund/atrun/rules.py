# SPDX-License-Identifier: Apache-2.0
"""Who may run what: the rules of a door as an integrator writes them, and how they match a command (POL-1).

A rule is a table with `allow` or `deny`, one pattern or a list of them, and optionally `peer`, who asks, and (allow)
`hazards`, which counts for what it lets pass instead of the door's own. Patterns:

    +COPS            every form of the command        +COPS?   +COPS=?   its read form, its test form
    +COPS=2          set with these arguments         +COPS!             executed, without any
    +COPS=4,2,"22*"  `*` ends an argument or stands for one; as the last it stands for any number of them
    +CG*  #*  *?     names by their beginning; the read form of every command
    E0  &F  S0=1  D112  D+39*    basic commands; for `D` what is dialled, whatever stands between the digits

Rules of this file: numbers compare as numbers, quotes make no difference. An allow rule matches what it surely means, a
deny rule also what a careless module might take for it: further arguments, one that is left out, a number that is
none, other capitals in a text, a name with digits or signs too many.
"""

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from atrund.at.syntax import Command, Op, arguments, unquote
from atrund.atrun.hazards import acts, whole
from atrund.atrun.secrets import mask_line
from atrund.table import Word

PATTERN_MAX: Final = 200
"""Characters of a pattern or a peer: twice the longest command that an event of the monitor may store."""
PATTERNS_MAX: Final = 32
"""Patterns of a rule, and peers: every command of a line is held against each."""
RULES_MAX: Final = 32
"""Rules of a door: the longest line is judged in half a second then, at worst."""


class Verb(Word):
    """What a rule, or a door's default, does."""

    ALLOW = "allow"
    DENY = "deny"


class Hazards(Word):
    """What becomes of a hazard at a door (POL-2)."""

    REFUSE = "refuse"
    CONFIRM = "confirm"
    ALLOW = "allow"


class RuleError(ValueError):
    """What is no rule. `key` is the rule's key at fault ("" for the rule itself)."""

    def __init__(self, key: str, wrong: str, right: str) -> None:
        super().__init__(f"{key}: {wrong}; {right}" if key else f"{wrong}; {right}")
        self.key = key
        self.wrong = wrong
        self.right = right


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a pattern: a number, a text, or with `prefix` the beginning of either."""

    text: str
    number: int | None = None
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class Pattern:
    """The commands that a rule means. `op` None is every form; `rest`: further arguments may follow.

    `letters` is the name as a careless parser may read it.
    """

    text: str
    name: str
    name_prefix: bool = False
    op: Op | None = None
    arguments: tuple[Argument, ...] = ()
    rest: bool = True
    letters: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "letters", letters(self.name))


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; without peers it is for everybody. `str()` shows it without secrets."""

    verb: Verb
    patterns: tuple[Pattern, ...]
    peers: tuple[str, ...] = ()
    hazards: Hazards | None = None

    def __str__(self) -> str:
        shown = ", ".join(f'"{mask_line("AT" + pattern.text)[2:]}"' for pattern in self.patterns)
        peers = f" for {', '.join(self.peers)}" if self.peers else ""
        hazards = f", hazards {self.hazards.value}" if self.hazards else ""
        return f"{self.verb.value} {shown}{peers}{hazards}"


def read_rule(table: object) -> Rule:
    """Return the rule of a TOML table. Raises `RuleError`."""
    if not isinstance(table, Mapping):
        raise RuleError("", "is no table", _RIGHT)
    for key in table:
        if key not in _KEYS:
            raise RuleError("", f'unknown key "{str(key)[:40]}"', f"known here: {', '.join(_KEYS)}")
    verbs = [verb for verb in Verb if verb.value in table]
    if len(verbs) != 1:
        raise RuleError("", "has both allow and deny" if verbs else "has neither allow nor deny", _RIGHT)
    (verb,) = verbs
    patterns = tuple(
        read_pattern(text, verb.value) for text in _texts(table[verb.value], verb.value, "a command", "+COPS=2")
    )
    peers: tuple[str, ...] = ()
    if "peer" in table:
        peers = tuple(_peer(text) for text in _texts(table["peer"], "peer", "who asks", "+39*"))
    return Rule(verb, patterns, peers, _hazards(table, verb))


def read_pattern(text: str, key: str = "allow") -> Pattern:
    """Return the pattern of a text. Raises `RuleError`, which names `key`."""
    if len(text) > PATTERN_MAX or not all(" " <= character <= "~" for character in text):
        raise RuleError(key, "is too long or not ASCII", f"at most {PATTERN_MAX} printable ASCII characters")
    plain = _without_blanks(text)
    if plain.count('"') % 2:
        raise RuleError(key, f"{_quote(text)} has a quote without its other half", 'quotes in pairs: +CLCK="SC",*')
    for read in (_any, _register, _basic, _dial, _extended):
        if (pattern := read(plain, key)) is not None:
            return pattern
    raise RuleError(key, f"{_quote(text)} is no pattern", _PATTERN)


def verdict(rules: Iterable[Rule], command: Command, names: Sequence[str]) -> tuple[int, Rule] | None:
    """Return the first rule that matches a command asked for by whom these names mean, and its index; or None.

    `names` is empty when it isn't known who asks: a deny rule with peers then matches, an allow rule doesn't.
    """
    alike = letters(command.name)
    for index, rule in enumerate(rules):
        # Most patterns are about other commands.
        near = [one for one in rule.patterns if alike.startswith(one.letters)]
        what = max((_matches(pattern, command) for pattern in near), default=_Match.NO)
        if min(what, _is_meant(rule.peers, names)) >= (_Match.MAYBE if rule.verb is Verb.DENY else _Match.YES):
            return index, rule
    return None


def letters(name: str) -> str:
    """An extended command's name without digits and signs, as a careless parser may read it."""
    return name[:1] + "".join(filter(str.isalpha, name[1:]))


NO_MISTAKE: Final = frozenset({"#SCFGEXT2", "#SCFGEXT3"})
"""Commands that differ from another by a digit alone."""


class _Match(enum.IntEnum):
    NO = 0
    MAYBE = 1
    YES = 2


_KEYS: Final = ("allow", "deny", "peer", "hazards")
_RIGHT: Final = '{deny = ["+CPIN", "+CFUN=4"]} or {allow = "+CGDCONT=?", peer = "+39*"}'
_PATTERN: Final = "one command without AT, such as +COPS, +COPS?, +COPS=?, +COPS=2, +COPS!, +CG*, S0=1, E0 or D112"
_STAR: Final = 'a * ends a name or an argument, or stands for one: +CG*, +COPS=1,*, +COPS=4,2,"222*"'
_NAME: Final = re.compile(r"([+#$*@^])([A-Za-z][A-Za-z0-9%\-./:_]*)?(\*)?")
_REGISTER: Final = re.compile(r"[Ss]([0-9]{1,5})(\?|=\?|=(.*)|)")
_BASIC: Final = re.compile(r"([&\\%]?(?:(?![SsDd])[A-Za-z]|(?<=[&\\%])[A-Za-z]))([0-9]{0,5})|([&\\%])\*")
_DIALLED: Final = "0123456789*#+"
_PASSED_OVER: Final = ",TtPpWwIiGg!@; "
"""What may stand in a dial string without being dialled (V.250 6.3.1, TS 27.007 6.2)."""


def _without_blanks(text: str) -> str:
    quoted = False
    out = []
    for character in text:
        quoted ^= character == '"'
        if quoted or character != " ":
            out.append(character)
    return "".join(out)


def _any(text: str, key: str) -> Pattern | None:
    if not text.startswith("*") or text[1:2].isalpha() or text == "**":
        return None
    return _with_form(text, "", text[1:], key, name_prefix=True)


def _extended(text: str, key: str) -> Pattern | None:
    found = _NAME.match(text)
    if found is None or not (found[2] or found[3]):
        return None
    name = found[1] + (found[2] or "").upper()
    return _with_form(text, name, text[found.end() :], key, name_prefix=bool(found[3]))


def _with_form(text: str, name: str, form: str, key: str, *, name_prefix: bool) -> Pattern | None:
    forms = {"": None, "?": Op.READ, "=?": Op.TEST, "!": Op.EXECUTE}
    if form in forms:
        return Pattern(text, name, name_prefix, forms[form])
    if not form.startswith("="):
        return None
    given, rest = _arguments(text, form[1:], key)
    return Pattern(text, name, name_prefix, Op.SET, given, rest)


def _register(text: str, key: str) -> Pattern | None:
    if text in {"S", "s", "S*", "s*"}:
        return Pattern(text, "S", name_prefix=True)
    found = _REGISTER.fullmatch(text)
    return None if found is None else _with_form(text, f"S{int(found[1])}", found[2], key, name_prefix=False)


def _basic(text: str, _: str) -> Pattern | None:
    found = _BASIC.fullmatch(text)
    if found is None:
        return None
    if found[3]:
        return Pattern(text, found[3], name_prefix=True)
    given = (Argument(found[2], int(found[2])),) if found[2] else ()
    return Pattern(text, found[1].upper(), False, Op.EXECUTE if given else None, given, rest=not given)


def _dial(text: str, key: str) -> Pattern | None:
    if text[:1] not in {"D", "d"}:
        return None
    number = text[1:].removesuffix(";")
    if number in {"", "*"}:
        return Pattern(text, "D")
    prefix = number.endswith("*")
    number = number.removesuffix("*")
    if not all(character in _DIALLED for character in number):
        raise RuleError(key, f"{_quote(text)} dials what is no number", "digits, * and #, as D112 or D+39*")
    return Pattern(text, "D", False, Op.EXECUTE, (Argument(number, None, prefix),), rest=False)


def _arguments(text: str, args: str, key: str) -> tuple[tuple[Argument, ...], bool]:
    if ";" in _outside_quotes(args):
        raise RuleError(key, f"{_quote(text)} is more than one command", 'a list: deny = ["+CPIN", "+CFUN=4"]')
    given = arguments(args) or ("",)
    rest = given[-1] == "*"
    return tuple(_argument(text, one, key) for one in (given[:-1] if rest else given)), rest


def _argument(text: str, one: str, key: str) -> Argument:
    plain = unquote(one)
    if '"' in plain or "*" in _outside_quotes(one)[:-1]:
        raise RuleError(key, f"{_quote(text)} has a {'quote' if chr(34) in plain else '*'} out of place", _STAR)
    prefix = plain.endswith("*")
    plain = plain.removesuffix("*")
    return Argument(plain, None if prefix else whole(plain), prefix)


def _outside_quotes(text: str) -> str:
    return "".join(text.split('"')[::2])


def _texts(value: object, key: str, what: str, example: str) -> Sequence[str]:
    right = f'{what} or a list of up to {PATTERNS_MAX}: "{example}", ["{example}", …]'
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not 0 < len(texts) <= PATTERNS_MAX:
        raise RuleError(key, "is no text and no list of them, or has none or too many", right)
    for text in texts:
        if not isinstance(text, str):
            raise RuleError(key, "holds what is no text", right)
    return texts


def _peer(text: str) -> str:
    if not text or len(text) > PATTERN_MAX or not text.isprintable() or "*" in text[:-1]:
        right = 'a number, a login or an MQTT name, with a * at its end for any rest: "+39*"'
        raise RuleError("peer", f"{_quote(text)} names nobody", right)
    return text


def _hazards(table: Mapping[str, object], verb: Verb) -> Hazards | None:
    if "hazards" not in table:
        return None
    right = " or ".join(f'"{one.value}"' for one in Hazards)
    if verb is Verb.DENY:
        raise RuleError("hazards", "stands in a deny rule, which lets none pass", f"in an allow rule: {right}")
    for one in Hazards:
        if one.value == table["hazards"]:
            return one
    raise RuleError("hazards", f"{_quote(str(table['hazards']))} is unknown", right)


def _quote(text: str) -> str:
    return f'"{ascii(mask_line("AT" + text)[2:])[1:-1][:60]}"'


def _is_meant(peers: Sequence[str], names: Sequence[str]) -> _Match:
    if not peers:
        return _Match.YES
    if not names:
        return _Match.MAYBE
    for peer in peers:
        for name in names:
            if name == peer or (peer.endswith("*") and name.startswith(peer[:-1])):
                return _Match.YES
    return _Match.NO


def _matches(pattern: Pattern, command: Command) -> _Match:
    if not _named(pattern.name, command.name, prefix=pattern.name_prefix):
        mistaken = command.extended and acts(command) and command.name not in NO_MISTAKE
        alike = _named(pattern.letters, letters(command.name), prefix=pattern.name_prefix)
        return _Match.MAYBE if mistaken and alike and pattern.op not in {Op.READ, Op.TEST} else _Match.NO
    if pattern.op is None:
        return _Match.YES
    if pattern.op is not command.op:
        return _Match.NO
    if command.name == "D":
        return _dials(pattern.arguments, command.args)
    if command.op is Op.EXECUTE and not command.extended:
        # V.250 5.3.1: a number that is left out is 0.
        return _all(pattern, (command.args or "0",)) if pattern.arguments else _Match.YES
    if command.op is Op.SET:
        return _all(pattern, arguments(command.args) or ("",))
    return _Match.YES


def _named(wanted: str, name: str, *, prefix: bool) -> bool:
    return name.startswith(wanted) if prefix else name == wanted


def _all(pattern: Pattern, given: Sequence[str]) -> _Match:
    least = _Match.YES
    if len(given) < len(pattern.arguments) or (len(given) > len(pattern.arguments) and not pattern.rest):
        least = _Match.MAYBE
    return min([least, *map(_is, pattern.arguments, given)])


def _is(wanted: Argument, given: str) -> _Match:
    text, value = unquote(given), whole(given)
    if wanted.prefix:
        if text.startswith(wanted.text) or (value is not None and str(value).startswith(wanted.text)):
            return _Match.YES
        alike = text.upper().startswith(wanted.text.upper())
    elif wanted.number is not None:
        if value == wanted.number:
            return _Match.YES
        # What is no number may be read as one, and a large one may be cut to its last octets.
        alike = value is None or (value > 255 and (value - wanted.number) % 256 == 0)
    else:
        if text == wanted.text:
            return _Match.YES
        alike = text.upper() == wanted.text.upper()
    return _Match.MAYBE if alike or not text or "\\" in text or '"' in text else _Match.NO


def _dials(wanted: Sequence[Argument], dial_string: str) -> _Match:
    """Compare what is dialled; without a wanted number (`D!`, `*!`) any is meant."""
    if not wanted:
        return _Match.YES
    (number,) = wanted
    unknown = any(character not in _DIALLED + _PASSED_OVER for character in dial_string)
    digits = "".join(character for character in dial_string if character in _DIALLED)
    if digits.startswith(number.text) if number.prefix else digits == number.text:
        return _Match.MAYBE if unknown else _Match.YES
    return _Match.MAYBE if unknown else _Match.NO
