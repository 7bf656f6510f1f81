# SPDX-License-Identifier: Apache-2.0
"""The simulated module itself: its parts, what happens to it from outside, and its unsolicited lines.

It knows no pseudo-terminals. A port is given a way to write, and is fed what is typed; spans are counted by the running
event loop, so that a test may run them in virtual time.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from atrund.sim.faults import Faults
from atrund.sim.network import Network
from atrund.sim.packet import Contexts
from atrund.sim.port import SimPort
from atrund.sim.radio import registration_line
from atrund.sim.state import REGISTERED, Card, Options, Power, Radio, Sim, identity
from atrund.sim.store import MEMORIES, MessageStore

RSSI_UNKNOWN: Final = 99


class SimModule:
    """A module with its SIM, radio, message store and network. `clock` gives the network's time for stamps.

    Raises `KeyError` for a model that is not known.
    """

    def __init__(self, options: Options | None = None, clock: Callable[[], datetime] | None = None) -> None:
        self.options = options or Options()
        self.clock = clock or (lambda: datetime.now(UTC))
        self.identity = identity(self.options.model, self.options.seed)
        self.ports: list[SimPort] = []
        self.card = Card()
        self.radio = Radio()
        self.store = MessageStore(self.options.sm_slots, self.options.me_slots)
        self.contexts = Contexts()
        self.network = Network(self)
        self.faults = Faults()
        self.values: dict[str, tuple[str, ...]] = {}
        self.scripts: dict[str, bytes] = {}
        self.power = Power.ON
        self.hung = False
        self._numbers = 0
        self._boot: asyncio.TimerHandle | None = None

    @property
    def mute(self) -> bool:
        """Whether nothing comes out."""
        return self.hung or self.power is not Power.ON

    def add_port(self, write: Callable[[bytes], None]) -> SimPort:
        """Return a new AT interface that puts its output out by `write`, which must not raise."""
        port = SimPort(self, self._numbers, write)
        self._numbers += 1
        self.ports.append(port)
        return port

    def forget_port(self, port: SimPort) -> None:
        """Let a closed port go."""
        if port in self.ports:
            self.ports.remove(port)

    def urc(self, text: str) -> None:
        """Put an unsolicited line out on every port."""
        for port in self.ports:
            port.urc(text)

    def close(self) -> None:
        """Close all ports and stop what still runs."""
        if self._boot is not None:
            self._boot.cancel()
            self._boot = None
        self.network.close()
        for port in list(self.ports):
            port.close()

    # What happens to it.

    def set_registration(self, state: int) -> None:
        """Move to another registration state (+CREG, 3GPP TS 27.007 7.2), and say so where that was asked for."""
        if state == self.radio.registration:
            return
        self.radio.registration = state
        self.radio.attached = state in REGISTERED
        if not self.radio.attached:
            self.contexts.drop_all()
        for port in self.ports:
            for name in ("+CREG", "+CGREG", "+CEREG"):
                line = registration_line(port, name)
                if line is not None:
                    port.urc(line)
        self.network.release()

    def set_signal(self, rssi: int, ber: int) -> None:
        """Set what +CSQ tells; without a known signal there is 99."""
        self.radio.rssi = rssi
        self.radio.ber = ber

    def set_sim(self, state: Sim) -> None:
        """Put another SIM state in; #QSS tells it to those who asked."""
        if state is self.card.state:
            return
        self.card.state = state
        if state is Sim.READY:
            self.card.tries = 3
        for port in self.ports:
            mode = port.settings.number("#QSS")
            if mode:
                port.urc(f"#QSS: {state.qss if mode == 2 else min(state.qss, 1)}")
        self.set_registration(1 if state is Sim.READY else 0)

    def hang(self) -> None:
        """Answer nothing any more; what ran is lost."""
        self.hung = True
        for port in self.ports:
            port.interrupt()

    def resume(self) -> None:
        """Answer again."""
        self.hung = False
        self.network.release()

    def reboot(self) -> None:
        """Restart: silent for `boot_delay` seconds, then with the settings of power-up."""
        self.shut_down()
        self.hung = False
        self.power = Power.BOOTING
        self._boot = asyncio.get_running_loop().call_later(self.options.boot_delay, self._booted)

    def shut_down(self) -> None:
        """Go off, until a reboot."""
        if self._boot is not None:
            self._boot.cancel()
            self._boot = None
        self.power = Power.OFF
        self.contexts.drop_all()
        self.network.forget_pending()
        for port in self.ports:
            port.restart()

    def _booted(self) -> None:
        self._boot = None
        self.power = Power.ON
        self.radio.functionality = 1
        self.radio.attached = self.radio.in_service
        self.values = {name: value for name, value in self.values.items() if name.startswith(KEPT)}
        self.store.memory3 = "SM"
        self.network.release()

    def summary(self) -> dict[str, object]:
        """Return where everything stands, for people and tests."""
        return {
            "model": self.identity.name,
            "imei": self.identity.imei,
            "power": self.power.value,
            "hung": self.hung,
            "sim": self.card.state.value,
            "registration": self.radio.registration,
            "operator": self.radio.operator.name,
            "rssi": self.radio.rssi,
            "ber": self.radio.ber,
            "messages": {name: self.store.used(name) for name in MEMORIES},
            "sent": len(self.network.sent),
            "held": self.network.held,
            "swallowed": self.network.swallowed,
            "ports": len(self.ports),
        }


KEPT: Final = ("#SMSATRUN", "#TCPATRUN", "#ENAEVMONI", "#SGACTCFG", "+IPR", "+CSCA", "#ESCRIPT")
"""How the names of settings begin that outlive a restart."""
