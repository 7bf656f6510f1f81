# SPDX-License-Identifier: Apache-2.0
"""The module's SMS store, in PDU mode: list, read, delete, send (3GPP TS 27.005 3.4 and 3.5).

Rules of this file: each act takes one turn, and first puts in place what it needs, for another door may have changed
it. A message is deleted only after it was read again, in the same turn, and found to be the same. In another memory
than the one that receives only reading is switched there, and back in the same turn: what comes in meanwhile goes where
it always goes, and +CPMS is again as set-up made it (MOD-3).
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from atrund.at.results import Final as FinalResult
from atrund.at.results import information
from atrund.module.channel import Channel
from atrund.module.turn import Answer, LinkLostError, TimedOutError, Turn
from atrund.module.turns import QueueFullError, WaitedTooLongError

log = structlog.get_logger()

ASKER: Final = "sms"
"""Whose turns these are: those of the SMS door, which is fair to the other doors."""
LIST_TIMEOUT: Final = 60.0
"""Seconds for +CMGL of a full store; 20 s are published for 30 messages (GE910), and ME may hold 100."""
SEND_TIMEOUT: Final = 180.0
"""Seconds for +CMGS: the network's own limit lies near 60 s, with retries below it."""


READINGS: Final = 4
"""Times that a message is read again: on a line so bad that no two agree, the next look may have more luck."""

Doubted = Callable[[str], bool]
"""Whether a message that looks like this has to be read a second time."""


def _none(_pdu: str) -> bool:
    return False


class StoreError(Exception):
    """It could not be done: the port is away, or the module refused. The text says what and how."""


class NotOpenedError(StoreError):
    """The module offers a memory and does not let it be chosen."""


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
        self._closed: set[str] = set()
        """Memories that the module did not open; said once."""

    @property
    def ready(self) -> bool:
        """Whether messages can be read now."""
        return self._channel() is not None and bool(self._memory())

    async def messages(self, *, everywhere: bool = False, doubted: Doubted = _none) -> list[Stored]:
        """Return all received messages, read or not, of the memory that receives or of every one.

        Each memory takes a turn of its own. One that the module offers and does not open has none. Raises `StoreError`.
        """
        home = self._memory()
        found = await self.sweep(home, doubted)
        if everywhere:
            for memory in await self.memories():
                if memory != home:
                    found += await self._sweep_if_open(memory, doubted)
        return found

    async def memories(self) -> tuple[str, ...]:
        """Return the memories in which a received message may lie, as +CPMS=? tells them. Raises `StoreError`."""
        async with self._turn("+CPMS=?") as turn:
            answer = _granted(await turn.ask("AT+CPMS=?"), "+CPMS")
        readable = "".join(answer.lines).partition(")")[0]  # of three lists, for reading, writing and receiving
        return tuple(memory for memory in _HOLDERS if f'"{memory}"' in readable)

    async def sweep(self, memory: str, doubted: Doubted = _none) -> list[Stored]:
        """Return all received messages of a memory, read or not, the `doubted` read again. Raises `StoreError`."""
        async with self._turn("+CMGL") as turn, self._at(turn, memory):
            listed = _received(memory, _granted(await turn.ask("AT+CMGL=4", LIST_TIMEOUT), "+CMGL"))
            return [
                stored
                for first in listed
                if (stored := await _read_again(turn, first) if doubted(first.pdu) else first) is not None
            ]

    async def _sweep_if_open(self, memory: str, doubted: Doubted) -> list[Stored]:
        try:
            found = await self.sweep(memory, doubted)
        except NotOpenedError as error:
            if memory not in self._closed:
                log.info("memory not swept", memory=memory, detail=str(error))
            self._closed.add(memory)
            return []
        self._closed.discard(memory)
        return found

    async def read(self, memory: str, index: int, *, doubted: Doubted = _none) -> Stored | None:
        """Return the message at an index, read again if it is `doubted`; None for an empty one. Raises `StoreError`."""
        async with self._turn("+CMGR") as turn, self._at(turn, memory):
            first = await _read(turn, memory, index)
            return await _read_again(turn, first) if first is not None and doubted(first.pdu) else first

    async def delete(self, stored: Stored) -> bool:
        """Delete a message if it still is the one that was read; returns whether it is gone. Raises `StoreError`."""
        async with self._turn("+CMGD") as turn, self._at(turn, stored.memory):
            again = await _read(turn, stored.memory, stored.index)
            if again == stored:
                return (await turn.ask(f"AT+CMGD={stored.index}")).final.ok
            return again is None

    async def send(self, pdu: bytes, tpdu_length: int) -> Sent:
        """Send a SUBMIT with its service centre's address. Raises `StoreError`, of which `UnknownFateError`."""
        data = pdu.hex().upper().encode("ascii")
        async with self._turn("+CMGS") as turn:
            _granted(await turn.ask("AT+CMGF=0"), "+CMGF")
            try:
                answer = await turn.ask(f"AT+CMGS={tpdu_length}", SEND_TIMEOUT, data=data)
            except (LinkLostError, TimedOutError) as error:
                raise UnknownFateError(str(error)) from error
        value = answer.value("+CMGS")
        reference = int(value[0]) if value and value[0].isdecimal() else None
        return Sent(reference if answer.final.ok else None, answer.final)

    @contextlib.asynccontextmanager
    async def _turn(self, what: str) -> AsyncIterator[Turn]:
        channel = self._channel()
        if channel is None:
            raise StoreError("the module is absent or being set up")
        try:
            async with channel.turn(ASKER, what=what) as turn:
                yield turn
        except (LinkLostError, TimedOutError, QueueFullError, WaitedTooLongError) as error:
            raise StoreError(str(error)) from error

    @contextlib.asynccontextmanager
    async def _at(self, turn: Turn, memory: str) -> AsyncIterator[None]:
        """Work in a memory, and come back to the one that receives unless the port itself failed."""
        home = self._memory()
        if memory == home or not home:
            await _put_in_place(turn, memory)
            yield
            return
        try:
            await _go_to(turn, memory)
            yield
        except StoreError:
            await _put_in_place(turn, home)
            raise
        await _put_in_place(turn, home)


_INVALID_INDEX: Final = 321
"""+CMS ERROR: invalid memory index (TS 27.005 3.2.5)."""
_HOLDERS: Final = ("SM", "ME")
"""Memories of messages (27.005 3.1). MT is both together; BM and SR hold broadcasts and reports."""
_RECEIVED: Final = frozenset({"0", "1"})
"""+CMGL's states of messages that came in; the others were written here (TS 27.005 3.1)."""


async def _read(turn: Turn, memory: str, index: int) -> Stored | None:
    answer = await turn.ask(f"AT+CMGR={index}")
    if answer.final.code == _INVALID_INDEX:
        return None
    _granted(answer, "+CMGR")
    return Stored(memory, index, answer.lines[1]) if len(answer.lines) > 1 else None


async def _read_again(turn: Turn, stored: Stored) -> Stored | None:
    """Return what two readings in a row agree on, or None: one bit that falls over makes another message of it."""
    for _ in range(READINGS):
        try:
            again = await _read(turn, stored.memory, stored.index)
        except StoreError as error:  # this one; the others are not held up
            log.warning("sms not read again", memory=stored.memory, index=stored.index, detail=str(error))
            return None
        if again is None or again == stored:
            return again
        stored = again
    log.warning("sms not read twice alike", memory=stored.memory, index=stored.index)
    return None


def _received(memory: str, answer: Answer) -> list[Stored]:
    found = []
    for header, pdu in zip(answer.lines, answer.lines[1:], strict=False):
        line = information(header)
        if line is None or line.name != "+CMGL":
            continue
        index, status, *_ = (*line.parameters, "", "")
        if index.isdecimal() and status in _RECEIVED:
            found.append(Stored(memory, int(index), pdu))
    return found


async def _put_in_place(turn: Turn, memory: str) -> None:
    """Set all of +CPMS to one memory, as set-up does."""
    _granted(await turn.ask(f'AT+CMGF=0;+CPMS="{memory}","{memory}","{memory}"'), "+CPMS")


async def _go_to(turn: Turn, memory: str) -> None:
    """Read from another memory, and no more than that."""
    final = (await turn.ask(f'AT+CMGF=0;+CPMS="{memory}"')).final
    if not final.ok:
        raise NotOpenedError(f"+CPMS: {final.text}")


def _granted(answer: Answer, command: str) -> Answer:
    if not answer.final.ok:
        raise StoreError(f"{command}: {answer.final.text}")
    return answer
