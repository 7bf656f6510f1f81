# SPDX-License-Identifier: Apache-2.0
"""Asking a running house for one command line, past the doors: its outcome, and what an asker would read."""

import asyncio
import itertools

from atrund.atrun.instance import final_words
from atrund.atrun.request import Door, Outcome, Request
from atrund.run import Run
from tests.support.virtual import House

OUTER = (Door.SMS, Door.TCP, Door.MQTT, Door.LOCAL)
"""The doors that somebody outside comes through."""

_NUMBERS = itertools.count()


def asked(line: str, door: Door = Door.LOCAL, *, instance: int = 1, **fields: object) -> Request:
    """A request that nobody asked before."""
    rid = f"asked{next(_NUMBERS)}"
    given: dict[str, object] = {"peer": "peer", "key": rid, "timeout": 60.0, **fields}
    return Request(rid=rid, door=door, line=line, instance=instance, **given)  # type: ignore[arg-type]


def start(house: House, line: str, door: Door = Door.LOCAL, *, instance: int = 1, **fields: object) -> Run:
    """Put it on its way."""
    return house.daemon.runner.start(asked(line, door, instance=instance, **fields))


async def outcome(house: House, line: str, door: Door = Door.LOCAL, *, instance: int = 1, **fields: object) -> Outcome:
    """Wait for its end, which must come."""
    async with asyncio.timeout(700):
        found = await start(house, line, door, instance=instance, **fields).outcome
    assert found is not None
    return found


async def said(house: House, line: str, door: Door = Door.LOCAL, *, instance: int = 1, **fields: object) -> list[str]:
    """The lines of the answer, and its final result under +CMEE=1."""
    found = await outcome(house, line, door, instance=instance, **fields)
    return [*found.lines, final_words(found, 1)]
