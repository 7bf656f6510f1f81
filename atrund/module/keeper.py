# SPDX-License-Identifier: Apache-2.0
"""Keeps the module: opens its port, sets it up in a fixed order, opens it anew when lost (MOD-3, MOD-4, MOD-8)."""

import asyncio
import enum
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import structlog

from atrund.module.channel import Channel, LinkLostError, TimedOutError, Turn
from atrund.module.port import OpenPort, PortError
from atrund.module.turns import WaitedTooLongError

log = structlog.get_logger()

OWN: Final = "daemon"
"""The asker of the daemon's own commands."""
WAKE_TRIES: Final = 5
"""Modules swallow the first characters after a pause or while they adapt to the speed."""
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 60.0
"""Seconds between two openings: soon after a replug, and no more than a minute's wait in a cabinet."""
WATCH: Final = 10.0
"""Seconds between two looks at a set-up that the module refused to finish, such as a SIM that is not ready."""


class State(enum.Enum):
    """Where the module is."""

    OFF = "off"
    ABSENT = "absent"
    SETTING_UP = "setting up"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Module:
    """What is known of the module."""

    state: State = State.OFF
    detail: str = ""
    model: str = ""
    firmware: str = ""
    memory: str = ""
    """The one memory that all of +CPMS is set to; empty while the SMS store is not to be had."""


class Keeper:
    """Runs until cancelled. `channel` is the present opening of the port, or None; `module` what is known."""

    def __init__(
        self,
        *,
        path: str,
        baudrate: int,
        open_port: OpenPort,
        make_channel: Callable[[Callable[[str], None]], Channel],
        on_change: Callable[[Module], None],
    ) -> None:
        self.channel: Channel | None = None
        self.module = Module()
        self._path = path
        self._baudrate = baudrate
        self._open_port = open_port
        self._make_channel = make_channel
        self._on_change = on_change
        self._random = random.Random(path)  # noqa: S311 - spreads openings, guards nothing

    async def run(self) -> None:
        """Keep the module for ever. A port that can't be had is tried again with growing pauses."""
        pause = FIRST_PAUSE
        while True:
            gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            try:
                channel = await self._open(gone)
            except PortError as error:
                self._say_absent(str(error))
            else:
                try:
                    await self._keep(channel, gone)
                    pause = FIRST_PAUSE
                except _SetupError as error:
                    self._say_absent(str(error))
                finally:
                    self.channel = None
                    channel.close()
            await asyncio.sleep(pause * self._random.uniform(0.8, 1.2))
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _open(self, gone: asyncio.Future[str]) -> Channel:
        def lost(why: str) -> None:
            if not gone.done():
                gone.set_result(why)

        channel = self._make_channel(lost)
        channel.attach(await self._open_port(self._path, self._baudrate, channel))
        return channel

    async def _keep(self, channel: Channel, gone: asyncio.Future[str]) -> None:
        """Set the module up and watch over it until its port is lost."""
        self._change(state=State.SETTING_UP, detail="")
        try:
            async with channel.turn(OWN) as turn:
                await _wake(turn)
                channel.confirm()
                await self._set_up(turn)
        except (LinkLostError, TimedOutError, WaitedTooLongError) as error:
            raise _SetupError(f"{self._path}: {error}") from error
        self.channel = channel
        self._change(state=State.READY, detail="")
        log.info("module ready", model=self.module.model, firmware=self.module.firmware, memory=self.module.memory)
        while not gone.done():
            if not self.module.memory:
                await self._try_memory(channel)
            await asyncio.wait({gone}, timeout=None if self.module.memory else WATCH)
        why = gone.result()
        self._change(state=State.ABSENT, detail=why)
        log.warning("module lost", detail=why)

    async def _set_up(self, turn: Turn) -> None:
        """The steps of MOD-3 in their order. What belongs to the data connection is never sent (MOD-8)."""
        for service in ("#SMSATRUN", "#TCPATRUNL", "#TCPATRUND", "#ENAEVMONI"):
            await self._switch_off(turn, service)
        for line in ("ATE0V1Q0", "AT+CMEE=1", "AT+CMGF=0", "AT+CSMS=0", "AT+CNMI=2,1,0,0,0"):
            answer = await turn.ask(line)
            if not answer.final.ok:
                log.warning("set-up refused", command=line, final=answer.final.text)
        model, firmware = await turn.ask("AT+CGMM"), await turn.ask("AT+CGMR")
        self.module = replace(
            self.module, model=_first(model.lines), firmware=_first(firmware.lines), memory=await _one_memory(turn)
        )

    async def _switch_off(self, turn: Turn, service: str) -> None:
        """The module's own service would swallow what is meant for us; an error means that it has none."""
        answer = await turn.ask(f"AT{service}?")
        value = answer.value(service)
        if not answer.final.ok or value is None or value[0] == "0":
            return
        await turn.ask(f"AT{service}=0")
        value = (await turn.ask(f"AT{service}?")).value(service)
        off = value is not None and value[0] == "0"
        log.warning("the module's own service was on", command=service, state="off now" if off else "still on")

    async def _try_memory(self, channel: Channel) -> None:
        """Look again for the SMS store: after a start the SIM's messages may take 20 s to be ready."""
        try:
            async with channel.turn(OWN) as turn:
                memory = await _one_memory(turn)
        except (LinkLostError, TimedOutError, WaitedTooLongError):
            return
        if memory:
            self._change(memory=memory)

    def _say_absent(self, detail: str) -> None:
        if detail != self.module.detail:  # once for each cause, however often it is tried
            log.warning("module absent", detail=detail)
        self._change(state=State.ABSENT, detail=detail)

    def _change(self, *, state: State | None = None, detail: str | None = None, memory: str | None = None) -> None:
        before = self.module
        self.module = replace(
            before,
            state=before.state if state is None else state,
            detail=before.detail if detail is None else detail,
            memory=before.memory if memory is None else memory,
        )
        if self.module != before:
            self._on_change(self.module)


class _SetupError(Exception):
    """The port is there, the module behind it does not answer."""


async def _wake(turn: Turn) -> None:
    for _ in range(WAKE_TRIES):
        try:
            if (await turn.ask("ATE0V1Q0", timeout=2.0)).final.ok:
                break
        except TimedOutError:
            continue
    # An answer to an earlier try may have come late: only one's own name shows that question and answer belong together.
    if (await turn.ask("AT+CMEE?")).value("+CMEE") is None:
        raise TimedOutError("the module does not answer; is this its AT port, and the baud rate right?")


async def _one_memory(turn: Turn) -> str:
    """Set all of +CPMS to one memory and return it, or "": SM if there is one, for it stays with the number."""
    offered = await turn.ask("AT+CPMS=?")
    text = " ".join(offered.lines)
    for memory in ("SM", "ME"):
        if f'"{memory}"' in text and (await turn.ask(f'AT+CPMS="{memory}","{memory}","{memory}"')).final.ok:
            return memory
    return ""


def _first(lines: tuple[str, ...]) -> str:
    return lines[0][:64] if lines else ""
