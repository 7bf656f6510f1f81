# SPDX-License-Identifier: Apache-2.0
"""What a test needs that runs in a machine or container of its own, where there is only the standard library."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

T = TypeVar("T")

COMMAND_WAIT: Final = 60.0
"""Seconds for a command."""
LOOK_EVERY: Final = 0.05


class Wrong(AssertionError):
    """Something was not as it should be."""


def check(right: bool, otherwise: str) -> None:  # noqa: FBT001 - as an assertion has it
    """Raise `Wrong` unless it is right."""
    if not right:
        raise Wrong(otherwise)


def run(*command: str, env: Mapping[str, str] | None = None) -> str:
    """Run a command, which must work, and return what it printed."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=COMMAND_WAIT,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
    )
    check(done.returncode == 0, f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def until(look: Callable[[], T | None], what: str, seconds: float) -> T:
    """Look until there is something to see, and return it."""
    end = time.monotonic() + seconds
    while not (found := look()):
        check(time.monotonic() < end, f"never seen: {what}")
        time.sleep(LOOK_EVERY)
    return found
