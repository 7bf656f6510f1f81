# SPDX-License-Identifier: Apache-2.0
"""The local door's terminals: a pseudo-terminal for each instance, for programs that want a modem's port (CMD-3).

Rules of this file: the table says what a line may do. What is typed while a command runs stays with the kernel, in
order, until its final result is out or it asks for data, as on a module's own USB port: scripts write several lines at
once, and it aborts nothing. A client that goes takes nothing with it: as at a modem, its whole lines are run, and
answered to nobody; but a prompt that nobody is there to answer is given up.
"""

import asyncio
import contextlib
import enum
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from atrund.at.exchange import Prompted
from atrund.atrun.instance import LineEditor, show_final, show_line, show_prompt, show_unsolicited
from atrund.atrun.interface import Interface
from atrund.atrun.request import Door, End, Outcome, Reason, Request
from atrund.doors.pseudo import PseudoTerminal
from atrund.doors.rights import group_id
from atrund.instances import Instances
from atrund.run import Run
from atrund.runner import Runner
from atrund.table import To, step

log = structlog.get_logger()

HEARD_MAX: Final = 100
"""Unsolicited codes kept while a command runs, the oldest makes room: a module's burst at start is a few dozen."""
KEPT_MAX: Final = 32_768
"""Octets of lines kept of clients that have gone: all that the kernel held of one, but not of hundreds."""


@dataclass(frozen=True, slots=True)
class TerminalRules:
    """What the door goes by. `links`: by instance, where its terminal is found. `timeout`: a command's, in seconds.

    `group` ("": the daemon's own) and `mode` are those of the pseudo-terminals.
    """

    links: tuple[tuple[int, Path], ...]
    group: str = "atrund"
    mode: int = 0o660
    timeout: float = 300.0


class State(enum.Enum):
    """Where a terminal is."""

    COMMAND = "command awaited"
    RUNNING = "command runs"
    DATA = "data awaited"


class Event(enum.Enum):
    """What can happen to it."""

    LINE = "line"
    PROMPT = "prompt"
    DATA_ENDED = "data ended"
    FINAL = "final result"
    LEFT = "client left"


class Effect(enum.Enum):
    """What the door is to do."""

    PAUSE = "leave input unread"
    EXECUTE = "run the line"
    KEEP_LINES = "keep whole lines, forget half a one"
    RESUME = "read input"
    SHOW_HEARD = "show what came unasked"
    NEXT = "take what was typed meanwhile"
    GIVE = "pass on what was typed"
    GIVE_UP = "give the command up"


TRANSITIONS: Final[dict[State, dict[Event, To[State, Effect]]]] = {
    State.COMMAND: {
        Event.LINE: To(State.RUNNING, (Effect.PAUSE, Effect.EXECUTE)),
        Event.LEFT: To(State.COMMAND, (Effect.KEEP_LINES, Effect.NEXT)),
    },
    State.RUNNING: {
        Event.FINAL: To(State.COMMAND, (Effect.RESUME, Effect.SHOW_HEARD, Effect.NEXT)),
        # A modem goes on when its DTR falls, and so does the run: `echo AT… >LINK` wants its command run.
        Event.LEFT: To(State.RUNNING, (Effect.KEEP_LINES,)),
        Event.PROMPT: To(State.DATA, (Effect.RESUME, Effect.GIVE)),
    },
    State.DATA: {
        Event.PROMPT: To(State.DATA, (Effect.RESUME, Effect.GIVE)),  # the line's next command's
        Event.DATA_ENDED: To(State.RUNNING, (Effect.PAUSE,)),
        Event.FINAL: To(State.COMMAND, (Effect.RESUME, Effect.SHOW_HEARD, Effect.NEXT)),
        Event.LEFT: To(State.RUNNING, (Effect.PAUSE, Effect.KEEP_LINES, Effect.GIVE_UP)),
    },
}


class TerminalDoor:
    """Serves the terminals until closed.

    `interface` tells what an instance has set. `instances` gives an instance's unsolicited codes.
    """

    def __init__(
        self, rules: TerminalRules, *, runner: Runner, instances: Instances, interface: Callable[[int], Interface]
    ) -> None:
        self._rules = rules
        self._terminals = {
            instance: _Terminal(instance, link, rules, runner, instances, interface) for instance, link in rules.links
        }

    async def start(self) -> None:
        """Make the terminals and their links. Raises `OSError` when one can't be made; then there is none."""
        group = group_id(self._rules.group, "local.terminal_group")
        for terminal in self._terminals.values():
            terminal.check(group, self._rules.mode)
        try:
            for terminal in self._terminals.values():
                terminal.start()
        except OSError:
            await self.close()
            raise

    async def close(self) -> None:
        """Hang up on the clients and take the links away. Runs go on, and are the runner's to end."""
        for terminal in self._terminals.values():
            terminal.close()

    def hold(self, instance: int, reason: str) -> None:
        """Answer every further line of an instance with an error, for a service has it; what runs, ends (CMD-3)."""
        if instance in self._terminals:
            self._terminals[instance].held = reason

    def release(self, instance: int) -> None:
        """Take lines of an instance again."""
        self.hold(instance, "")

    @property
    def states(self) -> dict[int, str]:
        """What each instance's terminal is: free, in use, or held and why."""
        return {instance: terminal.shown for instance, terminal in self._terminals.items()}


class _Terminal:
    """One instance's terminal: what is typed becomes runs, and what they say is shown to whoever typed it."""

    def __init__(  # noqa: PLR0917 - one call, in this file
        self,
        instance: int,
        link: Path,
        rules: TerminalRules,
        runner: Runner,
        instances: Instances,
        interface: Callable[[int], Interface],
    ) -> None:
        self.held = ""
        self._instance = instance
        self._link = link
        self._rules = rules
        self._runner = runner
        self._instances = instances
        self._interface = interface
        self._tty: PseudoTerminal | None = None
        self._state = State.COMMAND
        self._editor = LineEditor(repeats=True)
        self._input = bytearray()  # what a read brought behind a line that runs
        self._lines: deque[tuple[str, int]] = deque()  # what a client typed before it left, and its visit
        self._visit = 0
        self._hearing = contextlib.ExitStack()
        self._heard: deque[tuple[str, ...]] = deque(maxlen=HEARD_MAX)
        self._answering: asyncio.Task[None] | None = None
        self._run: Run | None = None

    @property
    def shown(self) -> str:
        if self.held:
            return f"held: {self.held}"
        return "in use" if self._tty is not None and self._tty.present else "free"

    def check(self, group: int | None, mode: int) -> None:
        self._tty = PseudoTerminal(self._link, self, mode=mode, group=group)
        self._tty.check()

    def start(self) -> None:
        self._port.start()

    def close(self) -> None:
        self._input.clear()
        self._lines.clear()
        if self._tty is not None:
            self._tty.close()
        self._hearing.close()
        if self._answering is not None:
            self._answering.cancel()

    def came(self) -> None:
        self._visit += 1
        self._hearing.enter_context(self._instances.listening(self._instance, self._hear))

    def received(self, data: bytes) -> None:
        self._input += data
        self._give()
        self._take_next()

    def replaced(self) -> None:
        self._step(Event.LEFT)

    def left(self, rest: bytes) -> None:
        self._hearing.close()
        self._heard.clear()
        self._input += rest
        self._give()  # these may be the last of the data
        self._step(Event.LEFT)

    @property
    def _port(self) -> PseudoTerminal:
        assert self._tty is not None  # noqa: S101 - nothing happens here before `check`
        return self._tty

    def _step(self, event: Event, line: str = "", visit: int = 0) -> None:
        to = step(TRANSITIONS, self._state, event)
        self._state = to.state
        for effect in to.effects:
            match effect:
                case Effect.PAUSE:
                    self._port.pause()
                case Effect.EXECUTE:
                    self._execute(line, visit)
                case Effect.KEEP_LINES:
                    self._keep_lines()
                case Effect.RESUME:
                    self._port.resume()
                case Effect.SHOW_HEARD:
                    self._show_heard()
                case Effect.NEXT:
                    self._take_next()
                case Effect.GIVE:
                    self._give()
                case Effect.GIVE_UP:
                    self._give_up()

    def _take_next(self) -> None:
        """Take input up to the next line that is to be run."""
        while self._state is State.COMMAND and (self._lines or self._input):
            if not self._lines:
                self._type()
                continue
            line, visit = self._lines.popleft()
            # What does not begin with AT is no command line, and a modem says nothing to it (V.250 5.2.1). Clients send
            # ESC and Ctrl-Z first, to leave a prompt that an earlier one may have left open.
            line = line.lstrip(_NO_BEGINNING)
            if line[:2].upper() == "AT":
                self._step(Event.LINE, line, visit)

    def _type(self) -> None:
        """Give the editor what was typed, up to a line's end: what the line does may decide about the rest."""
        interface = self._interface(self._instance)
        self._editor.follow(interface)
        end = self._input.find(interface.value("S3")) + 1 or len(self._input)
        piece = bytes(self._input[:end])
        del self._input[:end]
        typed = self._editor.feed(piece)
        if interface.on("E"):
            self._port.write(typed.echo)
        self._lines.extend((line, self._visit) for line in typed.lines)

    def _give(self) -> None:
        """Pass on what is data for a prompt. The module's echo is off, so it is made here."""
        run = self._run
        if self._state is not State.DATA or run is None:
            return
        taken = run.give(bytes(self._input))
        self._input[:] = taken.rest
        if self._interface(self._instance).on("E"):
            self._port.write(taken.echo)
        if not run.awaits_data:
            self._step(Event.DATA_ENDED)
        elif run.is_full:
            self._port.pause()

    def _give_up(self) -> None:
        if self._run is not None:
            self._run.give_up()

    def _hear_of_more(self) -> None:
        """There may be room again for what is typed, or no wish for it any more."""
        if self._state is State.DATA and self._run is not None and not self._run.is_full:
            self._port.resume()
            self._give()

    def _keep_lines(self) -> None:
        room = KEPT_MAX - sum(len(line) + 1 for line, _ in self._lines)
        for line in self._editor.feed(bytes(self._input)).lines:
            room -= len(line) + 1
            if room < 0:
                log.warning("lines of a client that has gone are not run: too many wait", link=str(self._link))
                break
            self._lines.append((line, self._visit))
        self._input.clear()
        self._editor = LineEditor(repeats=True)  # the next client's A/ must not run this one's line

    def _execute(self, line: str, visit: int) -> None:
        request = Request(
            rid=uuid.uuid4().hex,
            door=Door.LOCAL,
            peer=f"terminal {self._instance}",
            line=line,
            timeout=self._rules.timeout,
            instance=self._instance,
            interactive=True,
        )
        refused = Outcome(End.REJECTED, Reason.HELD, detail=self.held) if self.held else None
        self._run = run = self._runner.start(request, refused=refused)
        run.watch(self._hear_of_more)
        self._answering = asyncio.get_running_loop().create_task(self._answer(run, visit), name="terminal answer")

    async def _answer(self, run: Run, visit: int) -> None:
        """Pass the answer on as it comes; a client that does not read stops its own terminal, never the port."""
        try:
            async for said in run.said():
                if isinstance(said, Prompted):
                    await self._ask(run, said, visit)
                else:
                    await self._say(show_line(said, self._interface(self._instance)), visit)
            outcome = await asyncio.shield(run.outcome)
            if outcome is not None:
                await self._say(show_final(outcome, self._interface(self._instance)), visit)
        finally:
            self._run = None
            self._step(Event.FINAL)

    async def _ask(self, run: Run, prompt: Prompted, visit: int) -> None:
        await self._say(show_prompt(prompt), visit)
        if visit != self._visit or not self._port.present:
            run.give_up()
        elif not prompt.again and run.awaits_data:
            self._step(Event.PROMPT)

    async def _say(self, text: str, visit: int) -> None:
        if visit == self._visit:  # else whoever asked is gone
            self._port.write(text.encode("latin-1", "replace"))
            await self._port.room()

    def _hear(self, lines: tuple[str, ...]) -> None:
        """Take an unsolicited code; one that comes while a command runs is shown behind its final result."""
        self._heard.append(lines)
        if self._state is State.COMMAND:
            self._show_heard()

    def _show_heard(self) -> None:
        while self._heard:
            text = show_unsolicited(self._heard.popleft(), self._interface(self._instance))
            self._port.write(text.encode("latin-1", "replace"))


_NO_BEGINNING: Final = "".join(map(chr, range(0x21))) + "\x7f"
