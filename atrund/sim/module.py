# SPDX-License-Identifier: Apache-2.0
"""The simulated module itself: its parts, what happens to it from outside, and its unsolicited lines.

It knows no pseudo-terminals. A port is given a way to write, and is fed what is typed; spans are counted by the running
event loop, so that a test may run them in virtual time.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

from atrund.sim.at_run import AtRun
from atrund.sim.faults import Faults
from atrund.sim.location import Location
from atrund.sim.mangle import Mangles
from atrund.sim.network import Network
from atrund.sim.packet import Contexts
from atrund.sim.port import HIDDEN, SimPort
from atrund.sim.quirks import Quirks, QuirkValue
from atrund.sim.radio import registration_line
from atrund.sim.state import REGISTERED, Card, Options, PortSettings, Power, Radio, Sim, identity
from atrund.sim.store import MEMORIES, MessageStore
from atrund.sim.uploads import UPLOADS_CAP, Upload

RSSI_UNKNOWN: Final = 99

LEAVE_SECONDS: Final = 0.5
"""From the last answer to the end of the USB device: time enough to read that answer."""

RISING: Final = (1, 2, 3)
"""What #QSS tells one after the other of a SIM that comes back."""


class Cable(Protocol):
    """What a port hangs on, if it can go away and come back, as a USB device does."""

    def unplug(self) -> None:
        """Go away."""

    def plug(self) -> None:
        """Come back, under another device name."""


class SimModule:
    """A module with its SIM, radio, message store and network. `clock` gives the network's time for stamps.

    Raises `KeyError` for a model that is not known, `QuirkError` for a quirk that can't be set so.
    """

    def __init__(self, options: Options | None = None, clock: Callable[[], datetime] | None = None) -> None:
        self.options = options or Options()
        self.clock = clock or (lambda: datetime.now(UTC))
        self.identity = identity(self.options.model, self.options.seed)
        self.quirks = Quirks(self.options.quirks)
        self.shared_settings: PortSettings | None = PortSettings() if self.quirks.on("shared_settings") else None
        self.ports: list[SimPort] = []
        self.card = Card()
        self.radio = Radio()
        self.store = MessageStore(self.options.sm_slots, self.options.me_slots)
        self.contexts = Contexts()
        self.network = Network(self)
        self.faults = Faults()
        self.mangles = Mangles(self.options.seed)
        self.location = Location(self)
        self.at_run = AtRun(self)
        self.uploads: deque[Upload] = deque(maxlen=UPLOADS_CAP)
        self.values: dict[str, tuple[str, ...]] = {}
        self.scripts: dict[str, bytes] = {}
        self.power = Power.ON
        self.hung = False
        self._numbers = 0
        self._boot: asyncio.TimerHandle | None = None
        self.unplugged = False
        self.sms_busy = False
        self._cables: list[Cable] = []
        self._tenant: SimPort | None = None
        self._tenant_out = bytearray()
        self._bus: asyncio.TimerHandle | None = None
        self._sms_timer: asyncio.TimerHandle | None = None
        self._sim_timer: asyncio.TimerHandle | None = None
        self._radio_timer: asyncio.TimerHandle | None = None
        if self.quirks.number("sms_busy"):
            self._keep_sms_busy()
        if self.quirks.on("pin_lock"):
            self._lock_sim()

    @property
    def mute(self) -> bool:
        """Whether nothing comes out."""
        return self.hung or not self.awake

    @property
    def awake(self) -> bool:
        """Whether what is typed reaches the module."""
        return self.power is Power.ON and not self.unplugged

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
        """Put an unsolicited line out on every port, or on the first where such lines come out there alone."""
        for port in self.speaking(lambda _port: True):
            port.urc(text)

    def speaking(self, asked: Callable[[SimPort], bool]) -> list[SimPort]:
        """Return the ports that an unsolicited line goes to, told for each whether it asked for that line."""
        match self.quirks.word("urc_ports"):
            case "first":
                return [port for port in self.ports[:1] if asked(port)]
            case "all":
                return list(self.ports) if any(asked(port) for port in self.ports) else []
        return [port for port in self.ports if asked(port)]

    def add_cable(self, cable: Cable) -> None:
        """Let a cable go and come with the module."""
        self._cables.append(cable)

    def set_quirk(self, name: str, value: object = None) -> QuirkValue:
        """Set a quirk, to its default for None, and return what it is then. Raises `QuirkError`."""
        taken = self.quirks.set(name, value)
        if name == "sms_busy":
            self._keep_sms_busy()
        elif name == "shared_settings":
            first = self.ports[0].settings if self.ports else PortSettings()
            self.shared_settings = first if taken else None
        return taken

    def tenant(self, line: str) -> str | None:
        """Run a line of another program, on a port of its own; return what it was answered so far, None while busy."""
        if self._tenant is None:
            self._tenant = SimPort(self, HIDDEN, self._tenant_out.extend)
            self._tenant.settings.echo = False
        if self._tenant.busy:
            return None
        self._tenant_out.clear()
        self._tenant.feed(line.encode("latin-1", "replace") + b"\r")
        return self._tenant_out.decode("latin-1")

    def close(self) -> None:
        """Close all ports and stop what still runs."""
        self._stop_timers()
        self._stop_radio_timer()
        self.network.close()
        self.location.close()
        self.at_run.close()
        if self._tenant is not None:
            self._tenant.close()
        for port in list(self.ports):
            port.close()

    # What happens to it.

    def set_registration(self, state: int) -> None:
        """Move to another registration state (+CREG, 3GPP TS 27.007 7.2), and say so where that was asked for."""
        self._stop_radio_timer()
        if state == self.radio.registration:
            return
        self.radio.registration = state
        self.radio.attached = state in REGISTERED
        if not self.radio.attached:
            self.contexts.drop_all()
        for name in ("+CREG", "+CGREG", "+CEREG"):
            self._tell_registration(name)
        self.network.release()

    def _tell_registration(self, name: str) -> None:
        lines = {port: registration_line(port, name) for port in self.ports}
        asked = next((line for line in lines.values() if line is not None), "")
        for port in self.speaking(lambda port: lines[port] is not None):
            port.urc(lines[port] or asked)

    def lose_registration(self, state: int, seconds: float) -> None:
        """Move to another registration state for that many seconds, then back."""
        before = self.radio.registration
        self.set_registration(state)
        self._radio_timer = asyncio.get_running_loop().call_later(seconds, self.set_registration, before)

    def set_signal(self, rssi: int, ber: int) -> None:
        """Set what +CSQ tells; without a known signal there is 99."""
        self.radio.rssi = rssi
        self.radio.ber = ber

    def set_sim(self, state: Sim) -> None:
        """Put another SIM state in; #QSS tells it to those who asked."""
        if state is Sim.READY and self.card.state is Sim.MISSING and self.quirks.on("pin_lock"):
            state = Sim.PIN
        if state is self.card.state:
            return
        self._stop_sim_timer()
        before, self.card.state = self.card.qss, state
        if state is Sim.READY:
            self.card.tries = 3
            if self.quirks.number("qss_step"):
                self._rise(min(before + 1, RISING[-1]))
                return
        self._tell_sim()
        self.set_registration(1 if state is Sim.READY else 0)

    def _tell_sim(self, *, rising: bool = False) -> None:
        """Tell the SIM's status; on the way up mode 1 of #QSS has nothing new to say after the first step."""
        status = self.card.qss
        silent = {0, 1} if rising and status > 1 else {0}
        for port in self.speaking(lambda port: port.settings.number("#QSS") not in silent):
            port.urc(f"#QSS: {min(status, 1) if port.settings.number('#QSS') == 1 else status}")

    def _rise(self, status: int) -> None:
        """Tell the next status of a SIM that comes back; at the last one it can be used."""
        self._sim_timer = None
        if status == RISING[-1]:
            self.card.rising = None
            self._tell_sim(rising=True)
            self.set_registration(1)
            return
        self.card.rising = status
        self._tell_sim(rising=True)
        step = self.quirks.number("qss_step")
        self._sim_timer = asyncio.get_running_loop().call_later(step, self._rise, status + 1)

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
        """Restart: silent for `boot_delay` seconds, then with the settings of power-up.

        Under `reenumerate` the ports go away meanwhile. One that was unplugged or switched off comes back.
        """
        self.shut_down()
        self.hung = False
        self.power = Power.BOOTING
        loop = asyncio.get_running_loop()
        self._boot = loop.call_later(self.options.boot_delay, self._booted)
        if self.unplugged:
            self._come_back()
        elif self.quirks.on("reenumerate"):
            self._stop_bus()
            self._bus = loop.call_later(LEAVE_SECONDS, self._go_away, self.quirks.number("gone_seconds"))

    def shut_down(self) -> None:
        """Go off, until a reboot."""
        if self.card.rising is not None:  # it will be settled after the next boot
            self.radio.registration = 1
        self._stop_timers()
        self.sms_busy = False
        self.power = Power.OFF
        self.contexts.drop_all()
        self.network.forget_pending()
        self.at_run.forget()
        if self._tenant is not None:
            self._tenant.restart()
            self._tenant.settings.echo = False
        for port in self.ports:
            port.restart()
        if self.quirks.on("reenumerate") and not self.unplugged:
            self._bus = asyncio.get_running_loop().call_later(LEAVE_SECONDS, self._go_away)

    def unplug(self) -> None:
        """Pull the module out of the bus: its ports and its power are gone at once, until it is plugged in."""
        self.shut_down()
        self._stop_bus()
        self._go_away()

    def plug(self) -> None:
        """Put the module back: its ports come back, and it boots. Nothing happens to one that is there."""
        if self.unplugged:
            self.reboot()

    def _go_away(self, seconds: float | None = None) -> None:
        self._bus = None
        self.unplugged = True
        for cable in self._cables:
            cable.unplug()
        if seconds is not None:
            self._bus = asyncio.get_running_loop().call_later(seconds, self._come_back)

    def _come_back(self) -> None:
        self._stop_bus()
        self.unplugged = False
        for cable in self._cables:
            cable.plug()

    def _keep_sms_busy(self) -> None:
        """Let the SIM's messages be out of reach for a while."""
        if self._sms_timer is not None:
            self._sms_timer.cancel()
            self._sms_timer = None
        seconds = self.quirks.number("sms_busy")
        self.sms_busy = bool(seconds)
        if seconds:
            self._sms_timer = asyncio.get_running_loop().call_later(seconds, self._sms_ready)
        else:
            self.network.release()

    def _sms_ready(self) -> None:
        self._sms_timer = None
        self.sms_busy = False
        self.network.release()

    def _lock_sim(self) -> None:
        if self.card.state is Sim.READY:
            self.card.state = Sim.PIN
            self.radio.registration = 0
            self.radio.attached = False

    def _stop_timers(self) -> None:
        for timer in (self._boot, self._sms_timer):
            if timer is not None:
                timer.cancel()
        self._boot = self._sms_timer = None
        self._stop_bus()
        self._stop_sim_timer()

    def _stop_bus(self) -> None:
        if self._bus is not None:
            self._bus.cancel()
            self._bus = None

    def _stop_sim_timer(self) -> None:
        self.card.rising = None
        if self._sim_timer is not None:
            self._sim_timer.cancel()
            self._sim_timer = None

    def _stop_radio_timer(self) -> None:
        if self._radio_timer is not None:
            self._radio_timer.cancel()
            self._radio_timer = None

    def _booted(self) -> None:
        self._boot = None
        self.power = Power.ON
        if self.quirks.on("pin_lock"):
            self._lock_sim()
        if self.quirks.number("sms_busy"):
            self._keep_sms_busy()
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
            "unplugged": self.unplugged,
            "quirks": self.quirks.values(),
        }


KEPT: Final = ("#SMSATRUN", "#TCPATRUN", "#ENAEVMONI", "#SGACTCFG", "+IPR", "+CSCA", "#ESCRIPT")
"""How the names of settings begin that outlive a restart."""
