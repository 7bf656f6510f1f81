# SPDX-License-Identifier: Apache-2.0
"""The log: structlog set up once, for a terminal, systemd's journal or JSON lines.

Rules of this file: every entry, our own and that of a library, passes `bounds` and then `redact` before it is written,
and nothing else hides secrets. No value holds a line break, save `exception`, whose lines are written so that none can
be taken for an entry.
"""

import datetime as dt
import enum
import json
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TextIO

import structlog

from atrund.atrun.secrets import Secret, escape, mask_answer, mask_line
from atrund.journal.bounds import Bounds
from atrund.journal.kinds import is_notice, kind_of, message_id
from atrund.journal.sinks import JOURNAL_SOCKET, JournalSink, Sink, StreamSink

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "console", "journal", "json"]
Event = MutableMapping[str, Any]
Shown = str | int | float | list["Shown"] | dict[str, "Shown"] | None

# A longer value is cut: the longest that we mean to log is a command line, a tenth of it.
VALUE_MAX: Final = 16 * 1024

# How deep lists and tables inside a value are followed; a deeper one shows as "…".
DEPTH_MAX: Final = 4

# Levels as journald has them (syslog's, RFC 5424 6.2.1).
#
# error: somebody must act. warning: something is not as it should be. notice: somebody was kept out, or changed
# something. info: what was done. debug: for who looks for a fault.
PRIORITY: Final = {"debug": 7, "info": 6, "notice": 5, "warning": 4, "error": 3, "critical": 2}

# Keys that make up the sentence of an entry, and have field names of their own.
FIELDS: Final = {
    "id": "ATRUND_ID",
    "door": "ATRUND_DOOR",
    "peer": "ATRUND_PEER",
    "command": "ATRUND_COMMAND",
    "state": "ATRUND_STATE",
    "final": "ATRUND_FINAL",
    "duration_ms": "ATRUND_DURATION_MS",
    "reason": "ATRUND_REASON",
}

# Keys whose text is a line from the module.
_ANSWERS: Final = frozenset({"final", "line", "lines"})

_processors: list[structlog.typing.Processor] = []


@dataclass(frozen=True, slots=True)
class Journal:
    """The log as it is set up. `format` is never `auto`."""

    format: Format
    sink: Sink
    _handler: logging.Handler
    _bounds: Bounds

    @property
    def dropped(self) -> int:
        """Entries lost so far and not yet reported in the log itself."""
        return self.sink.dropped

    def close(self, timeout: float = 1.0) -> None:
        """Writes what waits, for at most `timeout` seconds, and takes the log down; later entries go nowhere."""
        logging.getLogger().removeHandler(self._handler)
        _processors[:] = [_discard]
        self._bounds.close()
        self.sink.close(timeout)


def configure(
    level: Level,
    format: Format,  # noqa: A002 - the name of the option
    *,
    environ: Mapping[str, str] = os.environ,
    stream: TextIO = sys.stderr,
    journal_socket: str = JOURNAL_SOCKET,
    clock: Callable[[], float] = time.monotonic,
) -> Journal:
    """Sets up structlog and the standard library's logging. Entries below `level` are not made, nor more of a kind than
    `limits` allows by `clock`, which gives seconds; their count is.

    `auto` is the journal when `stream` is connected to it (`$JOURNAL_STREAM`, systemd.exec(5)) and its socket is there,
    else lines for people. Call `Journal.close` at the end, and before setting it up anew.
    """
    if format == "auto":
        native = _is_journal(environ.get("JOURNAL_STREAM", ""), stream) and Path(journal_socket).exists()
        format = "journal" if native else "console"  # noqa: A001 - the name of the option
    sink: Sink
    if format == "journal":
        journal = sink = JournalSink(journal_socket, lambda lost: fields(_loss(lost)))
        emit: Callable[[Event], None] = lambda event: journal.send(fields(event))  # noqa: E731 - one of two
    else:
        render = json_line if format == "json" else console_line
        lines = sink = StreamSink(stream, lambda lost: render(_loss(lost)))
        emit = lambda event: lines.send(render(event))  # noqa: E731 - the other

    def write(_logger: object, _method: str, event: Event) -> Event:
        emit(event)
        raise structlog.DropEvent

    bounds = Bounds(lambda event: emit(redact(None, "", event)), clock)
    handler = _Foreign(emit, bounds)
    root = logging.getLogger()
    root.addHandler(handler)
    # Not below info: what libraries say at debug level is theirs to read, and paho would show payloads.
    root.setLevel(max(logging.INFO, logging.getLevelNamesMapping()[level.upper()]))
    # The same list each time: loggers that were used before keep it.
    # What is not written is not made fit to be, either: in a flood that is most of the work.
    given = (structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, bounds.judge)
    _processors[:] = [*given, rank, redact, write]
    structlog.configure(
        processors=_processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    return Journal(format, sink, handler, bounds)


def as_errors(text: str, *, environ: Mapping[str, str] = os.environ, stream: TextIO = sys.stderr) -> str:
    """Return lines as they go to `stream` before there is a log: to the journal each as an error (sd-daemon(3))."""
    if not _is_journal(environ.get("JOURNAL_STREAM", ""), stream):
        return text
    return "\n".join(f"<3>{line}" for line in text.splitlines())


def redact(_logger: object, _method: str, event: Event) -> Event:
    """Hides secrets and makes every text fit to be shown (POL-3). The one place where that is done for the log."""
    shown: dict[str, Any] = {}
    if event.get("exc_info"):
        shown["exception"] = _traceback(event["exc_info"])
    for key, value in event.items():
        if key == "event":
            shown[key] = escape(str(value))[:VALUE_MAX]
        elif key != "exc_info" and value is not None:
            shown[escape(key)] = _fit(key, value, DEPTH_MAX)
    return shown


def rank(_logger: object, _method: str, event: Event) -> Event:
    """Make a notice of an entry whose kind is worth one, in every form of the log."""
    if event.get("level") == "info" and is_notice(event):
        event["level"] = "notice"
    return event


def message(event: Mapping[str, Any]) -> str:
    """One entry as a sentence: `request ended from tcp 10.0.0.7, ok, OK, 212 ms, user=me: AT+CSQ`.

    The command is last, so that nothing in it can pass for a part of the entry; other values are quoted where that is
    needed.
    """
    text = str(event.get("event", ""))
    source = [_word(event[key]) for key in ("door", "peer") if event.get(key)]
    parts = [f"{text} from {' '.join(source)}" if source else text]
    parts += [_word(event[key]) for key in ("state", "final", "reason") if key in event]
    if "duration_ms" in event:
        parts.append(f"{_word(event['duration_ms'])} ms")
    known = {"event", "level", "exception", *FIELDS}
    parts += [f"{key}={_word(value)}" for key, value in event.items() if key not in known]
    command = f": {event['command']}" if "command" in event else ""
    exception = f" ({str(event['exception']).rpartition(chr(10))[2].strip()})" if "exception" in event else ""
    return ", ".join(parts) + exception + command


def fields(event: Mapping[str, Any]) -> dict[str, str]:
    """One entry as the fields of systemd's journal."""
    out = {
        "MESSAGE": message(event),
        "PRIORITY": str(PRIORITY.get(event.get("level", "info"), 6)),
        "SYSLOG_IDENTIFIER": "atrund",
    }
    if event.get("level") != "debug":
        out["MESSAGE_ID"] = message_id(kind_of(event))
    for key, value in event.items():
        if key not in ("event", "level"):
            out[FIELDS.get(key) or _field_name(key)] = value if isinstance(value, str) else _plain(value)
    return out


def console_line(event: Mapping[str, Any]) -> str:
    """One entry as a line for people; a traceback follows it, indented."""
    head = f"{time.strftime('%H:%M:%S')} {event.get('level', 'info'):<7} {message(event)}"
    below = str(event.get("exception", "")).split("\n") if "exception" in event else []
    return "\n    ".join((head, *below))


def json_line(event: Mapping[str, Any]) -> str:
    """One entry as a JSON object on one line."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"ts": now, **event}, separators=(",", ":"))


class _Foreign(logging.Handler):
    """Takes what libraries log through the standard library."""

    def __init__(self, emit: Callable[[Event], None], bounds: Bounds) -> None:
        super().__init__()
        self._emit = emit
        self._bounds = bounds

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # a message whose arguments don't fit its format
            text = str(record.msg)
        # Their texts are not ours: unlike our own, one may have a command in it.
        event: Event = {"event": mask_line(text), "logger": record.name, "level": record.levelname.lower()}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        if self._bounds.admits(event):
            self._emit(redact(None, "", event))


def _discard(_logger: object, _method: str, _event: Event) -> Event:
    raise structlog.DropEvent


def _loss(lost: int) -> Event:
    return {"event": "log entries were lost", "level": "warning", "count": lost}


def _is_journal(journal_stream: str, stream: TextIO) -> bool:
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return journal_stream == f"{status.st_dev}:{status.st_ino}"


def _fit(key: str, value: object, depth: int) -> Shown:
    """One value with secrets hidden, as text, number, or lists and tables of such."""
    if type(value) is str:  # first, for nearly every value is one
        return _fit_text(key, value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Secret):
        return str(value)
    if isinstance(value, enum.Enum):
        return _fit(key, value.value, depth)
    if isinstance(value, Mapping):
        return {escape(str(name)): _fit(str(name), item, depth - 1) for name, item in value.items()} if depth else "…"
    if isinstance(value, list | tuple | set | frozenset):
        return [_fit(key, item, depth - 1) for item in value] if depth else "…"
    return _fit_text(key, value.decode("latin-1") if isinstance(value, bytes | bytearray) else str(value))


def _fit_text(key: str, text: str) -> str:
    hidden = mask_answer((), text) if key in _ANSWERS else mask_line(text)
    shown = escape(hidden[:VALUE_MAX])
    return shown if len(hidden) <= VALUE_MAX else shown + "…"


def _traceback(exc_info: object) -> str:
    """A traceback whose every line is fit to be shown."""
    error = exc_info if isinstance(exc_info, BaseException) else None
    if isinstance(exc_info, tuple):
        error = exc_info[1]
    elif error is None:
        error = sys.exception()
    if error is None:
        return "no exception"
    lines = "".join(traceback.format_exception(error))[-VALUE_MAX:].rstrip("\n").split("\n")
    return "\n".join(escape(mask_line(line)) for line in lines)


def _field_name(key: str) -> str:
    """A field name that journald takes: at most 64 of the characters A-Z 0-9 _ (systemd.journal-fields(7))."""
    return ("ATRUND_" + re.sub(r"[^A-Z0-9_]", "_", key.upper()))[:64]


def _plain(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, bool | list | dict) else str(value)


def _word(value: object) -> str:
    """A value inside a sentence, quoted if it could be taken for more than one."""
    text = value if isinstance(value, str) else _plain(value)
    return text if _ONE_WORD.fullmatch(text) else json.dumps(text, ensure_ascii=False)


_ONE_WORD: Final = re.compile(r'[^\s,="()]+')
