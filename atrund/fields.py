# SPDX-License-Identifier: Apache-2.0
"""One JSON object of a line, read strictly: each key by its kind, and none that nobody asked for."""

import json
from typing import Final

LINE_MAX: Final = 65536
"""Longest line in bytes, its LF included, either way: 32 times the longest command (REQ-4), and a bound on memory."""

NAMES_MAX: Final = 256
"""Names in a request: there are some 150 settings, and a look at each takes its time."""

NESTED_MAX: Final = 8
"""Levels of a value in a request: the deepest setting has three, and Python's own limit depends on who looks."""


class ControlError(ValueError):
    """A line that is no message: names the key, what was wrong and what would be right."""


class Fields:
    """The keys and values of a line; remembers which were asked for. Each method raises `ControlError`."""

    def __init__(self, line: bytes) -> None:
        if len(line) > LINE_MAX:
            raise ControlError(f"the line has {len(line)} bytes; at most {LINE_MAX} are read")
        try:
            values = json.loads(line.decode("utf-8"), object_pairs_hook=_no_twins, parse_constant=_no_constant)
        except UnicodeDecodeError as error:
            raise ControlError(f"the line is no UTF-8 at byte {error.start}") from None
        except json.JSONDecodeError as error:
            raise ControlError(f"the line is no JSON: {error.msg} at column {error.colno}") from None
        except ControlError:
            raise
        except (RecursionError, ValueError):
            # Nesting, and a number of thousands of digits, that Python refuses to read.
            raise ControlError("the line is no message: nested too deep, or a number too long") from None
        if not isinstance(values, dict):
            raise ControlError('the line is no JSON object; right is for example {"op":"at","cmd":"AT+CSQ"}')
        self._values: dict[str, object] = values
        self._asked: set[str] = set()

    def get(self, key: str, right: str) -> object:
        """The value of a key that has to be there; `right` says what it should be."""
        self._asked.add(key)
        if key not in self._values:
            raise ControlError(f"{key}: missing; right is {right}")
        return self._values[key]

    def text(self, key: str) -> str:
        """A text."""
        value = self.get(key, "a text")
        if not isinstance(value, str):
            raise ControlError(f"{key}: {_kind(value)} given; right is a text")
        return value

    def text_or_null(self, key: str, longest: int = LINE_MAX) -> str | None:
        """A text of so many characters at most, None where there is none."""
        self._asked.add(key)
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, str) or len(value) > longest:
            given = f"a text of {len(value)} characters" if isinstance(value, str) else _kind(value)
            raise ControlError(f"{key}: {given} given; right is a text of at most {longest} characters, or null")
        return value

    def unicode(self, key: str) -> str:
        """A text that can be carried further."""
        value = self.text(key)
        _expect_unicode(key, value)
        return value

    def unicode_or_null(self, key: str, longest: int = LINE_MAX) -> str | None:
        """The same, None where there is none."""
        value = self.text_or_null(key, longest)
        _expect_unicode(key, value or "")
        return value

    def texts(self, key: str, right: str = "a list of texts") -> tuple[str, ...]:
        """A list of texts."""
        value = self.get(key, right)
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise ControlError(f"{key}: {_kind(value)} given; right is {right}")
        _expect_unicode(key, "".join(value))
        return tuple(value)

    def names(self, key: str) -> tuple[str, ...]:
        """A list of texts, of bounded length."""
        value = self.texts(key)
        if len(value) > NAMES_MAX:
            raise ControlError(f"{key}: {len(value)} texts given; right is a list of at most {NAMES_MAX}")
        return value

    def truth(self, key: str) -> bool:
        """A truth value, false where there is none."""
        value = self._values.get(key, False)
        self._asked.add(key)
        if not isinstance(value, bool):
            raise ControlError(f"{key}: {_kind(value)} given; right is true or false")
        return value

    def one_of(self, key: str, known: tuple[str, ...]) -> str:
        """One of these texts."""
        value = self.text(key)
        if value not in known:
            raise ControlError(f"{key}: {quote(value)} is unknown; right is {' or '.join(map(quote, known))}")
        return value

    def whole(self, key: str, least: int, most: int, default: int | None = None) -> int:
        """A whole number in a range."""
        right = f"a whole number from {least} to {most}"
        self._asked.add(key)
        if default is not None and key not in self._values:
            return default
        value = self.get(key, right)
        # bool is an int to Python, and none to whoever wrote the request.
        if not isinstance(value, int) or isinstance(value, bool):
            raise ControlError(f"{key}: {_kind(value)} given; right is {right}")
        if not least <= value <= most:
            raise ControlError(f"{key}: {value} is out of range; right is {right}")
        return value

    def table(self, key: str) -> dict[str, object]:
        """An object."""
        value = self.get(key, "an object")
        if not isinstance(value, dict):
            raise ControlError(f"{key}: {_kind(value)} given; right is an object")
        return value

    def table_of_unicode(self, key: str) -> dict[str, object]:
        """An object whose values are not nested deep and can be carried further."""
        value = self.table(key)
        if _is_deeper(value, NESTED_MAX):
            raise ControlError(f"{key}: nested too deep; right are at most {NESTED_MAX} levels")
        _expect_unicode(key, json.dumps(value, ensure_ascii=False))
        return value

    def has(self, key: str) -> bool:
        """Whether a key is there."""
        return key in self._values

    def refuse_others(self, op: str) -> None:
        """Refuse every key that was not asked for."""
        others = sorted(self._values.keys() - self._asked)
        if others:
            known = ", ".join(sorted(self._asked))
            raise ControlError(f'{quote(others[0])}: unknown key for op "{op}"; known are {known}')


def _no_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object whose keys are all different: of two equal ones no reader could say which counts."""
    values: dict[str, object] = {}
    for key, value in pairs:
        if key in values:
            raise ControlError(f"{quote(key)}: given twice; once is right")
        values[key] = value
    return values


def _no_constant(name: str) -> object:
    raise ControlError(f"{name} is no number of JSON (RFC 8259 section 6)")


def _is_deeper(value: object, levels: int) -> bool:
    """Whether lists and objects are nested deeper in a value than so many levels."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(levels == 0 or _is_deeper(one, levels - 1) for one in inside)


def _expect_unicode(key: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        # JSON can spell what no encoding can carry further.
        raise ControlError(f"{key}: half of a surrogate pair in it; right is Unicode text") from None


def _kind(value: object) -> str:
    if value is None:
        return "null"
    for kind, name in ((bool, "a truth value"), (str, "a text"), (int | float, "a number"), (list, "a list")):
        if isinstance(value, kind):
            return name
    return "an object"


def quote(text: str) -> str:
    """A text of the other side, short and harmless enough for an error message."""
    return json.dumps(text if len(text) <= 40 else text[:40] + "…")
