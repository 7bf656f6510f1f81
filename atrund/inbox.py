# SPDX-License-Identifier: Apache-2.0
"""A door's +CMGL, +CMGR and +CMGD where SMS are commands too (CMD-6).

Rules of this file: within the turn of the door's command, and before it, the memory is looked at as the SMS door does,
and what is new is recorded. What is or may be a command stays out of sight and is not deleted; a deletion by flag is
done one by one, by what was seen, so that what comes in meanwhile is spared. Nobody notices that it was read.
"""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from atrund.at.exchange import Ended
from atrund.at.reader import Line
from atrund.at.results import ERROR, OK, classify
from atrund.at.syntax import Command, Op, unquote
from atrund.atrun import stored_messages
from atrund.atrun.interface import Interface
from atrund.atrun.stored_messages import EMPTY, UNREAD, Clearing, Deletion, Listing, Misunderstood, Reading, View
from atrund.module.store import HOLDERS, LIST_TIMEOUT, Listed, ModuleRefusedError, Store, Stored, StoreError
from atrund.module.turn import LinkLostError, Say, TimedOutError, Turn


class NotRecordedError(Exception):
    """A deletion was not begun, for what is new could not be recorded. The text says why."""


class Recorder(Protocol):
    """The SMS door."""

    @property
    def store(self) -> Store:
        """Where the messages lie."""

    def is_new(self, pdu: str) -> bool:
        """Whether a message was not judged yet."""

    def is_ours(self, pdu: str) -> bool:
        """Whether a message is or may be a command."""

    async def record(self, found: Sequence[Stored]) -> str:
        """Judge and record what is new; returns why something is not recorded, or ""."""


@dataclass(frozen=True, slots=True)
class Way:
    """The turn of the door's command. `interface`: what its instance has set; `home`: the memory kept selected.

    `place` puts in place what a command needs of an interface, and returns what refused that, if anything did. `send`
    does so for the instance's own and runs the command. `left`: seconds to the deadline.
    """

    turn: Turn
    interface: Interface
    home: str
    place: Callable[[Command, Interface], Awaitable[Ended | None]]
    send: Callable[[Command, Say], Awaitable[Ended]]
    left: Callable[[], float]


async def carry_out(command: Command, recorder: Recorder, way: Way, say: Say) -> Ended:
    """Carry one out; `say` gets what the door is to see. Raises `NotRecordedError` and what a turn does.

    What refuses the look at the memory would refuse the command too, and is its result.
    """
    text_mode = way.interface.port.get("+CMGF") == ("1",)
    asked = stored_messages.understand(command, text_mode=text_mode)
    if isinstance(asked, Misunderstood):
        return _said(asked.final)
    try:
        memory = await _memory(way)
        if memory not in HOLDERS:  # one of reports or broadcasts
            return await way.send(command, say)
        errand = _Errand(recorder, way, memory, text_mode=text_mode)
        match asked:
            case Listing(states):
                return await errand.list(states, say)
            case Reading(index):
                return await errand.read(index, say)
            case Deletion(index):
                return await errand.delete(index)
            case Clearing(states):
                return await errand.clear(states)
    except ModuleRefusedError as error:
        return Ended(error.final, lead=True)


_ANY: Final = Command("+CMGL", Op.EXECUTE)
"""What finds its way by all that the module keeps per port of messages."""


class _Errand:
    """One command, in one memory. States are those that the door is to see, None for what is not the door's."""

    def __init__(self, recorder: Recorder, way: Way, memory: str, *, text_mode: bool) -> None:
        self._recorder = recorder
        self._way = way
        self._memory = memory
        self._text_mode = text_mode
        self._found: dict[int, Listed] = {}
        self._missing = ""
        """Why something new is not recorded."""

    async def list(self, wanted: frozenset[int], say: Say) -> Ended:
        await self._look()
        states = self._states()
        view = View(states, wanted, text_mode=self._text_mode)
        first = True

        def show(line: Line) -> None:
            nonlocal first
            text = view.feed(line.text)
            if text is not None:
                say(replace(line, text=text, lead=line.lead or first))
                first = False

        ended = await self._way.send(stored_messages.listing(text_mode=self._text_mode), show)
        for index in view.shown:
            self._was_shown(index)
        await self._spare_the_mark(view.strange)
        return ended

    async def read(self, index: int, say: Say) -> Ended:
        await self._look(index)
        state = self._states().get(index)
        if state is None:
            return _said(EMPTY)
        header = True

        def show(line: Line) -> None:
            nonlocal header
            text = stored_messages.as_read(line.text, state, text_mode=self._text_mode) if header else line.text
            header = False
            say(replace(line, text=text))

        ended = await self._way.send(Command("+CMGR", Op.SET, str(index)), show)
        if ended.final.ok:
            self._was_shown(index)
        return ended

    async def delete(self, index: int) -> Ended:
        """Delete one; where there is none to see, there is nothing to do, and whatever comes there is not touched."""
        await self._look(index)
        return await self._delete([index] if self._states().get(index) is not None else [])

    async def clear(self, wanted: frozenset[int]) -> Ended:
        await self._look()
        return await self._delete(stored_messages.among(self._states(), wanted))

    async def _delete(self, indices: Sequence[int]) -> Ended:
        if self._missing:
            raise NotRecordedError(self._missing)
        for index in indices:
            ended = await self._way.send(Command("+CMGD", Op.SET, str(index)), _ignore)
            if not ended.final.ok:
                return ended
            self._was_shown(index)
        return Ended(OK, lead=True)

    async def _look(self, index: int | None = None) -> None:
        """Look at the whole memory; or at what is new in it, and at one index, for a full one takes its time."""
        await _place(self._way)
        store, turn, is_new = self._recorder.store, self._way.turn, self._recorder.is_new
        states, timeout = "4" if index is None else str(UNREAD), min(LIST_TIMEOUT, self._way.left())
        listed = await store.look(turn, self._memory, doubted=is_new, states=states, timeout=timeout)
        self._found = {one.index: one for one in listed}
        if index is not None and index not in self._found:
            one = await store.look_at(turn, self._memory, index, doubted=is_new)
            if one is not None:
                self._found[index] = one
        received = [stored for one in self._found.values() if (stored := one.received) is not None]
        self._missing = await self._recorder.record(received)

    async def _spare_the_mark(self, indices: Sequence[int]) -> None:
        """Note who came behind the look and were hidden: the listing marked them as read."""
        with contextlib.suppress(StoreError, LinkLostError, TimedOutError):  # the listing itself was done
            if indices:
                await _place(self._way)
            for index in indices:
                one = await self._recorder.store.look_at(
                    self._way.turn, self._memory, index, doubted=self._recorder.is_new
                )
                if one is not None and (stored := one.received) is not None:
                    self._recorder.store.unread.add(stored.pdu)

    def _states(self) -> dict[int, int | None]:
        return {index: self._state(one) for index, one in self._found.items()}

    def _state(self, one: Listed) -> int | None:
        if one.stored is None:
            return None
        received = one.received
        if received is None:
            return one.state
        if self._recorder.is_ours(received.pdu):
            return None
        return UNREAD if received.pdu in self._recorder.store.unread else _READ

    def _was_shown(self, index: int) -> None:
        stored = self._found[index].stored
        if stored is not None:
            self._recorder.store.unread.discard(stored.pdu)


_READ: Final = 1


async def _place(way: Way) -> None:
    """Go where the instance's messages are, in PDU mode. Raises `ModuleRefusedError`."""
    port = {name: values for name, values in way.interface.port.items() if name != "+CMGF"}
    refused = await way.place(_ANY, replace(way.interface, port=port))
    if refused is not None:
        raise ModuleRefusedError("not put in place", refused.final)


async def _memory(way: Way) -> str:
    """Return the memory that the instance reads. Raises `ModuleRefusedError`."""
    given = way.interface.port.get("+CPMS") or (way.home,)
    if given[0]:
        return unquote(given[0])
    answer = await way.turn.ask("AT+CPMS?")
    if not answer.final.ok:
        raise ModuleRefusedError("+CPMS", answer.final)
    return unquote((answer.value("+CPMS") or ("",))[0])


def _said(final: str) -> Ended:
    return Ended(classify(final) or ERROR, lead=True)


def _ignore(_line: Line) -> None:
    pass
