# SPDX-License-Identifier: Apache-2.0
"""What the control socket is told of the audit: rows of it, and whether its chain is whole."""

import json
from collections.abc import Mapping
from typing import Any, Final

from atrund import control
from atrund.ledger import Ledger, StorageError, chain

ROOM: Final = control.LINE_MAX * 3 // 4
"""Octets of rows in one answer, so that it fits a line with all that goes around them."""
SHOWN_MAX: Final = 2100
"""Characters of a value that are shown: the longest command line that is taken, and the end of a cut."""


async def answer(ledger: Ledger, asked: control.AuditRequest | control.AuditVerifyRequest) -> control.Answer:
    """Look it up and tell it; what else uses the ledger gets its turn in between."""
    try:
        if isinstance(asked, control.AuditVerifyRequest):
            return await _verified(ledger, asked.at)
        sought = chain.Sought(
            asked.since, asked.until, asked.door, asked.peer, asked.event, rid=asked.id, before=asked.before
        )
        found: list[dict[str, Any]] = await ledger.ask(chain.entries(sought, asked.limit))
    except StorageError as error:
        return control.ErrorAnswer(f"the audit can't be read: {error}")
    shown: list[dict[str, Any]] = []
    room = ROOM
    for row in map(_cut, found):
        room -= len(json.dumps(row))
        if room < 0 and shown:
            break
        shown.append(row)
    more = len(shown) < len(found) or len(found) == asked.limit
    return control.DoneAnswer({"entries": shown, "more": more})


async def _verified(ledger: Ledger, at: int) -> control.Answer:
    check = chain.Check(at)
    while await ledger.ask(check.lot):
        pass
    return control.DoneAnswer(check.told())


def _cut(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: f"{value[:SHOWN_MAX]}…" if isinstance(value, str) and len(value) > SHOWN_MAX else value
        for name, value in row.items()
    }
