# SPDX-License-Identifier: Apache-2.0
"""The control socket's messages, shared by the daemon and atrunctl: JSON objects, one a line, over a unix socket.

A client sends requests (`op`), the daemon answers with events (`event`). Requests are read strictly, for a misspelt key
must not be taken for its default; answers may grow, so an unknown key in one is passed over.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Final

from atrund.fields import LINE_MAX as LINE_MAX  # noqa: PLC0414 - of the messages, too
from atrund.fields import ControlError as ControlError  # noqa: PLC0414 - as above
from atrund.fields import Fields, quote

TIMEOUT_MS_DEFAULT: Final = 300_000
TIMEOUT_MS_MIN: Final = 1_000
TIMEOUT_MS_MAX: Final = 3_600_000
"""Limits of a request's own deadline; the same as over MQTT."""

ID_MAX: Final = 128
"""Longest id that a client may give its request, in characters: room for a uuid with a name before it."""

LEND_DEFAULT: Final = 600
LEND_MAX: Final = 86_400
"""Seconds that the ports are lent for: a firmware update takes minutes, and who needs a day has forgotten it."""

LOG_PAGE: Final = 20
"""Entries of the history of SMS in one answer: of the longest, with a text of 160 characters, they fill 40 kB."""

AUDIT_PAGE: Final = 100
"""Rows of the audit in one answer, or fewer where they are long; 200 octets each are usual."""

FILTER_MAX: Final = 256
"""Characters of what rows of the audit are looked for by: the longest login and topic level are shorter."""

DOORS: Final = ("sms", "tcp", "mqtt", "local", "monitor")
"""What a request may name as a door."""


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


@dataclass(frozen=True, slots=True)
class AuditRequest:
    """Show rows of the audit, at most `limit`, the newest first; `before`: only those before that number.

    The others say which: `since` and `until` (RFC 3339 in UTC with milliseconds), `door`, `id`, and `peer` and `event`
    or what they begin with. "" is any.
    """

    limit: int = AUDIT_PAGE
    before: int = 0
    since: str = ""
    until: str = ""
    door: str = ""
    peer: str = ""
    event: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class AuditVerifyRequest:
    """Check the chain over the audit, and tell the hash of row `at`."""

    at: int = 0


Reading = ExplainRequest | SettingsRequest
"""What changes nothing and tells no secret: for those who may read the status."""
Administering = (
    ExportRequest | ImportRequest | ResetRequest | DoorsRequest | SmsLogRequest | AuditRequest | AuditVerifyRequest
)
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
    fields = Fields(line)
    op = fields.text("op")
    read = _REQUESTS.get(op)
    if read is None:
        raise ControlError(f"op: {quote(op)} is unknown; known are {', '.join(map(quote, _REQUESTS))}")
    request = read(fields)
    fields.refuse_others(op)
    return request


def decode_answer(line: bytes) -> Answer:
    """The answer of a line, with or without its LF. Raises ControlError."""
    fields = Fields(line)
    event = fields.text("event")
    read = _ANSWERS.get(event)
    if read is None:
        raise ControlError(f"event: {quote(event)} is unknown to this version of atrunctl")
    return read(fields)


_DURATION_MAX: Final = 2**53
"""The largest whole number that every reader of JSON keeps exactly (RFC 8259 section 6)."""

_FILTERS: Final = ("since", "until", "door", "peer", "event", "id")

_REQUESTS: Final[dict[str, Callable[[Fields], Request]]] = {
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
    "audit": lambda fields: AuditRequest(
        fields.whole("limit", 1, AUDIT_PAGE, default=AUDIT_PAGE),
        fields.whole("before", 0, _DURATION_MAX, default=0),
        **{key: fields.unicode_or_null(key, FILTER_MAX) or "" for key in _FILTERS},
    ),
    "audit_verify": lambda fields: AuditVerifyRequest(fields.whole("at", 0, _DURATION_MAX, default=0)),
    "doors": lambda fields: DoorsRequest(fields.one_of("action", ("close", "open")), fields.names("doors")),
}

_ANSWERS: Final[dict[str, Callable[[Fields], Answer]]] = {
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
    AuditRequest: ("op", "audit"),
    AuditVerifyRequest: ("op", "audit_verify"),
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
