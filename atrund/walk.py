# SPDX-License-Identifier: Apache-2.0
"""One request's walk through its table, at once as far as nothing has to be waited for (REQ-1).

Rules of this file: the table in `atrun.request` says what happens next, `steps` does it. Whatever happens, a request
ends once.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from atrund.atrun.request import Effect, Event, State
from atrund.line import Ending
from atrund.run import Run
from atrund.steps import Steps
from atrund.ways import Ways

SLOW: Final = 30.0
"""Seconds after which it is said where a request is: few take so long, and each is said once."""


class Walk(Steps):
    """One request's walk. A plain line that is recorded behind needs no task: it is sent where it is read, and goes on
    where the module's answer is.
    """

    def __init__(self, run: Run, ways: Ways, *, closed: bool, over: Callable[[Run], None] = lambda _: None) -> None:
        """`closed`: nothing new is taken any more. `over` is told once it has come to its end."""
        super().__init__(run, ways, closed=closed)
        self._over = over
        self._following: Event | None = None
        self._effects: list[Effect] = []
        """What is still to be done of the step at hand."""
        self._said_slow = False

    def begin(self, event: Event | None) -> None:
        """Walk as far as nothing has to be waited for but the module's answer to a plain line; a task does the rest."""
        if self._resumed:
            self._say("command found after a restart")
        self._run._wait = self._wait  # noqa: SLF001 - a run is the other half of this class
        self._go_on(partial(self._judge, event))

    def say_slow(self, now: float) -> bool:
        """Say where it is, once, if it takes long by now; returns whether it was said."""
        if not self._said_slow and now >= self._run.begun + SLOW:
            self._said_slow = True
            self._say("command not done yet")
        return self._said_slow

    def _wait(self) -> None:
        """Have a task walk from here on."""
        if self._run._task is None:  # noqa: SLF001 - as above
            walking = self._to_the_end()
            task = self._loop.create_task(walking, name=f"request {self._request.rid}")
            self._run._task = task  # noqa: SLF001 - as above
            task.add_done_callback(lambda _: self._over(self._run))

    def _go_on(self, look: Callable[[], Event]) -> None:
        """Walk from the event that `look` finds."""
        try:
            self._following = look()
            while (effect := self._next_effect()) is not None:
                if not self._perform_now(effect):
                    self._effects.insert(0, effect)
                    if not self._is_sent:
                        self._wait()
                    return
        except Exception as error:  # noqa: BLE001 - whoever called has nothing to do with it
            context = {"message": f"request {self._request.rid} can't go on", "exception": error}
            self._loop.call_exception_handler(context)
        self._arrive()
        if self._run._task is None:  # noqa: SLF001 - as above
            self._over(self._run)

    async def _to_the_end(self) -> None:
        """Walk until ENDED. A cancellation is an event like any other; once ENDED, it changes nothing any more."""
        self._run._begun = True  # noqa: SLF001 - as above
        if self._run._given_up and self._run.life.state is not State.ENDED:  # noqa: SLF001 - as above
            self._effects, self._following = [], self._cancelled()
        try:
            while (effect := self._next_effect()) is not None:
                try:
                    self._following = await self._perform(effect)
                except asyncio.CancelledError:
                    if self._run.life.state is not State.ENDED:
                        self._following = self._cancelled()
        finally:
            self._arrive()

    def _answered(self, ending: Ending) -> None:
        self._effects.clear()
        self._give_back()
        self._go_on(partial(self._take, ending))

    def _next_effect(self) -> Effect | None:
        """Return what is to be done next; None when it has ended."""
        while not self._effects and self._following is not None:
            following, self._following = self._following, None
            self._effects = list(self._run.life.step(following))
        return self._effects.pop(0) if self._effects else None

    def _perform_now(self, effect: Effect) -> bool:
        """Do what nothing has to be waited for; returns whether it is done."""
        match effect:
            case Effect.RECORD if not self._again:
                self._following = self._record_behind()
            case Effect.DELAY if not self._request.delay:
                self._following = Event.DELAY_OVER
            case Effect.ASK_TURN:
                self._following = self._ask_turn_now()
                return self._following is not None
            case Effect.RECORD_SENT if not self._again:
                self._following = Event.RECORDED
            case Effect.SEND:
                self._is_sent = self._send_now()
                return False
            case Effect.GIVE_UP:
                self._give_back()
            case Effect.RECORD_END if not self._again:
                self._end_behind()
            case _:
                return False
        return True

    async def _perform(self, effect: Effect) -> Event | None:
        match effect:
            case Effect.RECORD:
                return await self._record()
            case Effect.DELAY:
                if self._request.delay:
                    await asyncio.sleep(self._request.delay)
                return Event.DELAY_OVER
            case Effect.ASK_TURN:
                return self._ask_turn_now() or await self._ask_turn()
            case Effect.RECORD_SENT:
                return await self._record_sent()
            case Effect.SEND:
                return await self._send()
            case Effect.GIVE_UP:
                self._give_back()
                return None
            case Effect.RECORD_END:
                await self._record_end()
                return None
