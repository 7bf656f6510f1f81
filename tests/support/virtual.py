# SPDX-License-Identifier: Apache-2.0
"""The whole daemon in one process under virtual time: a ledger that writes at once, and a port to the simulated module.

To be used in tests marked `looptime`. Nothing here uses a thread, a socket or the wall clock.
"""

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from atrund.atrun.secrets import Secret
from atrund.config.values import Config, Local, Module, Sms
from atrund.daemon import Daemon, build
from atrund.ledger import Ledger, StorageError
from atrund.ledger.schema import open_file
from atrund.ledger.writer import Job, Store
from atrund.module.port import Port, PortError, Receiver
from atrund.service import Service
from atrund.sim.module import SimModule
from atrund.sim.network import Outcome
from atrund.sim.port import SimPort
from atrund.sim.state import Options
from atrund.sms.pdu import Address, Dcs, Deliver, Timestamp, UserData

MEMORY = Path(":memory:")
BEGIN = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
FRIEND = "+393468686711"
STRANGER = "+393331234567"
PASSWORD = "1234567890123456"
"""The application note's own."""
PORT = "/dev/virtual"


class VirtualClock:
    """Wall time that goes with the loop's."""

    def __init__(self, *, known: bool = True) -> None:
        self.synchronised = known
        self.ahead = timedelta()

    def now(self) -> datetime:
        return BEGIN + self.ahead + timedelta(seconds=asyncio.get_running_loop().time())

    def known(self) -> bool:
        return self.synchronised


class AtOnce:
    """Where a ledger's jobs are applied as they are handed over. `broken`: a disk's error; `hung`: it never answers."""

    def __init__(self, path: Path = MEMORY) -> None:
        self.store = Store(open_file(path))
        weakref.finalize(self, self.store.close)  # for a daemon that is killed, and closes nothing
        self.broken = ""
        self.hung = False
        self.refused = 0
        self.after: Callable[[], None] = lambda: None
        """Called behind each job."""
        self.jobs: list[Job] = []

    @property
    def missed(self) -> int:
        return self.refused + self.store.missed

    @property
    def is_alive(self) -> bool:
        return True

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        if self.hung:
            return
        if not self.broken:
            self.store.apply([job])
            self.after()
        elif job.future is not None:
            job.future.set_exception(StorageError(self.broken))
        else:
            self.refused += 1

    def close(self, timeout: float) -> None:
        del timeout
        self.store.close()

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        return self.store.connection.execute(sql, values).fetchall()


class Wire:
    """What connects the daemon to a simulated module. Its attributes are the faults, to be switched at any time."""

    def __init__(self, module: SimModule) -> None:
        self.module = module
        self.absent = ""
        """Why the port can't be opened, if it can't."""
        self.delay = 0.0
        """Seconds that the module's output is on its way."""
        self.garble: Callable[[bytes], bytes] = lambda data: data
        """What becomes of the module's output."""
        self.piece = 1 << 16
        """Octets of output that arrive at a time."""
        self.opened: list[float] = []
        self.written: list[bytes] = []
        self.on_dtr: Callable[[], object] = lambda: None
        """Told when DTR falls for a moment."""
        self.end: WireEnd | None = None

    async def open(self, path: str, baudrate: int, receiver: Receiver) -> Port:
        assert (path, baudrate) == (PORT, 115200)
        self.opened.append(asyncio.get_running_loop().time())
        if self.absent:
            raise PortError(f"{path}: {self.absent}")
        self.end = WireEnd(self, receiver)
        return self.end

    def lose(self, why: str = "unplugged") -> None:
        """Pull the plug."""
        assert self.end is not None
        self.end.lose(why)

    @property
    def seen(self) -> list[str]:
        """The command lines that reached the module through the present opening."""
        return [] if self.end is None else list(self.end.sim.seen)


class WireEnd:
    """One opening."""

    sim: SimPort

    def __init__(self, wire: Wire, receiver: Receiver) -> None:
        self.sim = wire.module.add_port(self.say)
        self._wire = wire
        self.unsent = 0
        self._receiver: Receiver | None = receiver
        self._last = 0.0

    def write(self, data: bytes) -> None:
        if self._receiver is not None:
            self._wire.written.append(data)
            asyncio.get_running_loop().call_soon(self.sim.feed, data)

    async def drop_dtr(self) -> None:
        self._wire.on_dtr()

    def close(self) -> None:
        self._receiver = None
        self.sim.close()

    def lose(self, why: str) -> None:
        receiver = self._receiver
        self.close()
        if receiver is not None:
            receiver.lost(why)

    def inject(self, data: bytes) -> None:
        """Let something arrive that the module did not say."""
        if self._receiver is not None:
            self._receiver.received(data)

    def say(self, data: bytes) -> None:
        """Let the module say something, behind what it said before."""
        data = self._wire.garble(data)
        loop = asyncio.get_running_loop()
        for begin in range(0, len(data), self._wire.piece):
            # A tick apart, for timers of one moment have no order among themselves.
            self._last = max(self._last + 1e-6, loop.time() + self._wire.delay)
            loop.call_at(self._last, self.inject, data[begin : begin + self._wire.piece])


@dataclass
class House:
    """A running daemon and all around it."""

    daemon: Daemon
    wire: Wire
    module: SimModule
    disk: AtOnce
    clock: VirtualClock

    def sms(self, text: str, sender: str = FRIEND, *, dcs: int = 0, age: float = 0.0) -> Outcome:
        """Bring a message to the module."""
        return self.module.network.deliver(deliver(text, sender, dcs=dcs, at=self.clock.now(), age=age).encode())

    @property
    def sent(self) -> list[tuple[str, str]]:
        """What the module sent: to whom, and which text."""
        return [(message.to, message.text) for message in self.module.network.sent]

    @property
    def outcomes(self) -> list[tuple[str, str, str | None]]:
        """What the audit holds of requests, in order: line, how it ended, why."""
        rows = self.disk.rows("SELECT line, event, reason FROM audit WHERE line <> '' ORDER BY n")
        return [(line, event, reason) for line, event, reason in rows]

    @property
    def told(self) -> list[tuple[str, str | None]]:
        """What the audit holds of anything else: what, and why."""
        return [(event, reason) for event, reason in self.disk.rows("SELECT event, reason FROM audit WHERE line = ''")]


def deliver(
    text: str, sender: str = FRIEND, *, dcs: int = 0, at: datetime = BEGIN, age: float = 0.0, data: bytes | None = None
) -> Deliver:
    """Return a message as it comes in; `data` is 8-bit user data instead of a text."""
    digits = sender.removeprefix("+")
    address = Address.parse(sender) if digits.isdecimal() else Address.alphanumeric(sender)
    scheme = Dcs(dcs)
    user_data = UserData.from_text(text, scheme) if data is None else UserData(scheme.alphabet, data)
    return Deliver(
        address, Timestamp.of(at - timedelta(seconds=age)), user_data, scheme, smsc=Address.parse("+393492000009")
    )


def config(**sections: object) -> Config:
    """Return a configuration with the SMS door open, no MQTT and no sockets; `sections` replace whole ones."""
    given: Mapping[str, Any] = {
        "module": Module(port=PORT, telemetry=0.0),
        "sms": Sms(enabled=True, numbers=(FRIEND,), passwords=(Secret(PASSWORD),)),
        "local": Local(socket=None),
        **sections,
    }
    return replace(Config(node="node"), **given)


@contextlib.asynccontextmanager
async def running(
    given: Config | None = None,
    *,
    module: SimModule | None = None,
    wire: Wire | None = None,
    disk: AtOnce | None = None,
    clock: VirtualClock | None = None,
    until: float | None = 30.0,
) -> AsyncIterator[House]:
    """Run the daemon. `until`: seconds of virtual time that the SMS store may take to be read first; None: no wait."""
    clock = clock or VirtualClock()
    module = module or SimModule(Options(), clock.now)
    wire = wire or Wire(module)
    disk = disk or AtOnce()
    daemon = build(given or config(), ledger=Ledger(disk), clock=clock, open_port=wire.open, notify=Service({}))
    await daemon.start()
    try:
        if until is not None:
            async with asyncio.timeout(until):
                while daemon.sms.state not in {"open", "off"}:  # noqa: ASYNC110 - a state is no event
                    await asyncio.sleep(0.1)
        yield House(daemon, wire, module, disk, clock)
    finally:
        await daemon.stop()
        module.close()
    assert not daemon.failed.done(), "a room failed"


async def crash(daemon: Daemon) -> None:
    """Stop everything in the moment, with nothing recorded any more, as kill -9 does."""
    disk = daemon._ledger._writer
    assert isinstance(disk, AtOnce)
    disk.broken = "killed"
    this = asyncio.current_task()
    tasks = [task for task in asyncio.all_tasks() if task is not this]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    daemon._ledger._writer = None  # for what it owes it would write to the disk of its next life
