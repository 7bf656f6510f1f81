# SPDX-License-Identifier: Apache-2.0
"""Lends all ports of the module to a program of somebody's, for a time: a terminal, a firmware update.

Rules of this file: what runs on a port is let end first; while a port is lent the daemon opens, sends, counts and
resets nothing; it is taken back when it was given back, or its time is over, and nobody has it open any more.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from atrund.module.lifecycle import State
from atrund.module.port import PortError
from atrund.module.turn import LinkLostError
from atrund.module.turns import URGENT, QueueFullError, WaitedTooLongError
from atrund.usb.holders import holders

if TYPE_CHECKING:  # a keeper knows this file
    from atrund.module.keeper import Keeper

AGAIN_FIRST: Final = 1.0
AGAIN_LONGEST: Final = 30.0
"""Seconds between two looks whether a port is closed by all: soon after a short command, and cheap through a night."""

Held = Callable[[str], tuple[Sequence[str], bool]]
"""Tells who else has a device open, each in words, and whether everybody is seen; blocking, so it runs on a thread."""


def elsewhere(path: str) -> tuple[Sequence[str], bool]:
    """Return who has a device open beside the daemon, and whether its rights let it see everybody."""
    device = Path(path)
    seen = holders((device,))
    found = [one for one in seen.of(device) if not one.daemon and one.pid != os.getpid()]
    number = Path(os.path.realpath(path)).name if found else ""
    return tuple(str(one) for one in found if not _is_far_end(one.pid, number)), seen.complete


def _is_far_end(pid: int, number: str) -> bool:
    """Whether a process is what a pseudo-terminal leads to, and so no one who borrowed it: it has its master."""
    process = Path("/proc") / str(pid)
    with contextlib.suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            if descriptor.readlink().name == "ptmx":
                told = (process / "fdinfo" / descriptor.name).read_text()
                if f"tty-index:\t{number}\n" in told + "\n":
                    return True
    return False


class Loan:
    """What was lent: the device of the first port. `over` is set when the time is."""

    def __init__(self, path: str, seconds: float, end: "Callable[[Loan, bool], None]") -> None:
        self.path = path
        self.over = asyncio.Event()
        self._end = end
        self._timer = asyncio.get_running_loop().call_later(seconds, self._time_over)

    def give_back(self) -> None:
        """Give the ports back; for the second time nothing happens."""
        self._timer.cancel()
        self._end(self, True)

    def _time_over(self) -> None:
        self.over.set()
        self._end(self, False)


class Lending:
    """One loan at a time, of all ports together: a firmware update through one takes the others away as well.

    `tell` takes to whom, what happened, and why. `held` is for tests.
    """

    _loan: Loan | None

    def __init__(
        self,
        keepers: "Callable[[], Sequence[Keeper]]",
        *,
        tell: Callable[[str, str, str | None], None] = lambda _who, _what, _why: None,
        held: Held = elsewhere,
    ) -> None:
        self._keepers = keepers
        self._tell = tell
        self._held = held
        self._loan = None
        self._who = ""
        self._one_at_a_time = asyncio.Lock()

    @property
    def words(self) -> str:
        """To whom the ports are lent, "" once they were given back and are free."""
        return f"the port is lent to {self._who}" if self._is_out else ""

    async def lend(self, who: str, seconds: float) -> Loan:
        """Let what runs on the ports end, close them, and lend them. Raises `PortError`, which says why not."""
        async with self._one_at_a_time:
            if self._is_out:
                raise PortError(f"{self.words} already")
            keepers = self._keepers()
            if not keepers:
                raise PortError("no port is configured (module.port)")
            async with contextlib.AsyncExitStack() as turns:
                try:
                    for channel in [keeper.channel for keeper in keepers if keeper.channel is not None]:
                        await turns.enter_async_context(channel.turn(URGENT, what="lend"))
                except (LinkLostError, QueueFullError, WaitedTooLongError) as error:
                    raise PortError(str(error)) from error
                path = await keepers[0].locate()
                before = [await self._holders(keeper.path) for keeper in keepers]
                for keeper in keepers:
                    if why := keeper.why_not_lendable:
                        raise PortError(why)
                # Nothing is waited for from here on, so that whoever is cancelled has borrowed nothing.
                self._who = who
                for keeper, those in zip(keepers, before, strict=True):
                    keeper.lend(f"lent to {who} for at most {seconds:g} s", those)
                self._loan = loan = Loan(path, seconds, self._ended)
        self._tell(who, "port lent", f"{path}, for at most {seconds:g} s")
        return loan

    @property
    def _is_out(self) -> bool:
        return any(keeper.module.state is State.LENT for keeper in self._keepers())

    async def _holders(self, path: str) -> Sequence[str]:
        return (await asyncio.get_running_loop().run_in_executor(None, self._held, path))[0] if path else ()

    def _ended(self, loan: Loan, gone: bool) -> None:  # noqa: FBT001 - the borrower is gone, or his time is over
        if loan is not self._loan:
            return
        if gone:
            self._loan = None
        self._tell(self._who, "port given back" if gone else "port wanted back", None if gone else "its time is over")
        for keeper in self._keepers():
            keeper.give_back(gone=gone)
