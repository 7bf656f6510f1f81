# SPDX-License-Identifier: Apache-2.0
"""One AT interface of the simulated module: bytes in, echo, lines, prompts; answers and unsolicited lines out.

It works byte by byte, so that its output does not depend on how the input was cut up. One command line runs at a time;
what is typed meanwhile is ignored, as a module does (application note 80000NT10029a 3.4), except that any character
aborts a command that can be aborted.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from atrund.at.results import CME_TEXTS
from atrund.at.syntax import Command, LineRefused, Op, parse
from atrund.sim.commands import handler_of
from atrund.sim.editor import BACKSPACES, CR, LF, Editor
from atrund.sim.outlet import Outlet
from atrund.sim.state import PortSettings
from atrund.sim.steps import Prompt, Refused, Step, Wait

if TYPE_CHECKING:  # the module owns its ports, and so knows them
    from atrund.sim.module import SimModule

DATA_CAP: Final = 8192
"""Bytes of data kept at a text prompt: the longest text, ten parts of 153 characters as hex of UCS-2, is 6120."""

HELD_CAP: Final = 64
"""Unsolicited lines that wait for the end of a prompt; past it the oldest are lost, as in a module's buffer."""

SEEN_CAP: Final = 1000
"""Command lines remembered for whoever asks what reached the module."""

FLUSH_AT: Final = 16384
"""Output collected before it is written: many short writes become one."""

SURPLUS_SECONDS: Final = 0.1
"""How long what comes behind the data of a counted prompt is dropped, where it is."""

HIDDEN: Final = -1
"""The number of a port that no unsolicited line goes to: another tenant's, or the module's own."""

_CTRL_Z, _ESC = 0x1A, 0x1B


class SimPort:
    """An AT interface. `write` takes what the module puts out; `feed` is given what is typed. Neither ever raises."""

    def __init__(self, module: "SimModule", number: int, write: Callable[[bytes], None]) -> None:
        self.module = module
        self.number = number
        self._settings = PortSettings()
        self.seen: deque[str] = deque(maxlen=SEEN_CAP)
        self.last_line = ""
        self._write = write
        self._closed = False
        self._out = bytearray()
        self._editor = Editor(self._echo, self._too_soon)
        self._queue: deque[Command] = deque()
        self._script: Iterator[Step] | None = None
        self._prompt: Prompt | None = None
        self._data = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._abortable = False
        self._in_block = False
        self._held: deque[str] = deque(maxlen=HELD_CAP)
        self._after_final: list[Callable[[], None]] = []
        self._escape = b""
        self._escaping = b""
        self._outlet = Outlet(module, self._put, self._flush)
        self._short: asyncio.TimerHandle | None = None
        self._deaf_until: float | None = None
        self._final_at: float | None = None

    @property
    def settings(self) -> PortSettings:
        """The settings of this port, or of all where they are one."""
        shared = self.module.shared_settings
        return self._settings if shared is None or self.number == HIDDEN else shared

    @settings.setter
    def settings(self, settings: PortSettings) -> None:
        if self.module.shared_settings is None or self.number == HIDDEN:
            self._settings = settings
        else:
            self.module.shared_settings = settings

    @property
    def busy(self) -> bool:
        """Whether a command line runs, or its answer is still on its way."""
        return self._script is not None or self._outlet.sending

    def feed(self, data: bytes) -> None:
        """Take bytes that were typed."""
        for byte in data:
            if self._closed or not self.module.awake or self._deaf():
                break
            if self._prompt is not None:
                self._take_data(self._prompt, byte)
            elif self.busy:
                if self._abortable and byte != LF:
                    self._finish("ABORTED")
                elif self._escape:
                    self._take_escape(byte)
            else:
                self._take_command(byte)
        self._flush()

    def urc(self, text: str) -> None:
        """Put out an unsolicited line; while a prompt is open, an answer half out or data mode on, it waits."""
        if self._prompt is not None or self._outlet.sending or self._escape:
            self._held.append(text)
            return
        self._put_unsolicited(text)
        self._flush()

    def after_final(self, action: Callable[[], None]) -> None:
        """Do something once the running line's final result is out."""
        self._after_final.append(action)

    def interrupt(self) -> None:
        """Forget the line, the prompt and the running command without an answer."""
        self._stop()
        self._editor.clear()
        self._final_at = None
        self._deaf_until = None
        self._outlet.cancel()
        self._held.clear()
        self._after_final.clear()
        self._out.clear()

    def restart(self) -> None:
        """Come back with the settings of power-up."""
        self.interrupt()
        self.settings = PortSettings()
        self.last_line = ""

    def close(self) -> None:
        """Take no more and put out no more."""
        self.interrupt()
        self._closed = True
        self.module.forget_port(self)

    # Input.

    def _take_command(self, byte: int) -> None:
        typed = self._editor.take(byte)
        if typed is None:
            return
        if typed.repeat:
            self._run(self.last_line or "AT", overlong=False)
        elif not (typed.hasty and self._refuse_haste(typed.line)):
            self._run(typed.line, overlong=typed.overlong)

    def _too_soon(self) -> bool:
        """Whether the last result was out less than the gap ago that this firmware wants."""
        if self._final_at is None or self.number == HIDDEN or self.module.quirks.word("command_gap") == "off":
            return False
        return asyncio.get_running_loop().time() - self._final_at < self.module.quirks.number("gap_seconds")

    def _refuse_haste(self, line: str) -> bool:
        """Do with a line that came too soon as the quirk says; False if it says nothing."""
        match self.module.quirks.word("command_gap"):
            case "ignore":
                return True
            case "error":
                self.seen.append(line)
                self._finish("ERROR")
                return True
        return False

    def _deaf(self) -> bool:
        if self._deaf_until is None:
            return False
        if asyncio.get_running_loop().time() < self._deaf_until:
            return True
        self._deaf_until = None
        return False

    def _take_escape(self, byte: int) -> None:
        """Look for the sequence that ends data mode; the rest of what is typed there goes nowhere."""
        self._escaping = (self._escaping + bytes([byte]))[-len(self._escape) :]
        if self._escaping == self._escape:
            self._finish("NO CARRIER")

    def _take_data(self, prompt: Prompt, byte: int) -> None:
        if prompt.count is not None:
            self._data.append(byte)
            if prompt.as_text:
                self._echo(bytes([byte]))
            if len(self._data) < prompt.count:
                self._watch_short()
            else:
                if self.module.quirks.word("counted_surplus") == "drop":
                    self._deaf_until = asyncio.get_running_loop().time() + SURPLUS_SECONDS
                self._answer_prompt(prompt)
        elif byte == _ESC:
            self._finish("OK")
        elif byte == _CTRL_Z:
            self._answer_prompt(prompt)
        elif byte in BACKSPACES:
            if self._data:
                self._data.pop()
                self._echo(b"\b \b")
        else:
            self._echo(bytes([byte]))
            if len(self._data) < DATA_CAP:
                self._data.append(byte)
            if byte == CR and prompt.again:
                self._put(prompt.mark)

    def _watch_short(self) -> None:
        """Give data that is short of its count so long to go on."""
        seconds = self.module.quirks.number("counted_timeout")
        if self._short is not None:
            self._short.cancel()
            self._short = None
        if seconds:
            self._short = asyncio.get_running_loop().call_later(seconds, self._finish, "ERROR")

    def _answer_prompt(self, prompt: Prompt) -> None:
        if self._short is not None:
            self._short.cancel()
            self._short = None
        prompt.data = bytes(self._data)
        self._data.clear()
        self._prompt = None
        self._go_on()

    # Running a line.

    def _run(self, line: str, *, overlong: bool) -> None:
        self.seen.append(line)
        if self.module.hung:
            return
        self.last_line = line
        self._script = iter(())
        try:
            if overlong:
                raise Refused
            # A bare AT is a command without a name, so that faults can be planted on it as on any other.
            self._queue.extend(parse(line) or [Command("", Op.EXECUTE)])
            self._begin_answer(self._queue)
        except (LineRefused, Refused):
            self._begin_answer(())
            self._finish("ERROR")
            return
        self._go_on()

    def _begin_answer(self, commands: Iterable[Command]) -> None:
        self._outlet.begin(None if self.number == HIDDEN else self.module.mangles.take(commands))

    def _go_on(self) -> None:
        """Take steps until the line ends or has to wait for something."""
        try:
            while self._script is not None and self._prompt is None and self._timer is None:
                step = next(self._script, None)
                if step is not None:
                    self._take_step(step)
                elif self._queue:
                    self._in_block = False
                    self._script = iter(self._steps_of(self._queue.popleft()))
                else:
                    self._finish("OK")
        except Refused as refused:
            self._finish(self._words_of(refused))

    def _steps_of(self, command: Command) -> Iterable[Step]:
        return self.module.faults.steps(self, command, handler_of(self, command))

    def _take_step(self, step: Step) -> None:
        match step:
            case str():
                head = b"\r\n" if not self._in_block and self.settings.verbose else b""
                self._in_block = True
                self._outlet.line(head + step.encode("latin-1", "replace") + b"\r\n")
                return
            case bytes():
                self._put(step)
            case Prompt():
                self._prompt = step
                self._outlet.prompt(step.mark, step.times)
                if step.count is not None:
                    self._watch_short()
            case Wait() if step.seconds > 0:
                self._abortable = step.abortable
                self._escape = step.escape
                self._timer = asyncio.get_running_loop().call_later(step.seconds, self._woken)
        self._in_block = False

    def _woken(self) -> None:
        self._timer = None
        self._abortable = False
        self._go_on()
        self._flush()

    def _finish(self, final: str) -> None:
        self._stop()
        if not self.settings.quiet:
            self._outlet.line(self._result(final))
        wrong = self._result("ERROR" if final == "OK" else "OK")
        self._outlet.end(wrong, self._finished, quiet=self.settings.quiet)

    def _finished(self) -> None:
        """The final result is out: now what waited for that."""
        for text in self._held:
            self._put_unsolicited(text)
        self._held.clear()
        self._flush()
        if self.module.quirks.word("command_gap") != "off":
            self._final_at = asyncio.get_running_loop().time()
        actions, self._after_final = self._after_final, []
        for action in actions:
            action()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._short is not None:
            self._short.cancel()
        self._timer = self._short = None
        self._abortable = False
        self._escape = self._escaping = b""
        self._script = None
        self._prompt = None
        self._in_block = False
        self._queue.clear()
        self._data.clear()

    def _words_of(self, refused: Refused) -> str:
        if refused.cme is None:
            return refused.final
        if self.settings.cmee == 0:
            return "ERROR"
        if self.settings.cmee == 1:
            return f"+CME ERROR: {refused.cme}"
        return f"+CME ERROR: {CME_TEXTS.get(refused.cme, 'unknown')}"

    # Output.

    def _result(self, final: str) -> bytes:
        """Return a result code as V.250 5.7.1 frames it: in words, or as a digit and CR."""
        if self.settings.verbose:
            return f"\r\n{final}\r\n".encode("latin-1", "replace")
        return f"{_NUMERIC.get(final, final)}\r".encode("latin-1", "replace")

    def _put_unsolicited(self, text: str) -> None:
        self._in_block = False
        if text in _NUMERIC:
            self._put(self._result(text))
        else:
            self._put(f"\r\n{text}\r\n".encode("latin-1", "replace"))

    def _echo(self, data: bytes) -> None:
        if self.settings.echo:
            self._put(data)

    def _put(self, data: bytes) -> None:
        if self._closed or self.module.mute:
            return
        self._out += data
        if len(self._out) >= FLUSH_AT:
            self._flush()

    def _flush(self) -> None:
        if self._out:
            data = bytes(self._out)
            self._out.clear()
            self._write(data)


_NUMERIC: Final = dict(
    zip(
        ("OK", "CONNECT", "RING", "NO CARRIER", "ERROR", "NO DIALTONE", "BUSY", "NO ANSWER"),
        itertools.chain(range(5), (6, 7, 8)),
        strict=True,
    )
)
"""V.250 table 1."""
