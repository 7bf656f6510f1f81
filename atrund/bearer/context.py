# SPDX-License-Identifier: Apache-2.0
"""A PDP context of the module as the bearer: a gate, for the host's own addresses are what is used (TCP-14).

Rules of this file: a context is activated only where the configuration says so, and never one that somebody else has
active; a port that others wait for is left to them.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import structlog

from atrund.at.results import information
from atrund.bearer import Bearer
from atrund.module.channel import Channel
from atrund.module.turn import Answer, LinkLostError, TimedOutError
from atrund.module.turns import QueueFullError, WaitedTooLongError

log = structlog.get_logger()

ASKER: Final = "daemon"
WATCH: Final = 30.0
"""Seconds between two looks: the module has no code of its own for a context that came or went."""
BUSY_PAUSE: Final = 10.0
"""Seconds after which it is tried again where somebody was waiting for the port."""
ACTIVATION: Final = 150.0
"""Seconds that `#SGACT=` may take (HE910, GE910)."""
ACTIVATE_AGAIN: Final = (60.0, 300.0, 900.0)
"""Seconds behind an activation that failed; the last one from then on: each may cost the network a request."""


class ContextBearer(Bearer):
    """Up while `#SGACT?` shows the context active."""

    def __init__(self, cid: int, *, activate: bool, channel: Callable[[], Channel | None]) -> None:
        """`channel` gives the port to ask on, while it is usable."""
        super().__init__()
        self.up = False
        self.detail = "not looked yet"
        self._cid = cid
        self._activate = activate
        self._channel = channel
        self._wanted = asyncio.Event()
        self._failures = 0
        self._not_before = 0.0
        self._said = ""
        """Why it was not activated, as it was said last."""

    async def run(self) -> None:
        """Look for ever."""
        while True:
            self._wanted.clear()
            channel = self._channel()
            pause = WATCH
            if channel is None:
                self._is("the module is away")
            elif channel.depths:
                pause = BUSY_PAUSE
            else:
                try:
                    await self._look(channel)
                except (LinkLostError, TimedOutError, QueueFullError, WaitedTooLongError) as error:
                    log.debug("context not looked at", detail=str(error))  # it is what it was
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wanted.wait()

    def look(self) -> None:
        """Look soon."""
        self._wanted.set()

    def status(self) -> dict[str, object]:
        """Return what `atrunctl status` shows."""
        return {**super().status(), "context": self._cid}

    async def _look(self, channel: Channel) -> None:
        state = _state(await _asked(channel, "AT#SGACT?"), "#SGACT", self._cid)
        if state:
            self._failures, self._not_before, self._said = 0, 0.0, ""
            self._is("")
            return
        self._is(f"context {self._cid} is not active" if state is False else f"the module shows no context {self._cid}")
        if self._activate and state is False and asyncio.get_running_loop().time() >= self._not_before:
            await self._activate_it(channel)

    async def _activate_it(self, channel: Channel) -> None:
        if _state(await _asked(channel, "AT+CGACT?"), "+CGACT", self._cid):
            self._put_off(f"context {self._cid} is somebody else's: it is active, and not for sockets")
            return
        answer = await _asked(channel, f"AT#SGACT={self._cid},1", ACTIVATION)
        if answer.final.ok:
            log.info("context activated", context=self._cid)
            self._is("")
        else:
            self._put_off(f"context {self._cid} could not be activated: {answer.final.text}")

    def _put_off(self, why: str) -> None:
        if why != self._said:
            self._said = why
            log.warning("context not activated", context=self._cid, detail=why)
        self._is(why)
        pause = ACTIVATE_AGAIN[min(self._failures, len(ACTIVATE_AGAIN) - 1)]
        self._failures += 1
        self._not_before = asyncio.get_running_loop().time() + pause


async def _asked(channel: Channel, line: str, timeout: float = 5.0) -> Answer:
    """Ask in a turn of its own, so that a door's command waits for one question at most."""
    async with channel.turn(ASKER, what="bearer") as turn:
        return await turn.ask(line, timeout)


def _state(answer: Answer, name: str, cid: int) -> bool | None:
    """Return whether a context is active by `<name>: <cid>,<state>` lines (TS 27.007 10.1.10); None: not shown."""
    for line in answer.lines:
        found = information(line)
        if found is not None and found.name == name and found.parameters[:1] == (str(cid),):
            return found.parameters[1:2] == ("1",)
    return None
