# SPDX-License-Identifier: Apache-2.0
"""What is told about a request on MQTT and in the audit: payloads as plain values (shared contract: version 1).

The sequence number is not here: it belongs to the spool's row and is added when the row is published.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

VERSION: Final = 1
NODE: Final = r"[A-Za-z0-9._-]{1,64}"
PREFIX: Final = r"(?!\$)[^+#/\x00-\x20]+(/[^+#/\x00-\x20]+)*"
"""What a node may be called, and what may stand in front of it in topics: regular expressions."""
LINES_MAX: Final = 65536
"""Characters of an answer that a record carries; brokers of this field take messages of 128 kB and more."""
DETAIL_MAX: Final = 500
"""Characters of a detail: it is for a person, and the longest made here lists all keys or commands that there are."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """When and in which run something was said: `ts` RFC 3339 UTC with milliseconds, `known` whether to believe it."""

    session: str
    ts: str
    known: bool

    def fields(self) -> dict[str, Any]:
        """Return the fields that every payload begins with."""
        return {"v": VERSION, "session": self.session, "ts": self.ts, "clock": "ok" if self.known else "unset"}


def request_record(
    stamp: Stamp,
    *,
    rid: str,
    correlation: str | None,
    door: str,
    peer: str,
    cmd: str,
    state: str,
    reason: str | None = None,
    final: str | None = None,
    lines: tuple[str, ...] = (),
    truncated: bool = False,
    queued_ms: int = 0,
    duration_ms: int = 0,
) -> dict[str, Any]:
    """Return the payload of `at/response`, `event/command` and `event/response`."""
    kept, cut = _within(lines, LINES_MAX)
    printable = all(_is_printable(line) for line in kept)
    return {
        **stamp.fields(),
        "id": correlation if correlation is not None else rid,
        "rid": rid,
        "door": door,
        "peer": _plain(peer),
        "cmd": _plain(cmd),
        "state": state,
        "final": None if final is None else _shown(final),
        "lines": [_shown(line) for line in kept],
        "raw_b64": None if printable else base64.b64encode("\r\n".join(kept).encode("latin-1", "replace")).decode(),
        "queued_ms": queued_ms,
        "duration_ms": duration_ms,
        "truncated": truncated or cut,
        "reason": reason,
    }


def answer_record(record: Mapping[str, Any], detail: str) -> dict[str, Any]:
    """Return the payload of `at/response`: the record with its `detail`, which says to a person why it ended so."""
    return {**record, "detail": _plain(detail[:DETAIL_MAX]) or None}


def properties(payload: Mapping[str, Any]) -> dict[str, str]:
    """Return the User Properties of MQTT 5 that go with a payload, so that a broker's rules may sort by them."""
    return {name: str(payload[name]) for name in ("door", "state") if name in payload}


def session_record(
    stamp: Stamp, *, door: str, peer: str, what: str, reason: str | None = None, rid: str = ""
) -> dict[str, Any]:
    """Return the payload of `event/session`: somebody came, went, was let in or was kept out; `rid` if of a request."""
    told = {"door": door, "peer": _plain(peer), "event": _plain(what)} | ({"rid": rid} if rid else {})
    return {**stamp.fields(), **told, "reason": None if reason is None else _plain(reason)}


def received_record(
    stamp: Stamp,
    *,
    peer: str,
    sent: str | None,
    text: str | None,
    raw: bytes | None,
    part: tuple[int, int, int] | None,
    withheld: bool,
) -> dict[str, Any]:
    """Return the payload of `sms/received`: an SMS that is no ATRUN SMS; `raw` is what is no text.

    `sent` is the service centre's time (RFC 3339). `part`: reference, total and index of a part of a longer message,
    which are put together by whoever reads them. `withheld`: what was in it is not published.
    """
    return {
        **stamp.fields(),
        "peer": _plain(peer),
        "sent": sent,
        "text": None if text is None else _plain(text),
        "raw_b64": None if raw is None else base64.b64encode(raw).decode(),
        "part": None if part is None else dict(zip(("reference", "total", "index"), part, strict=True)),
        "withheld": withheld,
    }


def status_record(stamp: Stamp, *, state: str, reason: str | None = None) -> dict[str, Any]:
    """Return the payload of `status`, which the will is made of too."""
    return {**stamp.fields(), "state": state, "reason": reason}


def state_record(stamp: Stamp, module: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload of `module/state`: port, SIM, registration, operator, signal, SMS store, last error."""
    return {**stamp.fields(), **module}


def info_record(stamp: Stamp, info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload of `info`: versions, module, doors, limits."""
    return {**stamp.fields(), **info}


def urc_record(stamp: Stamp, lines: tuple[str, ...]) -> dict[str, Any]:
    """Return the payload of `urc`: an unsolicited code, two lines for those that carry a PDU or text."""
    return {**stamp.fields(), "lines": [_shown(line) for line in lines]}


def metrics_record(
    stamp: Stamp,
    *,
    uptime_s: int,
    run_s: int,
    cpu_s: float,
    memory_kib: int,
    running: int,
    waiting: int,
    requests: Mapping[str, int],
    ended: Mapping[str, int],
    outbox: int | None,
    spool_bytes: int | None,
    aside: int | None,
    dropped: int | None,
    missed: int,
    connects: int,
    set_ups: int,
    kept_out: int,
    audit_head: str = "",
) -> dict[str, Any]:
    """Return the payload of `metrics`; `requests` is by door and `ended` by state, a key of its own for each.

    Counted since the start, but for `run_s` and `dropped`. What is counted on disk is None where that does not say:
    `outbox` records of `spool_bytes` that wait for the broker, `aside` that can't be sent, and `dropped` for room.
    `audit_head` is the newest hash of the audit's chain behind its row's number, left out while there is none.
    """
    return {
        **stamp.fields(),
        "uptime_s": uptime_s,
        "run_s": run_s,
        "cpu_s": cpu_s,
        "memory_kib": memory_kib,
        "running": running,
        "waiting": waiting,
        **{f"requests_{door}": count for door, count in requests.items()},
        **{f"ended_{state}": count for state, count in ended.items()},
        "outbox": outbox,
        "spool_bytes": spool_bytes,
        "aside": aside,
        "dropped": dropped,
        "missed": missed,
        "connects": connects,
        "set_ups": set_ups,
        "kept_out": kept_out,
        **({"audit_head": audit_head} if audit_head else {}),
    }


def to_json(payload: Mapping[str, Any]) -> str:
    """Write a payload as compact JSON."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":"))


def _within(lines: tuple[str, ...], cap: int) -> tuple[tuple[str, ...], bool]:
    kept: list[str] = []
    for line in lines:
        cap -= len(_shown(line))
        if cap < 0:
            return tuple(kept), True
        kept.append(line)
    return tuple(kept), False


def _is_printable(line: str) -> bool:
    return all(" " <= character <= "~" for character in line)


def _shown(line: str) -> str:
    """Control characters escaped, so that no consumer's terminal or parser is told anything by them."""
    return "".join(character if " " <= character <= "~" else _escaped(character) for character in line)


def _plain(text: str) -> str:
    """Text that a person or a peer chose: what can't be seen or turns the order is escaped, other letters stay."""
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
