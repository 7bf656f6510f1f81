# SPDX-License-Identifier: Apache-2.0
"""Asking a free AT port who it is (`atrunctl doctor --probe`): exclusively, with short waits, reading only.

Rules of this file: not a byte goes to a port that somebody else has open; nothing is asked that changes a setting.
"""

import errno
import fcntl
import os
import re
import select
import struct
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from atrund.at.results import classify, classify_numeric

TIOCGEXCL: Final = 0x80045440
"""Linux: whether a terminal is in exclusive use (asm-generic/ioctls.h); the library has no name for it."""

QUESTIONS: Final = (("+CGMM", 3.0), ("+CGSN", 3.0), ("+CPIN?", 5.0), ("+CREG?", 3.0), ("+CSCA?", 5.0))
"""What is asked, and the seconds that each answer may take: all are told from memory, two of them the SIM's."""

WAKE_TRIES: Final = 2
WAKE_WAIT: Final = 1.0
"""How often AT is sent until there is an answer, and the seconds for it: the first may be lost on a sleeping module."""

ANSWER_MAX: Final = 16384
"""Bytes of one answer: the longest of these is a line; more is no module."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a port answered: the information lines by command (without AT), and those that ended in an error.

    `refused` says why it was not asked; `silent` that it took bytes and gave no answer to AT.
    """

    lines: dict[str, tuple[str, ...]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    refused: str = ""
    silent: bool = False

    def value(self, command: str) -> str:
        """Return the first information line of a command, without the command's name before it; empty for none."""
        name = command.rstrip("?")
        lines = self.lines.get(command, ())
        prefixed = [line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:")]
        bare = [line for line in lines if not re.match(r"[+#$][A-Z]", line)]
        return next(iter(prefixed or bare), "")


def probe(path: Path, in_use: Callable[[], str]) -> Answers:
    """Ask a port. `in_use` says who else has it open, or "" for nobody: it is asked before the first byte is written.

    Nothing is raised: a port that can't be had is `refused`.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        busy = error.errno == errno.EBUSY
        return Answers(refused="in exclusive use" if busy else error.strerror or str(error))
    try:
        refused = _take(descriptor) or in_use()
        if refused:
            return Answers(refused=refused)
        try:
            _make_raw(descriptor)
            return _ask(descriptor)
        finally:
            fcntl.ioctl(descriptor, termios.TIOCNXCL)
    except (OSError, termios.error) as error:
        return Answers(refused=str(error.args[-1]))
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> str:
    """Take the port for oneself alone; say who has it if that can't be."""
    if struct.unpack("i", fcntl.ioctl(descriptor, TIOCGEXCL, bytes(4)))[0]:
        return "in exclusive use (TIOCEXCL)"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "locked by another program (flock)"
    fcntl.ioctl(descriptor, termios.TIOCEXCL)
    return ""


def _make_raw(descriptor: int) -> None:
    """Bytes as they are, 115200 8N1, no modem control, and DTR left alone at the end (HUPCL)."""
    attributes = termios.tcgetattr(descriptor)
    characters = attributes[6]
    characters[termios.VMIN], characters[termios.VTIME] = 0, 0
    flags = termios.CS8 | termios.CREAD | termios.CLOCAL
    termios.tcsetattr(descriptor, termios.TCSANOW, [0, 0, flags, 0, termios.B115200, termios.B115200, characters])
    termios.tcflush(descriptor, termios.TCIOFLUSH)


def _ask(descriptor: int) -> Answers:
    if not any(_exchange(descriptor, "AT", WAKE_WAIT) for _ in range(WAKE_TRIES)):
        return Answers(silent=True)
    answers = Answers()
    for command, wait in QUESTIONS:
        ended = _exchange(descriptor, f"AT{command}", wait)
        if ended is None:
            # What comes late would be taken for the answer to the next question.
            answers.errors[command] = "no answer"
            break
        lines, final = ended
        if final == "OK":
            answers.lines[command] = tuple(lines)
        else:
            answers.errors[command] = final
    return answers


def _exchange(descriptor: int, command: str, wait: float) -> tuple[list[str], str] | None:
    """Send a command; return its information lines and its final result, or None where none came in time."""
    deadline = time.monotonic() + wait
    try:
        os.write(descriptor, f"{command}\r".encode("ascii"))
    except BlockingIOError:  # it takes nothing
        return None
    received = b""
    while len(received) < ANSWER_MAX:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            return None
        received += os.read(descriptor, 4096)
        lines: list[str] = []
        for line in re.split(r"[\r\n]+", received.decode("latin-1"))[:-1]:
            final = classify(line) or classify_numeric(line)
            if final is not None and not final.kind.of_a_call:
                return lines, final.text
            if line and line != command and final is None:
                lines.append(line)
    return None
