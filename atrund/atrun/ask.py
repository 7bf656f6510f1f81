# SPDX-License-Identifier: Apache-2.0
"""What comes in over MQTT (the contract, version 1): a request, a bare line or JSON, and its cancellation."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NoReturn

from atrund.atrun.request import Reason
from atrund.atrun.settings import INSTANCES
from atrund.records import VERSION

PAYLOAD_MAX: Final = 65536
"""Octets of a request: a command line of 2,048 in JSON's longest spelling, with room to spare."""
BODY_MAX: Final = 48_000
"""Octets of a body: as base64 these fit into a payload beside the command. Each one that waits is held in memory and is
written to flash, so that a restart can't part it from its command; longer files are for the TCP door."""
ID_MAX: Final = 128
TIMEOUT_DEFAULT: Final = 300.0
TIMEOUT_RANGE_MS: Final = (1000, 3_600_000)


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked. `timeout` in seconds; `expires` is aware of its zone; `reply` is false for HAT too.

    `body`: the octets for the command's prompt. `is_text`: they were given as text, and are its UTF-8.
    """

    cmd: str = field(repr=False)
    id: str | None = None
    timeout: float = TIMEOUT_DEFAULT
    expires: datetime | None = None
    reply: bool = True
    reply_to: str | None = None
    instance: int = 1
    body: bytes | None = field(default=None, repr=False)
    is_text: bool = False


class AskRefused(ValueError):
    """A payload that asks nothing that can be run. `id` and `reply_to` are the asker's own where they could be read."""

    def __init__(self, reason: Reason, detail: str, id_: str | None = None, reply_to: str | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.id = id_
        self.reply_to = reply_to


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


def parse_cancel(payload: bytes) -> str | None:
    """Return the `id` that a cancellation names, None where it names none, so that its Correlation Data has to.

    An empty payload names none. Raises `AskRefused` as `parse_ask` does.
    """
    if not payload:
        return None
    if len(payload) > PAYLOAD_MAX:
        raise AskRefused(Reason.TOO_LONG, f"{len(payload)} octets; at most {PAYLOAD_MAX}")
    try:
        given = _object(payload.decode("utf-8"))
    except UnicodeDecodeError:
        raise AskRefused(Reason.BAD_REQUEST, "the payload is not UTF-8") from None
    return _common(given, _CANCEL_KEYS)


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
        raise AskRefused(Reason.BAD_REQUEST, "neither JSON nor a line that begins with AT or HAT") from None
    if not isinstance(given, dict):
        raise AskRefused(Reason.BAD_REQUEST, "JSON, but no object")
    return given


def _checked(given: Mapping[str, Any]) -> Ask:
    try:
        _common(given, _KEYS)
        return _with_command(_of(given, "cmd", str, "a command line"), given)
    except AskRefused as refused:
        id_, reply_to = given.get("id"), given.get("reply_to")
        id_ = id_ if isinstance(id_, str) and 0 < len(id_) <= ID_MAX else None
        reply_to = reply_to if isinstance(reply_to, str) else None
        raise AskRefused(refused.reason, refused.detail, id_, reply_to) from None


def _common(given: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    """Check what every payload has, and that there is nothing that it has not; returns the asker's `id`."""
    id_ = given.get("id")
    asker_id = id_ if isinstance(id_, str) and 0 < len(id_) <= ID_MAX else None
    try:
        for key in given:
            if key not in keys:
                raise AskRefused(Reason.BAD_REQUEST, f"{key[:40]!r}: no such key; there are {', '.join(keys)}")
        if id_ is not None and asker_id is None:
            raise _wrong("id", f"a text of 1 to {ID_MAX} characters")
        if _of(given, "v", int, f"{VERSION}", VERSION) != VERSION:
            raise _wrong("v", f"{VERSION}")
    except AskRefused as refused:
        raise AskRefused(refused.reason, refused.detail, asker_id) from None
    return asker_id


def _with_command(text: str, given: Mapping[str, Any]) -> Ask:
    hidden = text[:3].upper() == "HAT"
    return Ask(
        cmd=text[1:] if hidden else text,
        id=_of(given, "id", str, "a text", None),
        timeout=_timeout(given) / 1000,
        expires=_expires(given),
        reply=_of(given, "reply", bool, "true or false", True) and not hidden,
        reply_to=_of(given, "reply_to", str, "a topic", None),
        instance=_instance(given),
        body=_body(given),
        is_text=given.get("body") is not None,
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


def _instance(given: Mapping[str, Any]) -> int:
    right = f"a number from 1 to {INSTANCES}"
    instance: int = _of(given, "instance", int, right, 1)
    if not 1 <= instance <= INSTANCES:
        raise _wrong("instance", right)
    return instance


def _body(given: Mapping[str, Any]) -> bytes | None:
    text = _of(given, "body", str, "a text", None)
    coded = _of(given, "body_b64", str, _BASE64, None)
    if text is not None and coded is not None:
        raise AskRefused(Reason.BAD_REQUEST, "body, body_b64: one of the two, not both")
    body: bytes | None = text.encode() if text is not None else None
    if coded is not None:
        try:
            body = base64.b64decode(coded, validate=True)
        except (binascii.Error, ValueError):
            raise _wrong("body_b64", _BASE64) from None
        if base64.b64encode(body) != coded.encode():  # bits behind the end, or padding in the middle
            raise _wrong("body_b64", _BASE64)
    if body is not None and len(body) > BODY_MAX:
        raise AskRefused(Reason.TOO_LONG, f"body: {len(body)} octets; at most {BODY_MAX}")
    return body


_BASE64: Final = "base64 (RFC 4648 section 4), padded and in one piece"
_CANCEL_KEYS: Final = ("v", "id")
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
    return AskRefused(Reason.BAD_REQUEST, f"{key}: it must be {right}")


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that comes twice: two readers of the same text could see two requests in it."""
    given = dict(pairs)
    if len(given) != len(pairs):
        raise AskRefused(Reason.BAD_REQUEST, "a key stands there twice")
    return given


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
