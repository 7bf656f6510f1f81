# SPDX-License-Identifier: Apache-2.0
"""Which kind of event an entry is: its MESSAGE_ID, under which the journal's catalogue explains it (journalctl -x).

Rules of this file: an id is made of the kind's name alone, so it stays as long as the name does; whoever words an event
anew gives it a new id, and packaging/systemd/atrund.catalog a new entry. Nothing is explained here: that is for the
catalogue, which costs the daemon no memory.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

FAMILIES: Final = (
    "login refused",
    "login ",
    "refused",
    "handshake failed",
    "connection lost",
    "replaced by",
    "certificate of",
    "shut out",
    "transparent mode ended",
    "transparent mode",
    "command to be confirmed",
    "needs a restart",
)
"""How events begin that go on with a name, a number or a reason; the first that fits is the kind."""

NOTICES: Final = frozenset(
    {
        "command refused", "command not done", "command not confirmed in time", "command undone", "cancel refused",
        "login refused", "token refused", "refused", "handshake failed", "shut out", "client cut off: it does not read",
        "status refused", "administration refused", "port not lent", "port lent",
        "settings imported", "settings reset", "settings exported with their secrets", "door closed", "door opened",
        "event not run", "answer undelivered", "answer not delivered", "answer not published",
        "audit chain begun", "audit chain ended", "strangers are refused by the daemon, not by the kernel",
    }
)  # fmt: skip
"""Kinds that are as they should be and all the same worth a look: who was kept out, and what was changed."""

LIBRARY: Final = "library"
"""The kind of all that libraries log."""


def kind_of(event: Mapping[str, Any]) -> str:
    """Return the name of the kind of an entry."""
    text = str(event.get("event", ""))
    if "logger" in event:
        return LIBRARY
    if text == "command":
        state = event.get("state")
        return text if state in {"ok", "error"} else f"{text} {'refused' if state in _REFUSED else 'not done'}"
    if text.startswith("event "):  # and its label
        return "event not run" if text.endswith(" not run") else "event"
    return next((family.rstrip() for family in FAMILIES if text.startswith(family)), text)


def is_notice(event: Mapping[str, Any]) -> bool:
    """Return whether an entry is worth a look: its kind is, or it tells of an SMS that claimed to be a command."""
    kind = kind_of(event)
    return kind in NOTICES or (kind == "sms not accepted" and " digest" in str(event.get("reason")))


def message_id(kind: str) -> str:
    """Return the MESSAGE_ID of a kind: 128 bits in hexadecimal (systemd.journal-fields(7))."""
    return hashlib.blake2s(f"atrund: {kind}".encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()


_REFUSED: Final = frozenset({"rejected", "expired"})
