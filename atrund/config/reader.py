# SPDX-License-Identifier: Apache-2.0
"""How a TOML table becomes a frozen dataclass: the machinery, without a single option of atrund's.

A dataclass is its own table: each field is made by `option` (default value and how a TOML value is read) or by
`section` (a dataclass below it). `read_table` fills one from what TOML held and collects every mistake on the way.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from atrund.atrun.secrets import escape

T = TypeVar("T")

# A value quoted in an error is cut here: enough to find it again, and a line stays a line.
QUOTE_MAX = 60

# How alike two names must be for "did you mean": "prot" and "port" are, "policy" and "privacy" are not.
NEAR = 0.65


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake: the dotted key, what was wrong there, what would be right; and the file, where there are several."""

    key: str
    wrong: str
    right: str
    file: Path | None = None

    def __str__(self) -> str:
        return f"{self.key}: {self.wrong}; {self.right}" if self.key else f"{self.wrong}; {self.right}"


class ConfigError(ValueError):
    """A configuration file that can't be used. `mistakes` holds all that was found, `str()` has a line for each."""

    def __init__(self, path: Path, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__(path, mistakes)
        self.path = path
        self.mistakes = mistakes

    def __str__(self) -> str:
        return "\n".join(f"{escape(str(mistake.file or self.path))}: {mistake}" for mistake in self.mistakes)


class Refused(ValueError):
    """What a reader raises: one value was refused, for these mistakes."""

    def __init__(self, *mistakes: Mistake) -> None:
        super().__init__(*mistakes)
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: its dotted key, and the folders in which its relative paths are looked for, in order."""

    key: str
    folders: tuple[Path, ...]

    def at(self, name: str) -> "Place":
        """The place of `name` below this one."""
        return Place(f"{self.key}.{name}" if self.key else name, self.folders)

    def item(self, index: int) -> "Place":
        """The place of an entry of the list that stands here; the first is 0."""
        return Place(f"{self.key}[{index}]", self.folders)

    def refuse(self, wrong: str, right: str) -> NoReturn:
        """Raises `Refused` for the value that stands here."""
        raise Refused(Mistake(self.key, wrong, right))


type_names: dict[type, str] = {bool: "a boolean", int: "a number", float: "a number", str: "a string"}
type_names |= {list: "a list", dict: "a table"}


def quote(value: object) -> str:
    """A value as it may stand in an error: short, on one line, without control characters."""
    text = f'"{_visible(escape(value))}"' if isinstance(value, str) else str(value).lower()
    return text if len(text) <= QUOTE_MAX else text[: QUOTE_MAX - 3] + "..."


def expect(kind: type[T], value: object, place: Place, right: str) -> T:
    """`value` if it is of that TOML type (an integer is no boolean), else refused with `right`."""
    if type(value) is not kind:
        name = type_names.get(type(value), "a date or time")
        place.refuse(
            f"{quote(value)} is {name}" if isinstance(value, bool | int | float | str) else f"is {name}", right
        )
    return value


Read = Callable[[object, Place], T]


def option(default: T, read: Read[T], *, key: str | None = None) -> T:
    """A dataclass field read from TOML. `key` is its name there when it isn't the field's.

    Typed as the default itself, as `dataclasses.field` is, so that annotation, default and reader are checked together.
    """
    return field(default=default, metadata={"read": read, "key": key})


def required(read: Read[T]) -> T:
    """A dataclass field that has no default; for entries of a list of tables."""
    return required_as(None, read)


def required_as(key: str | None, read: Read[T]) -> T:
    """The same, under another name in TOML."""
    made: T = field(metadata={"read": read, "key": key})
    return made


def section(cls: type[T]) -> T:
    """A dataclass field that is a TOML table of its own; its default is the dataclass with all defaults."""
    return field(default_factory=cls, metadata={"section": cls})


def keys(cls: type[Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of every option of a dataclass made of `option` and `section`, in order."""
    for spec in fields(cls):
        below = spec.metadata.get("section")
        if below is not None:
            yield from keys(below, f"{prefix}{spec.name}.")
        elif "read" in spec.metadata:
            yield prefix + (spec.metadata["key"] or spec.name)


def read_table(cls: type[T], raw: object, place: Place, elsewhere: tuple[str, ...] = ()) -> tuple[T, list[Mistake]]:
    """Fills `cls` from the TOML table `raw`. Gives the value, with defaults where it was wrong, and all mistakes.

    `elsewhere` are dotted names of options of other tables, for "did you mean". Raises `Refused` when `raw` is no
    table or lacks a required key: then there is nothing to fill.
    """
    table = cast("dict[str, object]", expect(dict, raw, place, "a table of options"))
    known = {(spec.metadata.get("key") or spec.name): spec for spec in fields(cast("Any", cls)) if spec.metadata}
    mistakes = [_unknown(name, known, place, elsewhere) for name in table if name not in known]
    values: dict[str, object] = {}
    lacking = False
    for name, spec in known.items():
        below = spec.metadata.get("section")
        if name not in table:
            if spec.default is MISSING and spec.default_factory is MISSING:
                lacking = True
                mistakes.append(Mistake(place.at(name).key, "is missing", f"{place.key} needs {name}"))
            continue
        try:
            if below is None:
                values[spec.name] = spec.metadata["read"](table[name], place.at(name))
            else:
                values[spec.name], more = read_table(below, table[name], place.at(name), elsewhere)
                mistakes += more
        except Refused as refused:
            lacking = lacking or (spec.default is MISSING and spec.default_factory is MISSING)
            mistakes += refused.mistakes
    if lacking:
        raise Refused(*mistakes)
    return cls(**values), mistakes


def shown(text: str) -> str:
    """Text as it may stand in an error: on one line, nothing in it invisible."""
    return _visible(escape(text))


def _visible(text: str) -> str:
    """Text without what no terminal has a picture for, such as the characters that Unicode has not given out."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def _unknown(name: str, known: Iterable[str], place: Place, elsewhere: tuple[str, ...]) -> Mistake:
    from difflib import get_close_matches  # noqa: PLC0415 - for mistakes alone, and a router has little memory

    near = get_close_matches(name, list(known), n=1, cutoff=NEAR)
    if near:
        guess = [place.at(near[0]).key]
    else:
        guess = [other for other in elsewhere if other.rpartition(".")[2] == name]
    right = f"did you mean {' or '.join(guess)}?" if guess else f"known here: {', '.join(sorted(known))}"
    return Mistake(place.at(_printable_key(name)).key, "unknown key", right)


def _printable_key(name: str) -> str:
    return _visible(escape(name))[:QUOTE_MAX]
