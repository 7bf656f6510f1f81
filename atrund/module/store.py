# SPDX-License-Identifier: Apache-2.0
"""The module's SMS store, in PDU mode: list, read, delete, send (3GPP TS 27.005 3.4 and 3.5).

Rules of this file: each act takes one turn, and first puts in place what it needs, for another door may have changed
it. A message is deleted only after it was read again, in the same turn, and found to be the same.
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from atrund.at.results import Final as FinalResult
from atrund.at.results import information
from atrund.module.channel import Answer, Channel, LinkLostError, TimedOutError, Turn
from atrund.module.turns import QueueFullError, WaitedTooLongError

ASKER: Final = "sms"
"""Whose turns these are: those of the SMS door, which is fair to the other doors."""
LIST_TIMEOUT: Final = 60.0
"""Seconds for +CMGL of a full store; 20 s are published for 30 messages (GE910), and ME may hold 100."""
SEND_TIMEOUT: Final = 180.0
"""Seconds for +CMGS: the network's own limit lies near 60 s, with retries below it."""


class StoreError(Exception):
    """It could not be done: the port is away, or the module refused. The text says what and how."""


class UnknownFateError(StoreError):
    """It was handed to the module, and no result came: it may have been done."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as it lies in a memory: `pdu` in hexadecimal with the service centre's address."""

    memory: str
    index: int
    pdu: str


@dataclass(frozen=True, slots=True)
class Sent:
    """How sending ended: with `final`, and the message reference where the module told one."""

    reference: int | None
    final: FinalResult


class Store:
    """`channel` gives the present port, `memory` the one that receives, "" while there is none."""

    def __init__(self, channel: Callable[[], Channel | None], memory: Callable[[], str]) -> None:
        self._channel = channel
        self._memory = memory

    @property
    def ready(self) -> bool:
        """Whether messages can be read now."""
        return self._channel() is not None and bool(self._memory())

    async def messages(self) -> list[Stored]:
        """Return all received messages of the memory that receives, read or not. Raises `StoreError`."""
        memory = self._memory()
        async with self._turn() as turn:
            await _select(turn, memory)
            answer = _granted(await turn.ask("AT+CMGL=4", LIST_TIMEOUT), "+CMGL")
        found = []
        for header, pdu in zip(answer.lines, answer.lines[1:], strict=False):
            line = information(header)
            if line is None or line.name != "+CMGL":
                continue
            index, status, *_ = (*line.parameters, "", "")
            if index.isdecimal() and status in _RECEIVED:
                found.append(Stored(memory, int(index), pdu))
        return found

    async def read(self, memory: str, index: int) -> Stored | None:
        """Return the message at an index, or None for an empty one. Raises `StoreError`."""
        async with self._turn() as turn, self._at(turn, memory):
            return await _read(turn, memory, index)

    async def delete(self, stored: Stored) -> bool:
        """Delete a message if it still is the one that was read; returns whether it is gone. Raises `StoreError`."""
        async with self._turn() as turn, self._at(turn, stored.memory):
            again = await _read(turn, stored.memory, stored.index)
            if again == stored:
                return (await turn.ask(f"AT+CMGD={stored.index}")).final.ok
            return again is None

    async def send(self, pdu: bytes, tpdu_length: int) -> Sent:
        """Send a SUBMIT with its service centre's address. Raises `StoreError`, of which `UnknownFateError`."""
        data = pdu.hex().upper().encode("ascii")
        async with self._turn() as turn:
            _granted(await turn.ask("AT+CMGF=0"), "+CMGF")
            try:
                answer = await turn.ask(f"AT+CMGS={tpdu_length}", SEND_TIMEOUT, data=data)
            except (LinkLostError, TimedOutError) as error:
                raise UnknownFateError(str(error)) from error
        value = answer.value("+CMGS")
        reference = int(value[0]) if value and value[0].isdecimal() else None
        return Sent(reference if answer.final.ok else None, answer.final)

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[Turn]:
        channel = self._channel()
        if channel is None:
            raise StoreError("the module is absent or being set up")
        try:
            async with channel.turn(ASKER) as turn:
                yield turn
        except (LinkLostError, TimedOutError, QueueFullError, WaitedTooLongError) as error:
            raise StoreError(str(error)) from error

    @contextlib.asynccontextmanager
    async def _at(self, turn: Turn, memory: str) -> AsyncIterator[None]:
        """Work in a memory, and come back to the one that receives unless the port itself failed."""
        home = self._memory()
        try:
            await _select(turn, memory)
            yield
        except StoreError:
            if home and memory != home:
                await _select(turn, home)
            raise
        if home and memory != home:
            await _select(turn, home)


_INVALID_INDEX: Final = 321
"""+CMS ERROR: invalid memory index (TS 27.005 3.2.5)."""
_RECEIVED: Final = frozenset({"0", "1"})
"""+CMGL's states of messages that came in; the others were written here (TS 27.005 3.1)."""


async def _read(turn: Turn, memory: str, index: int) -> Stored | None:
    answer = await turn.ask(f"AT+CMGR={index}")
    if answer.final.code == _INVALID_INDEX:
        return None
    _granted(answer, "+CMGR")
    return Stored(memory, index, answer.lines[1]) if len(answer.lines) > 1 else None


async def _select(turn: Turn, memory: str) -> None:
    _granted(await turn.ask(f'AT+CMGF=0;+CPMS="{memory}","{memory}","{memory}"'), "+CPMS")


def _granted(answer: Answer, command: str) -> Answer:
    if not answer.final.ok:
        raise StoreError(f"{command}: {answer.final.text}")
    return answer
