# SPDX-License-Identifier: Apache-2.0
"""One box with one module and one disk, on which the daemon is started, stopped and killed, at any step if need be."""

import asyncio
from collections.abc import Callable

from atrund.config.values import Config
from atrund.daemon import Daemon, build
from atrund.ledger import Ledger
from atrund.ledger.writer import Job
from atrund.service import Service
from atrund.sim.module import SimModule
from atrund.sim.state import Options
from tests.support.marked import RecordingWire, until
from tests.support.virtual import AtOnce, House, VirtualClock, config, crash

Asked = Callable[[], bool]


class Disk(AtOnce):
    """Outlives the daemon. `dies` is asked before each job whether the daemon is dead by now."""

    def __init__(self) -> None:
        super().__init__()
        self.dies: Asked = lambda: False

    def submit(self, job: Job) -> None:
        if self.dies():
            self.broken = "killed"
        super().submit(job)

    def refuse(self, why: str) -> None:
        """Be broken from the next job on, also for a daemon that is to be started."""

        def dies() -> bool:
            self.broken = why
            return False

        self.dies = dies

    def close(self, timeout: float) -> None:
        del timeout


class Lives:
    """The box. A step is a job for the disk, or something written to the module."""

    def __init__(self, given: Config | None = None, options: Options | None = None) -> None:
        self.given = given or config()
        self.clock = VirtualClock()
        self.module = SimModule(options or Options(), self.clock.now)
        self.wire = RecordingWire(self.module)
        self.disk = Disk()
        self.steps = 0
        self._left: int | None = None
        self.killed = False
        self._daemon: Daemon | None = None
        self.disk.dies = self._dies
        self.wire.on_write = lambda data: b"" if self._dies() else data

    async def start(self, given: Config | None = None, *, wait: bool = True) -> House:
        """Start the daemon; with `wait`, come back once the SMS door is open."""
        self.killed, self._left, self.disk.broken = False, None, ""
        self._daemon = daemon = build(
            given or self.given,
            ledger=Ledger(self.disk),
            clock=self.clock,
            open_port=self.wire.open,
            notify=Service({}),
        )
        await daemon.start()
        if wait and (door := daemon.sms).state != "off":
            await until(lambda: door.state == "open")
        elif wait:
            await until(lambda: daemon.module.state.usable)
        return House(daemon, self.wire, self.module, self.disk, self.clock)

    def kill_at(self, step: int) -> None:
        """Kill the daemon before that many further steps were done."""
        self._left = step

    async def kill(self) -> None:
        """Kill it now."""
        assert self._daemon is not None
        await crash(self._daemon)
        if self._daemon.tcp is not None:  # the kernel closes what a process leaves open
            self._daemon.tcp.shut()
            await asyncio.sleep(0.01)
        if self._daemon.services.client is not None:
            self._daemon.services.client.switch_off()
            await asyncio.sleep(0.01)
        self._daemon, self._left = None, None
        self.disk.broken = ""

    async def end(self) -> None:
        """Stop it in good order, and everything else."""
        if self._daemon is not None:
            await self._daemon.stop()
            assert not self._daemon.failed.done(), "a room failed"
        self.module.close()
        self.disk.store.close()
        await asyncio.sleep(0)

    def _dies(self) -> bool:
        self.steps += 1
        if self._left is not None:
            self.killed = self.killed or self._left <= 0
            self._left -= 1
        return self.killed


class Held:
    """Keeps back the jobs of a disk, from the `first` one on that a promise rests on."""

    def __init__(self, disk: AtOnce, first: int = 1) -> None:
        self.kept: list[Job] = []
        self._disk = disk
        self._plain = disk.submit
        self._left = first
        disk.submit = self._submit  # type: ignore[method-assign]

    def release(self) -> None:
        """Let all go on."""
        self._disk.submit = self._plain  # type: ignore[method-assign]
        for job in self.kept:
            self._plain(job)

    def _submit(self, job: Job) -> None:
        self._left -= job.synced
        (self._plain if self._left > 0 else self.kept.append)(job)
