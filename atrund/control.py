# SPDX-License-Identifier: Apache-2.0
"""The control socket's messages, shared by the daemon and atrunctl: JSON objects, one a line, over a unix socket.

A client sends requests (`op`), the daemon answers with events (`event`). Requests are read strictly, for a misspelt key
must not be taken for its default; answers may grow, so an unknown key in one is passed over.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Final

LINE_MAX: Final = 65536
"""Longest line in bytes, its LF included, either way: 32 times the longest command (REQ-4), and a bound on memory."""

TIMEOUT_MS_DEFAULT: Final = 300_000
TIMEOUT_MS_MIN: Final = 1_000
TIMEOUT_MS_MAX: Final = 3_600_000
"""Limits of a request's own deadline; the same as over MQTT."""

ID_MAX: Final = 128
"""Longest id that a client may give its request, in characters: room for a uuid with a name before it."""

NAMES_MAX: Final = 256
"""Names in a request: there are some 150 settings, and a look at each takes its time."""

NESTED_MAX: Final = 8
"""Levels of a value in a request: the deepest setting has three, and Python's own limit depends on who looks."""

LEND_DEFAULT: Final = 600
LEND_MAX: Final = 86_400
"""Seconds that the ports are lent for: a firmware update takes minutes, and who needs a day has forgotten it."""

LOG_PAGE: Final = 20
"""Entries of the history of SMS in one answer: of the longest, with a text of 160 characters, they fill 40 kB."""

DOORS: Final = ("sms", "tcp", "mqtt", "local", "monitor")
"""What a request may name as a door."""


class ControlError(ValueError):
    """A line that is no message: names the key, what was wrong and what would be right."""


@dataclass(frozen=True, slots=True)
class AtRequest:
    """Run the command line `cmd`. `id`, if given, comes back in the accepted event; `timeout_ms` is its deadline."""

    cmd: str
    timeout_ms: int = TIMEOUT_MS_DEFAULT
    id: str | None = None


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """What is the daemon doing?"""


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Give up the command of this connection that waits or runs."""


@dataclass(frozen=True, slots=True)
class ExplainRequest:
    """What would happen to `cmd` at a door, asked by `peer`; without `cmd`: would its firewall let `peer` in?

    `digest`: the SMS is one with a digest, so that its sender is not forged.
    """

    door: str
    cmd: str | None = None
    peer: str | None = None
    digest: bool = False


@dataclass(frozen=True, slots=True)
class SettingsRequest:
    """Show settings, secrets masked: those of these keys and groups of keys, all if there are none."""

    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """Give what commands set, as an import takes it; with `secrets` or without the settings that hold any."""

    secrets: bool = False


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """Set all of these settings, by key, or none of them."""

    settings: dict[str, object] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ResetRequest:
    """Put the settings of these keys and groups of keys back to the file's values."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DoorsRequest:
    """Close doors at once, or let them be open again as their settings say; `action` is `close` or `open`."""

    action: str
    doors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LendRequest:
    """Lend the module's ports for at most so many seconds, or until this connection ends."""

    seconds: int = LEND_DEFAULT


@dataclass(frozen=True, slots=True)
class SmsLogRequest:
    """Show the history of SMS, at most `limit` entries, the newest first; `before`: only those before that number."""

    limit: int = LOG_PAGE
    before: int = 0


Reading = ExplainRequest | SettingsRequest
"""What changes nothing and tells no secret: for those who may read the status."""
Administering = ExportRequest | ImportRequest | ResetRequest | DoorsRequest | SmsLogRequest
"""What changes something, or tells what is not for everybody: for those who may run commands."""
Request = AtRequest | StatusRequest | CancelRequest | LendRequest | Reading | Administering


@dataclass(frozen=True, slots=True)
class AcceptedAnswer:
    """The command is on its way; `rid` is the daemon's own id for it (REQ-2), `id` the client's."""

    rid: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class LineAnswer:
    """One line of the response, as it came."""

    text: str


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    """The end of a command: the state it ended in, the final result if there was one, the reason of a refusal."""

    state: str
    final: str | None
    reason: str | None
    duration_ms: int
    rid: str
    detail: str | None = None
    """For a person: what was wrong, and what would be right."""


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """The state of everything: sections, and in them names and values."""

    status: dict[str, object]


@dataclass(frozen=True, slots=True)
class LentAnswer:
    """The module's ports are lent: the first one's `path`. `over`: the time is, and they are wanted back."""

    path: str
    over: bool = False


@dataclass(frozen=True, slots=True)
class DoneAnswer:
    """What was asked for is done; `told` is what there is to tell about it."""

    told: dict[str, object] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """The request could not be taken; the message is for people, and so is each of the `mistakes` in it."""

    message: str
    mistakes: tuple[str, ...] = ()


Answer = AcceptedAnswer | LineAnswer | FinalAnswer | StatusAnswer | LentAnswer | DoneAnswer | ErrorAnswer


def encode(message: Request | Answer) -> bytes:
    """The line of a message, LF included. Raises ControlError past LINE_MAX."""
    kind, name = _NAMES[type(message)]
    values: dict[str, object] = {kind: name}
    values |= {spec.name: getattr(message, spec.name) for spec in fields(message)}
    for key, usual in _LEFT_OUT.items():
        if key in values and values[key] == usual:
            del values[key]
    # ASCII alone: whatever surrogates a text holds, the line can be sent.
    line = json.dumps(values, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"
    if len(line) > LINE_MAX:
        raise ControlError(f"the message has {len(line)} bytes; at most {LINE_MAX} can be sent")
    return line


def decode_request(line: bytes) -> Request:
    """The request of a line, with or without its LF. Raises ControlError."""
    fields = _Fields(line)
    op = fields.text("op")
    read = _REQUESTS.get(op)
    if read is None:
        raise ControlError(f"op: {_quote(op)} is unknown; known are {', '.join(map(_quote, _REQUESTS))}")
    request = read(fields)
    fields.refuse_others(op)
    return request


def decode_answer(line: bytes) -> Answer:
    """The answer of a line, with or without its LF. Raises ControlError."""
    fields = _Fields(line)
    event = fields.text("event")
    read = _ANSWERS.get(event)
    if read is None:
        raise ControlError(f"event: {_quote(event)} is unknown to this version of atrunctl")
    return read(fields)


class _Fields:
    """The keys and values of a line; remembers which were asked for."""

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
        self._asked.add(key)
        if key not in self._values:
            raise ControlError(f"{key}: missing; right is {right}")
        return self._values[key]

    def text(self, key: str) -> str:
        value = self.get(key, "a text")
        if not isinstance(value, str):
            raise ControlError(f"{key}: {_kind(value)} given; right is a text")
        return value

    def text_or_null(self, key: str, longest: int = LINE_MAX) -> str | None:
        self._asked.add(key)
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, str) or len(value) > longest:
            given = f"a text of {len(value)} characters" if isinstance(value, str) else _kind(value)
            raise ControlError(f"{key}: {given} given; right is a text of at most {longest} characters, or null")
        return value

    def unicode(self, key: str) -> str:
        value = self.text(key)
        _expect_unicode(key, value)
        return value

    def unicode_or_null(self, key: str, longest: int = LINE_MAX) -> str | None:
        value = self.text_or_null(key, longest)
        _expect_unicode(key, value or "")
        return value

    def texts(self, key: str, right: str = "a list of texts") -> tuple[str, ...]:
        value = self.get(key, right)
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise ControlError(f"{key}: {_kind(value)} given; right is {right}")
        _expect_unicode(key, "".join(value))
        return tuple(value)

    def names(self, key: str) -> tuple[str, ...]:
        value = self.texts(key)
        if len(value) > NAMES_MAX:
            raise ControlError(f"{key}: {len(value)} texts given; right is a list of at most {NAMES_MAX}")
        return value

    def truth(self, key: str) -> bool:
        value = self._values.get(key, False)
        self._asked.add(key)
        if not isinstance(value, bool):
            raise ControlError(f"{key}: {_kind(value)} given; right is true or false")
        return value

    def one_of(self, key: str, known: tuple[str, ...]) -> str:
        value = self.text(key)
        if value not in known:
            raise ControlError(f"{key}: {_quote(value)} is unknown; right is {' or '.join(map(_quote, known))}")
        return value

    def whole(self, key: str, least: int, most: int, default: int | None = None) -> int:
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
        value = self.get(key, "an object")
        if not isinstance(value, dict):
            raise ControlError(f"{key}: {_kind(value)} given; right is an object")
        return value

    def table_of_unicode(self, key: str) -> dict[str, object]:
        value = self.table(key)
        if _is_deeper(value, NESTED_MAX):
            raise ControlError(f"{key}: nested too deep; right are at most {NESTED_MAX} levels")
        _expect_unicode(key, json.dumps(value, ensure_ascii=False))
        return value

    def has(self, key: str) -> bool:
        return key in self._values

    def refuse_others(self, op: str) -> None:
        others = sorted(self._values.keys() - self._asked)
        if others:
            known = ", ".join(sorted(self._asked))
            raise ControlError(f'{_quote(others[0])}: unknown key for op "{op}"; known are {known}')


_DURATION_MAX: Final = 2**53
"""The largest whole number that every reader of JSON keeps exactly (RFC 8259 section 6)."""

_REQUESTS: Final[dict[str, Callable[[_Fields], Request]]] = {
    "at": lambda fields: AtRequest(
        cmd=fields.unicode("cmd"),
        timeout_ms=fields.whole("timeout_ms", TIMEOUT_MS_MIN, TIMEOUT_MS_MAX, default=TIMEOUT_MS_DEFAULT),
        id=fields.unicode_or_null("id", longest=ID_MAX),
    ),
    "status": lambda _fields: StatusRequest(),
    "cancel": lambda _fields: CancelRequest(),
    "explain": lambda fields: ExplainRequest(
        door=fields.one_of("door", DOORS),
        cmd=fields.unicode_or_null("cmd"),
        peer=fields.unicode_or_null("peer"),
        digest=fields.truth("digest"),
    ),
    "settings": lambda fields: SettingsRequest(fields.names("keys")),
    "export": lambda fields: ExportRequest(fields.truth("secrets")),
    "import": lambda fields: ImportRequest(fields.table_of_unicode("settings")),
    "reset": lambda fields: ResetRequest(fields.names("keys")),
    "lend": lambda fields: LendRequest(fields.whole("seconds", 1, LEND_MAX, default=LEND_DEFAULT)),
    "sms_log": lambda fields: SmsLogRequest(
        fields.whole("limit", 1, LOG_PAGE, default=LOG_PAGE), fields.whole("before", 0, _DURATION_MAX, default=0)
    ),
    "doors": lambda fields: DoorsRequest(fields.one_of("action", ("close", "open")), fields.names("doors")),
}

_ANSWERS: Final[dict[str, Callable[[_Fields], Answer]]] = {
    "accepted": lambda fields: AcceptedAnswer(fields.text("rid"), fields.text_or_null("id")),
    "line": lambda fields: LineAnswer(fields.text("text")),
    "final": lambda fields: FinalAnswer(
        state=fields.text("state"),
        final=fields.text_or_null("final"),
        reason=fields.text_or_null("reason"),
        duration_ms=fields.whole("duration_ms", 0, _DURATION_MAX),
        rid=fields.text("rid"),
        detail=fields.text_or_null("detail"),
    ),
    "status": lambda fields: StatusAnswer(fields.table("status")),
    "lent": lambda fields: LentAnswer(fields.text("path"), fields.truth("over")),
    "done": lambda fields: DoneAnswer(fields.table("told")),
    "error": lambda fields: ErrorAnswer(
        fields.text("message"), fields.texts("mistakes") if fields.has("mistakes") else ()
    ),
}

_NAMES: Final[dict[type[Any], tuple[str, str]]] = {
    AtRequest: ("op", "at"),
    StatusRequest: ("op", "status"),
    CancelRequest: ("op", "cancel"),
    ExplainRequest: ("op", "explain"),
    SettingsRequest: ("op", "settings"),
    ExportRequest: ("op", "export"),
    ImportRequest: ("op", "import"),
    ResetRequest: ("op", "reset"),
    DoorsRequest: ("op", "doors"),
    SmsLogRequest: ("op", "sms_log"),
    LendRequest: ("op", "lend"),
    AcceptedAnswer: ("event", "accepted"),
    LineAnswer: ("event", "line"),
    FinalAnswer: ("event", "final"),
    StatusAnswer: ("event", "status"),
    LentAnswer: ("event", "lent"),
    DoneAnswer: ("event", "done"),
    ErrorAnswer: ("event", "error"),
}
"""Under which key a message's name stands, and its name; a field of the message is a key of the same name."""

_LEFT_OUT: Final[dict[str, object]] = {"mistakes": (), "detail": None}
"""Keys that are only there to say something."""


def _no_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object whose keys are all different: of two equal ones no reader could say which counts."""
    values: dict[str, object] = {}
    for key, value in pairs:
        if key in values:
            raise ControlError(f"{_quote(key)}: given twice; once is right")
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


def _quote(text: str) -> str:
    """A text of the other side, short and harmless enough for an error message."""
    return json.dumps(text if len(text) <= 40 else text[:40] + "…")
