# SPDX-License-Identifier: Apache-2.0
"""Keepers on a simulated module's ports under virtual time, without the daemon around them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from typing import Any

from atrund.module.channel import Channel
from atrund.module.keeper import Keeper
from atrund.module.ladder import Ladder, LadderRules
from atrund.module.lending import Lending
from atrund.module.lifecycle import State
from atrund.module.port import Port, PortError, Receiver
from atrund.module.tending import Module, PinKeeping
from atrund.module.turn import Answer
from atrund.module.urc import Fanout
from atrund.sim.module import SimModule
from atrund.sim.quirks import QuirkValue
from atrund.sim.state import Options
from tests.support.virtual import PORT, Wire

BAUDRATE = 115200
FORBIDDEN = ("+CFUN=", "+COPS=", "+CGATT", "+CGDCONT", "#SGACT", "#BND", "+CPIN=", "#USBCFG", "#REBOOT", "#SHDN")
"""What set-up never sends on a shared module (MOD-8), and what would restart it."""
LOOK = ["AT+CPIN?", "AT+CREG?", "AT+CGREG?", "AT+CEREG?"]
SERVICES = ["AT#SMSATRUN?", "AT#TCPATRUNL?", "AT#TCPATRUND?", "AT#ENAEVMONI?"]
SET_UP = [
    "ATE0V1Q0",
    "AT+CMEE?",
    *SERVICES,
    "ATE0V1Q0",
    "AT+CMEE=1",
    "AT+CMGF=0",
    "AT+CSMS=0",
    "AT+CNMI=2,1,0,0,0",
    "AT+CGMM",
    "AT+CGMR",
    "AT+CPMS=?",
    'AT+CPMS="SM","SM","SM"',
    *LOOK,
]


def no_threads() -> None:
    """Let the running loop do at once what else a thread does: virtual time would not wait for it."""
    loop = asyncio.get_running_loop()

    def at_once(_executor: Executor | None, work: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":  # noqa: ANN401
        future = loop.create_future()
        try:
            future.set_result(work(*args))
        except Exception as error:  # noqa: BLE001 - it is the caller's
            future.set_exception(error)
        return future

    loop.run_in_executor = at_once  # type: ignore[method-assign, assignment]


class Line:
    """One AT port of the module: it has a name as long as it is there, and may come back under another."""

    def __init__(self, module: SimModule, name: str) -> None:
        self.wire = Wire(module)
        self.name = name
        self.tried: list[float] = []
        self.sims: list[Any] = []
        module.add_cable(self)

    def unplug(self) -> None:
        if self.wire.end is not None:
            self.wire.lose()
        self.wire.absent = "no such device"

    def plug(self) -> None:
        self.wire.absent = ""

    async def locate(self) -> str:
        self.tried.append(asyncio.get_running_loop().time())
        if self.wire.absent:
            raise PortError(f"{self.name}: {self.wire.absent}")
        return self.name

    async def open(self, path: str, baudrate: int, receiver: Receiver) -> Port:
        assert path == self.name, "a port is opened under the name that it has now"
        port = await self.wire.open(PORT, baudrate, receiver)
        assert self.wire.end is not None
        self.sims.append(self.wire.end.sim)
        return port

    @property
    def seen(self) -> list[str]:
        """The command lines that reached the module here, over all openings; of each the last thousand."""
        return [line for sim in self.sims for line in sim.seen]

    @property
    def wrote(self) -> list[str]:
        """All that was ever written here."""
        return [data.decode("latin-1").strip("\r") for data in self.wire.written]


class Bench:
    """Keepers, as many as `ports`."""

    def __init__(
        self,
        *,
        ports: int = 1,
        rules: LadderRules | None = None,
        network_up: bool = False,
        history: tuple[float, ...] = (),
        pin: PinKeeping | None = None,
        model: str = "HE910-D",
        options: dict[str, Any] | None = None,
        **quirks: QuirkValue,
    ) -> None:
        self.module = SimModule(Options(model=model, quirks=tuple(quirks.items()), **(options or {})))
        self.lines = [Line(self.module, f"/dev/ttyUSB{number + 2}") for number in range(ports)]
        self.network_up = network_up
        self.kept: list[tuple[float, ...]] = []
        self.told: list[list[tuple[float, Module]]] = [[] for _ in range(ports)]
        self.codes: list[tuple[str, ...]] = []
        self.fanout = Fanout()
        self.ladder = Ladder(
            rules or LadderRules(shared=False),
            now=lambda: asyncio.get_running_loop().time(),
            network_up=lambda: self.network_up,
            history=history,
            keep=self.kept.append,
        )
        self.keepers = [
            Keeper(
                locate=line.locate,
                baudrate=BAUDRATE,
                first=number == 0,
                open_port=line.open,
                make_channel=lambda lost, sent, in_step: Channel(
                    unsolicited=self._code, on_lost=lost, on_sent=sent, on_in_step=in_step
                ),
                ladder=self.ladder,
                fanout=self.fanout,
                on_change=self._changed(number),
                pin=pin if number == 0 else None,
                held=self._holders,
            )
            for number, line in enumerate(self.lines)
        ]
        self.lending = Lending(lambda: self.keepers, tell=self._lent, held=self._holders)
        self.loans: list[tuple[str, str]] = []
        """What was told of loans: to whom, and what."""
        self.holders: dict[str, list[str]] = {}
        """Who else has a port open, by its name."""
        self.sees_all = True
        self.tasks: list[asyncio.Task[None]] = []
        self._before = [State.OFF] * ports
        self._change = asyncio.Event()

    def start(self) -> None:
        self.tasks = [asyncio.create_task(keeper.run(), name="keeper under test") for keeper in self.keepers]

    @property
    def keeper(self) -> Keeper:
        return self.keepers[0]

    @property
    def line(self) -> Line:
        return self.lines[0]

    @property
    def seen(self) -> list[str]:
        return self.line.seen

    @property
    def state(self) -> State:
        return self.keeper.module.state

    @property
    def states(self) -> list[State]:
        return list(self.states_of(0))

    def states_of(self, number: int) -> Iterator[State]:
        """The states told, without repetitions."""
        last = self._before[number]
        for _, module in self.told[number]:
            if module.state is not last:
                last = module.state
                yield last

    def since(self) -> None:
        """Forget what was told and seen until now."""
        for told in self.told:
            told.clear()
        self._before = [keeper.module.state for keeper in self.keepers]
        for line in self.lines:
            for sim in line.sims:
                sim.seen.clear()

    async def until(self, state: State = State.READY, within: float = 60.0, number: int = 0) -> Keeper:
        """Wait for a state."""
        keeper = self.keepers[number]
        async with asyncio.timeout(within):
            while keeper.module.state is not state:
                self._change.clear()
                await self._change.wait()
        return keeper

    async def ask(self, line: str, timeout: float = 5.0, number: int = 0) -> Answer:
        """Run a door's command."""
        channel = self.keepers[number].channel
        assert channel is not None
        async with channel.turn("tcp") as turn:
            return await turn.ask(line, timeout)

    def check(self) -> None:
        """What holds in every test."""
        for task in self.tasks:
            assert not task.done(), "a keeper ended"

    def _holders(self, path: str) -> tuple[list[str], bool]:
        return list(self.holders.get(path, ())), self.sees_all

    def _lent(self, who: str, what: str, _why: str | None) -> None:
        self.loans.append((who, what))

    def _code(self, lines: tuple[str, ...]) -> None:
        self.codes.append(lines)
        self.fanout.publish(lines)

    def _changed(self, number: int) -> Callable[[Module], None]:
        def changed(module: Module) -> None:
            self.told[number].append((asyncio.get_running_loop().time(), module))
            self._change.set()

        return changed


@contextlib.asynccontextmanager
async def keeping(bench: Bench, *, until: State | None = State.READY) -> AsyncIterator[Bench]:
    """Run the keepers for a while, at first until that state."""
    no_threads()
    bench.start()
    try:
        if until is not None:
            for number in range(len(bench.keepers)):
                await bench.until(until, number=number)
        yield bench
        bench.check()
    finally:
        for task in bench.tasks:
            task.cancel()
        await asyncio.gather(*bench.tasks, return_exceptions=True)
        await asyncio.sleep(0.1)
        bench.module.close()
