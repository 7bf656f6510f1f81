# SPDX-License-Identifier: Apache-2.0
"""A request as it comes over MQTT: a bare command line, or JSON (the contract's request, version 1)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NoReturn

from atrund.atrun.request import Reason
from atrund.records import VERSION

PAYLOAD_MAX: Final = 65536
"""Octets of a request: a command line of 2,048 in JSON's longest spelling, with room to spare."""
ID_MAX: Final = 128
TIMEOUT_DEFAULT: Final = 300.0
TIMEOUT_RANGE_MS: Final = (1000, 3_600_000)


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked. `timeout` in seconds; `expires` is aware of its zone; `reply` is false for HAT too."""

    cmd: str = field(repr=False)
    id: str | None = None
    timeout: float = TIMEOUT_DEFAULT
    expires: datetime | None = None
    reply: bool = True
    reply_to: str | None = None


class AskRefused(ValueError):
    """A payload that asks nothing that can be run. `id` is the asker's own where it could be read."""

    def __init__(self, reason: Reason, detail: str, id_: str | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.id = id_


def parse_ask(payload: bytes) -> Ask:
    """Return what a payload asks. Raises `AskRefused`, which names the key, what was wrong and what would be right."""
    if len(payload) > PAYLOAD_MAX:
        raise AskRefused(Reason.TOO_LONG, f"{len(payload)} octets; at most {PAYLOAD_MAX}")
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError:
        raise AskRefused(Reason.BAD_REQUEST, "the payload is not UTF-8") from None
    if text[:2].upper() == "AT" or text[:3].upper() == "HAT":
        return _with_command(text, {})
    return _checked(_object(text))


def _object(text: str) -> Mapping[str, Any]:
    try:
        given = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        # An escape such as \ud800 is half a character: no UTF-8 can be made of it, so no record and no answer.
        json.dumps(given, ensure_ascii=False).encode("utf-8")
    except AskRefused:
        raise
    except UnicodeEncodeError:
        raise AskRefused(Reason.BAD_REQUEST, "holds half of a surrogate pair") from None
    except (ValueError, RecursionError):
        raise AskRefused(Reason.BAD_REQUEST, "neither a line that begins with AT or HAT nor JSON") from None
    if not isinstance(given, dict):
        raise AskRefused(Reason.BAD_REQUEST, "JSON, but no object")
    return given


def _checked(given: Mapping[str, Any]) -> Ask:
    id_ = given.get("id")
    asker_id = id_ if isinstance(id_, str) and 0 < len(id_) <= ID_MAX else None
    try:
        for key in given:
            if key not in _KEYS:
                raise _wrong(key, f"no such key; there are {', '.join(_KEYS)}")
        if id_ is not None and asker_id is None:
            raise _wrong("id", f"a text of 1 to {ID_MAX} characters")
        if _of(given, "v", int, f"{VERSION}", VERSION) != VERSION:
            raise _wrong("v", f"{VERSION}")
        if _of(given, "instance", int, "a number", 1) != 1:
            raise _wrong("instance", "1, the only one there is")
        if given.get("body") is not None or given.get("body_b64") is not None:
            raise AskRefused(Reason.PROMPT_UNSUPPORTED, "body: data for a prompt is not taken at this door")
        return _with_command(_of(given, "cmd", str, "a command line"), given)
    except AskRefused as refused:
        raise AskRefused(refused.reason, refused.detail, asker_id) from None


def _with_command(text: str, given: Mapping[str, Any]) -> Ask:
    hidden = text[:3].upper() == "HAT"
    return Ask(
        cmd=text[1:] if hidden else text,
        id=_of(given, "id", str, "a text", None),
        timeout=_timeout(given) / 1000,
        expires=_expires(given),
        reply=_of(given, "reply", bool, "true or false", True) and not hidden,
        reply_to=_of(given, "reply_to", str, "a topic", None),
    )


def _timeout(given: Mapping[str, Any]) -> int:
    lowest, highest = TIMEOUT_RANGE_MS
    value: int = _of(given, "timeout_ms", int, "a whole number", int(TIMEOUT_DEFAULT * 1000))
    if not lowest <= value <= highest:
        raise _wrong("timeout_ms", f"from {lowest} to {highest}")
    return value


def _expires(given: Mapping[str, Any]) -> datetime | None:
    text = _of(given, "expires", str, "a time", None)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise _wrong("expires", "a time with its zone such as 2026-11-22T08:40:00.000Z")
    return moment


_KEYS: Final = ("v", "id", "cmd", "timeout_ms", "expires", "body", "body_b64", "instance", "reply", "reply_to")
_REQUIRED: Final = object()


def _of(given: Mapping[str, Any], key: str, kind: type, right: str, default: Any = _REQUIRED) -> Any:  # noqa: ANN401 - JSON
    value = given.get(key)
    if value is None:
        if default is _REQUIRED:
            raise _wrong(key, right)
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _wrong(key, right)
    return value


def _wrong(key: str, right: str) -> AskRefused:
    return AskRefused(Reason.BAD_REQUEST, f"{key}: it must be {right}" if key in _KEYS else f"{key[:40]!r}: {right}")


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that comes twice: two readers of the same text could see two requests in it."""
    given = dict(pairs)
    if len(given) != len(pairs):
        raise AskRefused(Reason.BAD_REQUEST, "a key stands there twice")
    return given


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
