# SPDX-License-Identifier: Apache-2.0
"""Examples of a page, typed at a machine as they stand there, and what comes held to what is shown.

A fenced block is an example by its kind:

    console   lines behind `$ ` are typed at a shell, which ends them before the next; all other lines are what is to be
              seen, both outputs, where `…` stands for anything. Empty lines count for nothing. A command that ends with
              `&` goes on. Where `⏎` stands, a program asks: what stands before it in its line, behind a prompt (`: ` or
              `> `), is typed at a terminal; so are keys that have a line for themselves, `^C` or `^A^X`.
    sh        typed all at once at a shell, and must not fail
    toml      a configuration. One that begins with its name, `# /etc/atrund/conf.d/tls.toml`, is put there in its
              turn; of others the test says which the daemon has at first

Any other is not run: a picture, a format, what only hardware can do.
"""

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.machine import PATIENCE, Machine

RUN: Final = ("console", "sh")

_TYPED: Final = re.compile(r"^(?:(.*(?:: |> ))?(.*)⏎|((?:\^[A-Z])+))\n", re.MULTILINE)
_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Example:
    """One command of a page, or one block of `sh`; `shown` None is not looked at."""

    line: int
    command: str
    shown: str | None


def blocks(text: str) -> Iterator[tuple[int, str, str]]:
    """Every fenced block: number of its first line, kind, text."""
    for found in _FENCE.finditer(text):
        yield text.count("\n", 0, found.start(2)) + 1, found[1], found[2]


def examples(page: Path) -> list[Example]:
    """All that is to be typed, in the order of the page."""
    made = []
    for number, kind, text in blocks(page.read_text(encoding="utf-8")):
        if kind == "sh":
            made.append(Example(number, text, None))
        elif kind == "toml" and (name := re.match(r"# (/etc/\S+)\n", text)):
            made.append(Example(number, f"cat >{name[1]} <<'END'\n{text}END", ""))
        elif kind == "console":
            assert text.startswith("$ "), f"{page.name}:{number}: it begins with no command"
            made += [
                Example(number + text.count("\n", 0, part.start()), part[1], part[2])
                for part in re.finditer(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE)
            ]
    return made


def follow(machine: Machine, example: Example) -> str:
    """Type an example, hold what comes to what is shown, and return it."""
    if example.shown is None:
        done = machine.run(f"set -e\n{example.command}")
        assert done.returncode == 0, f"line {example.line}: {example.command}\n{done.stdout}"
        return done.stdout
    if _TYPED.search(example.shown):
        return _talk(machine, example)
    if example.command.endswith("&"):
        return _begin(machine, example)
    seen = machine.run(example.command).stdout
    try:
        _hold(example, seen)
    except AssertionError as error:
        raise AssertionError(f"{error}--- the daemon\n{machine.log}") from None
    return seen


def _hold(example: Example, seen: str) -> None:
    assert example.shown is not None
    assert re.fullmatch(_pattern(example.shown), _plain(seen), re.DOTALL), (
        f"line {example.line}: {example.command}\n--- shown\n{example.shown}--- seen\n{seen}"
    )


def _begin(machine: Machine, example: Example) -> str:
    """Start what goes on, and wait for what is shown."""
    log = machine.start(example.command.removesuffix("&"))
    seen = ""
    end = time.monotonic() + PATIENCE
    while not re.fullmatch(_pattern(example.shown or ""), _plain(seen), re.DOTALL) and time.monotonic() < end:
        time.sleep(0.05)
        seen = log.read_text(encoding="utf-8", errors="replace")
    _hold(example, seen)
    return seen


def _talk(machine: Machine, example: Example) -> str:
    """Be the one at the terminal: wait for what is shown up to each word that is typed, and type it."""
    assert example.shown is not None
    ours, theirs = pty.openpty()
    command = machine.command("setsid", "--ctty", "--wait", "bash", "-c", example.command)
    process = subprocess.Popen(
        command, env=machine.environ, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    seen = wanted = ""
    try:
        place = 0
        for found in _TYPED.finditer(example.shown):
            prompt, line, keys = found.groups("")
            wanted += _pattern(example.shown[place : found.start()]) + _pattern(prompt.rstrip()) + " ?"
            seen = _read(ours, seen, wanted, example)
            if keys:
                time.sleep(0 if seen else 2)  # nothing is to be seen of it: does it go on?
                assert process.poll() is None, f"line {example.line}: {example.command}: it ended\n{seen}"
            os.write(ours, bytes(ord(key) - 64 for key in keys[1::2]) or f"{line}\r".encode())
            wanted += f"(?:{re.escape(keys or line)})? *\n?"
            place = found.end()
        wanted += _pattern(example.shown[place:])
        seen = _read(ours, seen, "", example)
        process.wait(PATIENCE)
        assert re.fullmatch(wanted, _plain(seen), re.DOTALL), f"line {example.line}: {example.command}\n{seen}"
    finally:
        process.kill()
        process.wait(PATIENCE)
        os.close(ours)
    return seen


def _read(terminal: int, seen: str, wanted: str, example: Example) -> str:
    """Read until all is there that is wanted; without that, until the end."""
    end = time.monotonic() + PATIENCE
    while not wanted or not re.fullmatch(wanted, _plain(seen), re.DOTALL):
        ready, _, _ = select.select([terminal], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"line {example.line}: {example.command}: never {wanted!r}\n--- seen\n{seen}"
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # nobody has the other end any more
            piece = b""
        if not piece:
            assert not wanted, f"line {example.line}: {example.command}: it ended\n--- seen\n{seen}"
            break
        seen += piece.decode("utf-8", "replace")
    return seen


def _plain(seen: str) -> str:
    """Without what only a terminal needs, and without empty lines."""
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x07|\x00", "", seen).replace("\r", "")
    return re.sub(r"\n+", "\n", re.sub(r"[ \t]+\n", "\n", text)).lstrip("\n")


def _pattern(shown: str) -> str:
    return ".*".join(re.escape(piece) for piece in _plain(shown).split("…"))
