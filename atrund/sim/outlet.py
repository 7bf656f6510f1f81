# SPDX-License-Identifier: Apache-2.0
"""The way of an answer out of a port: straight, or kept back until its end and then spoilt by a mangle."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from atrund.sim.mangle import OF_PROMPT, How, Mangle

if TYPE_CHECKING:  # the module owns its ports, and so knows them
    from atrund.sim.module import SimModule

COLLECTED_CAP: Final = 262_144
"""Bytes of an answer that are kept back; a longer one goes out as it is."""


class Outlet:
    """Takes the lines of one answer after the other. `put` takes what goes out, `flush` sends it."""

    def __init__(self, module: "SimModule", put: Callable[[bytes], None], flush: Callable[[], None]) -> None:
        self._module = module
        self._put = put
        self._flush = flush
        self._mangle: Mangle | None = None
        self._collected: list[bytes] = []
        self._size = 0
        self._sending: deque[bytes] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._late: set[asyncio.TimerHandle] = set()

    @property
    def sending(self) -> bool:
        """Whether an answer is half out."""
        return bool(self._sending)

    def begin(self, mangle: Mangle | None) -> None:
        """Say what will be done to the answer that begins."""
        self._mangle = mangle
        self._size = 0

    def line(self, data: bytes) -> None:
        """Take a line of the answer."""
        if self._mangle is None:
            self._put(data)
            return
        self._collected.append(data)
        self._size += len(data)
        if self._size > COLLECTED_CAP:
            self._release()
            self._mangle = None

    def prompt(self, mark: bytes, times: int) -> None:
        """Take a prompt. What was answered before it can't be spoilt any more."""
        self._release()
        self._put(mark * (times if self._mangle is None else OF_PROMPT.get(self._mangle.how, times)))

    def end(self, wrong: bytes, done: Callable[[], None], *, quiet: bool) -> None:
        """End the answer; `done` is called when all of it is out.

        `wrong` is another final result, framed as the right one; a `quiet` answer has none, and is not spoilt.
        """
        mangle, self._mangle = self._mangle, None
        if mangle is None or quiet:
            self._release()
            done()
            return
        pieces = self._module.mangles.spoil(mangle, self._collected, wrong)
        self._collected.clear()
        match mangle.how:
            case How.LATE:
                self._put_later(mangle.wait, b"".join(pieces))
                done()
            case How.SPLIT:
                self._sending.extend(pieces)
                self._send(mangle.wait, done)
            case How.REBOOT_INSIDE:
                self._put(b"".join(pieces))
                self._flush()
                self._module.reboot()
            case _:
                self._put(b"".join(pieces))
                done()

    def cancel(self) -> None:
        """Lose all that is not out yet."""
        self._mangle = None
        self._collected.clear()
        self._sending.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for timer in self._late:
            timer.cancel()
        self._late.clear()

    def _put_later(self, seconds: float, data: bytes) -> None:
        def put() -> None:
            self._late.discard(timer)
            self._put(data)
            self._flush()

        timer = asyncio.get_running_loop().call_later(seconds, put)
        self._late.add(timer)

    def _send(self, seconds: float, done: Callable[[], None]) -> None:
        """Put out the next piece of a split answer."""
        self._timer = None
        self._put(self._sending.popleft())
        self._flush()
        if self._sending:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._send, seconds, done)
        else:
            done()

    def _release(self) -> None:
        """Let out what was kept back."""
        for data in self._collected:
            self._put(data)
        self._collected.clear()
