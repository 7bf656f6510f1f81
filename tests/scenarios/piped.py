# SPDX-License-Identifier: Apache-2.0
"""Other people's programs, spoken with by their standard input and output."""

import os
import select
import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.scenarios.players import PATIENCE


class Peer:
    """A program that takes a call or makes one, and passes octets on."""

    def __init__(self, *command: str | Path, log: Path) -> None:
        self._log = log.open("wb")
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._log, bufsize=0)
        self.heard = b""

    def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def read_until(self, end: bytes) -> bytes:
        assert self.process.stdout is not None
        limit = time.monotonic() + PATIENCE
        while end not in self.heard:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, limit - time.monotonic()))
            assert ready, f"never heard, behind {self.heard!r}"
            piece = os.read(self.process.stdout.fileno(), 65536)
            assert piece, f"ended behind {self.heard!r}: {Path(self._log.name).read_text()[-2000:]}"
            self.heard += piece
        found, _, self.heard = self.heard.partition(end)
        return found + end

    def rest(self) -> bytes:
        out, _ = self.process.communicate(timeout=PATIENCE)
        return self.heard + bytes(out)

    def ended(self) -> None:
        self.process.wait(PATIENCE)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=PATIENCE)
        self._log.close()


class Start:
    """Starts programs, which are stopped behind the test; one that is not there skips it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack

    def __call__(self, *command: str | Path) -> Peer:
        if shutil.which(command[0]) is None:
            pytest.skip(f"there is no {command[0]}")
        peer = Peer(*command, log=self._folder / f"peer-{time.monotonic_ns()}.log")
        self._stack.callback(peer.stop)
        return peer
