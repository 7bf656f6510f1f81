# SPDX-License-Identifier: Apache-2.0
"""The module's SMS store, in PDU mode: list, read, delete, send (3GPP TS 27.005 3.4 and 3.5).

Rules of this file: each act takes one turn, and first puts in place what it needs, for another door may have changed
it. A message is deleted only after it was read again, in the same turn, and found to be the same. In another memory
than the one that receives only reading is switched there, and back in the same turn: what comes in meanwhile goes where
it always goes, and +CPMS is again as set-up made it (MOD-3). What the module calls read because the daemon read it is
`unread` to everybody else.
"""

import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
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


HOLDERS: Final = ("SM", "ME", "MT")
"""Memories of messages (TS 27.005 3.1). MT is both others together; BM and SR hold broadcasts and reports."""
UNREAD_MAX: Final = 500
"""Messages known to be unread at once: more than the memories of a module hold; 0.2 MB at most."""
READINGS: Final = 4
"""Times that a message is read again: on a line so bad that no two agree, the next look may have more luck."""

Doubted = Callable[[str], bool]
"""Whether a message that looks like this has to be read a second time."""


AboutTo = Callable[[], Awaitable[None]]
"""What is done in the last moment in which nothing has been sent yet."""


def _none(_pdu: str) -> bool:
    return False


async def _nothing() -> None:
    pass


class StoreError(Exception):
    """It could not be done: the port is away, or the module refused. The text says what and how."""


class ModuleRefusedError(StoreError):
    """The module refused; `final` is its word."""

    def __init__(self, command: str, final: FinalResult) -> None:
        super().__init__(f"{command}: {final.text}")
        self.final = final


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
class Listed:
    """A message of a memory, received or not. `state`: its number in PDU mode (TS 27.005 3.1).

    `stored` is None for one of which no two readings agreed.
    """

    index: int
    state: int
    stored: Stored | None

    @property
    def received(self) -> Stored | None:
        """The message, if it is a readable one that came in."""
        return self.stored if self.state in _RECEIVED else None


class Unread:
    """Messages that nobody but the daemon has read, by their PDU: +CMGL and +CMGR mark what they show as read
    (TS 27.005 3.4.2, 3.4.3), and no form of theirs on a Telit module leaves the mark out.
    """

    def __init__(self) -> None:
        self._pdus: dict[str, None] = {}

    def __contains__(self, pdu: str) -> bool:
        return pdu in self._pdus

    def add(self, pdu: str) -> None:
        """Take note that the daemon read it first. The oldest of too many counts as read."""
        self._pdus[pdu] = None
        if len(self._pdus) > UNREAD_MAX:
            del self._pdus[next(iter(self._pdus))]

    def discard(self, pdu: str) -> None:
        """Take note that somebody else has read it, or that it is gone."""
        self._pdus.pop(pdu, None)


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
        self.unread = Unread()
        self._closed: set[str] = set()
        """Memories that the module did not open; said once."""
        self.uses: dict[str, tuple[int, int]] = {}
        """How many places of a memory are taken, and of how many, as +CPMS told last (TS 27.005 3.2.2)."""

    @property
    def home(self) -> str:
        """The memory that receives, "" while there is none."""
        return self._memory()

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
        return tuple(memory for memory in _SWEPT if f'"{memory}"' in readable)

    async def sweep(self, memory: str, doubted: Doubted = _none) -> list[Stored]:
        """Return all received messages of a memory, read or not, the `doubted` read again. Raises `StoreError`."""
        async with self._turn("+CMGL") as turn, self._at(turn, memory):
            return [
                stored
                for listed in await self.look(turn, memory, doubted=doubted)
                if (stored := listed.received) is not None
            ]

    async def look(
        self, turn: Turn, memory: str, *, doubted: Doubted = _none, states: str = "4", timeout: float = LIST_TIMEOUT
    ) -> list[Listed]:
        """List a memory that is in place, in PDU mode, within somebody's turn; received ones that are `doubted` again.

        `states`: as for +CMGL, all or one. Raises `StoreError` and what a turn does.
        """
        answer = _granted(await turn.ask(f"AT+CMGL={states}", timeout), "+CMGL")
        return [await self._settled(turn, one, doubted) for one in _listed(memory, answer)]

    async def look_at(self, turn: Turn, memory: str, index: int, *, doubted: Doubted = _none) -> Listed | None:
        """Read what lies at an index of a memory that is in place, as `look` does; None where it is empty."""
        first = await _read(turn, memory, index)
        return None if first is None else await self._settled(turn, first, doubted)

    async def _settled(self, turn: Turn, first: Listed, doubted: Doubted) -> Listed:
        """Return a message as it is, and keep in mind whether it was read before."""
        was = found = first.received
        if was is not None and doubted(was.pdu):
            found = await _read_again(turn, was)
        if found is not None and first.state == _UNREAD:
            self.unread.add(found.pdu)
        return first if found is was else Listed(first.index, first.state, found)

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
            found = await self.look_at(turn, memory, index, doubted=doubted)
            return None if found is None else found.stored

    async def delete(self, stored: Stored) -> bool:
        """Delete a message if it still is the one that was read; returns whether it is gone. Raises `StoreError`."""
        async with self._turn("+CMGD") as turn, self._at(turn, stored.memory):
            again = await self.look_at(turn, stored.memory, stored.index)
            if again is not None and again.stored == stored:
                gone = (await turn.ask(f"AT+CMGD={stored.index}")).final.ok
                if gone:
                    self.unread.discard(stored.pdu)
                return gone
            return again is None

    async def send(self, pdu: bytes, tpdu_length: int, about_to: AboutTo = _nothing) -> Sent:
        """Send a SUBMIT with its service centre's address. Raises `StoreError`, of which `UnknownFateError`.

        `about_to` is awaited when all is ready, before the message may reach the module; what it raises ends this.
        """
        data = pdu.hex().upper().encode("ascii")
        async with self._turn("+CMGS") as turn:
            _granted(await turn.ask("AT+CMGF=0"), "+CMGF")
            await about_to()
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
            self._note_use(memory, await _put_in_place(turn, memory))
            yield
            return
        try:
            self._note_use(memory, await _go_to(turn, memory))
            yield
        except StoreError:
            await _put_in_place(turn, home)
            raise
        await _put_in_place(turn, home)

    def _note_use(self, memory: str, answer: Answer) -> None:
        used, total, *_ = (*(answer.value("+CPMS") or ()), "", "")
        if all(_COUNT.fullmatch(number) for number in (used, total)):
            self.uses[memory] = int(used), int(total)
        else:
            self.uses.pop(memory, None)


_COUNT: Final = re.compile("[0-9]{1,5}")
_INVALID_INDEX: Final = 321
"""+CMS ERROR: invalid memory index (TS 27.005 3.2.5)."""
_SWEPT: Final = HOLDERS[:2]
_UNREAD: Final = 0
_RECEIVED: Final = frozenset({_UNREAD, 1})
"""States of messages that came in; the others were written here (TS 27.005 3.1)."""
_STATES: Final = frozenset({"0", "1", "2", "3"})


async def _read(turn: Turn, memory: str, index: int) -> Listed | None:
    answer = await turn.ask(f"AT+CMGR={index}")
    if answer.final.code == _INVALID_INDEX:
        return None
    _granted(answer, "+CMGR")
    state, *_ = answer.value("+CMGR") or ("",)
    known = int(state) if state in _STATES else 1
    return Listed(index, known, Stored(memory, index, answer.lines[1])) if len(answer.lines) > 1 else None


async def _read_again(turn: Turn, stored: Stored) -> Stored | None:
    """Return what two readings in a row agree on, or None: one bit that falls over makes another message of it."""
    for _ in range(READINGS):
        try:
            read = await _read(turn, stored.memory, stored.index)
        except StoreError as error:  # this one; the others are not held up
            log.warning("sms not read again", memory=stored.memory, index=stored.index, detail=str(error))
            return None
        again = None if read is None else read.stored
        if again is None or again == stored:
            return again
        stored = again
    log.warning("sms not read twice alike", memory=stored.memory, index=stored.index)
    return None


def _listed(memory: str, answer: Answer) -> list[Listed]:
    found = []
    for header, pdu in zip(answer.lines, answer.lines[1:], strict=False):
        line = information(header)
        if line is None or line.name != "+CMGL":
            continue
        index, state, *_ = (*line.parameters, "", "")
        if index.isdecimal() and state in _STATES:
            found.append(Listed(int(index), int(state), Stored(memory, int(index), pdu)))
    return found


async def _put_in_place(turn: Turn, memory: str) -> Answer:
    """Set all of +CPMS to one memory, as set-up does."""
    return _granted(await turn.ask(f'AT+CMGF=0;+CPMS="{memory}","{memory}","{memory}"'), "+CPMS")


async def _go_to(turn: Turn, memory: str) -> Answer:
    """Read from another memory, and no more than that."""
    answer = await turn.ask(f'AT+CMGF=0;+CPMS="{memory}"')
    if not answer.final.ok:
        raise NotOpenedError(f"+CPMS: {answer.final.text}")
    return answer


def _granted(answer: Answer, command: str) -> Answer:
    if not answer.final.ok:
        raise ModuleRefusedError(command, answer.final)
    return answer
