# SPDX-License-Identifier: Apache-2.0
"""The network between simulated modules: a number plan, a service centre, and a way that may be bad.

What one module submits another one gets delivered. The service centre stamps it, keeps it for a module that can't take
it until it expires, and reports to its sender if that was asked for. All chance comes from one seed, and spans are
counted by the running event loop: in virtual time the same seed is the same weather.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Final

from atrund.sim.network import SERVICE_CENTRE
from atrund.sms.pdu import Address, Deliver, PduError, Submit, Timestamp, TypeOfNumber, ValidityPeriod
from atrund.sms.report import StatusReport

if TYPE_CHECKING:  # for the annotations alone
    from atrund.sim.network import Network

TRANSIT: Final = 0.05
"""Seconds that every message takes: the answer of +CMGS is out before anything comes of it."""

TICK: Final = 1e-6
"""Seconds between two messages of one way, for timers of one moment have no order among themselves."""

HELD_BACK: Final = 30.0
"""Seconds that a message is held back which others are to overtake."""

AGAIN: Final = 15.0
"""Seconds until one comes again whose receipt the service centre did not hear of."""

DEFAULT_VALIDITY: Final = 3 * 86400.0
"""Seconds that a message is kept whose sender gave no validity period; service centres keep one for days."""

COUNTRY: Final = "39"
"""The country code of numbers that are dialled without one."""

DELIVERED, NOT_OBTAINABLE, EXPIRED, CONGESTION = 0x00, 0x43, 0x46, 0x60
"""What a status report says (TP-ST, 3GPP TS 23.040 9.2.3.15)."""


@dataclass(slots=True)
class Weather:
    """How bad the way is: `loss`, `repeat` and `reorder` are shares of messages, `delay` is at most so many seconds.

    Without `reorder` messages to a module stay in order, however late they are.
    """

    loss: float = 0.0
    repeat: float = 0.0
    reorder: float = 0.0
    delay: float = 0.0

    def record(self) -> dict[str, object]:
        """Return it as the control socket shows it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class ServiceCentre:
    """Carries messages between the modules that joined. `clock` gives its time for stamps."""

    def __init__(self, clock: Callable[[], datetime], *, seed: int = 0, weather: Weather | None = None) -> None:
        self.weather = weather or Weather()
        self._clock = clock
        self._chance = random.Random(seed)  # noqa: S311 - the weather of a simulated network, no secret
        self._members: dict[str, Network] = {}
        self._numbers: dict[Network, str] = {}
        self._latest: dict[Network, float] = {}
        self._timers: set[asyncio.TimerHandle] = set()
        self.lost = 0
        self.repeated = 0

    def join(self, network: "Network", number: str) -> None:
        """Give a module a number, written with `+`. Raises `PduError` for one that is none or is taken."""
        if Address.parse(number).ton is not TypeOfNumber.INTERNATIONAL:
            raise PduError("number", f"{number} has no country code; +{COUNTRY}{number} would")
        if number in self._members:
            raise PduError("number", f"{number} is another module's")
        self._members[number] = network
        self._numbers[network] = number
        network.centre = self

    def number_of(self, network: "Network") -> str:
        """Return the number of a module that joined."""
        return self._numbers[network]

    def take(self, sender: "Network", message: Submit, reference: int) -> None:
        """Take a message of a module, which gave it that reference."""
        taken = Timestamp.of(self._clock())
        recipient = self._members.get(dialled(message.destination))

        def tell(status: int) -> None:
            if message.status_report:
                self._report(sender, message, reference, taken, status)

        if recipient is None:
            tell(NOT_OBTAINABLE)
            return
        until = asyncio.get_running_loop().time() + self._span(message.validity)
        deliver = Deliver(
            Address.parse(self._numbers[sender]),
            taken,
            message.user_data,
            message.dcs,
            message.pid,
            SERVICE_CENTRE,
            status_report=message.status_report,
            reply_path=message.reply_path,
        )
        self._carry(recipient, deliver.encode(), until, tell)

    def close(self) -> None:
        """Lose what is on its way."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _report(self, sender: "Network", message: Submit, reference: int, taken: Timestamp, status: int) -> None:
        now = Timestamp.of(self._clock())
        report = StatusReport(reference, message.destination, taken, now, status, SERVICE_CENTRE)
        until = asyncio.get_running_loop().time() + DEFAULT_VALIDITY
        self._carry(sender, report.encode(), until, _nothing)

    def _carry(self, to: "Network", pdu: bytes, until: float, tell: Callable[[int], None]) -> None:
        """Send it on its way. Each message draws as often, so that one fault switched on leaves the others alone."""
        weather = self.weather
        lost, repeated, overtaken, delay = (self._chance.random() for _ in range(4))
        if lost < weather.loss:
            self.lost += 1
            return
        arrival = asyncio.get_running_loop().time() + TRANSIT + delay * weather.delay
        if overtaken < weather.reorder:
            arrival += HELD_BACK
        else:
            arrival = self._latest[to] = max(arrival, self._latest.get(to, 0.0) + TICK)
        self._at(arrival, lambda: self._arrive(to, pdu, until, tell))
        if repeated < weather.repeat:
            self.repeated += 1
            self._at(arrival + AGAIN, lambda: self._arrive(to, pdu, until, _nothing))

    def _arrive(self, to: "Network", pdu: bytes, until: float, tell: Callable[[int], None]) -> None:
        if asyncio.get_running_loop().time() >= until:
            tell(EXPIRED)
            return

        def done() -> None:
            self._forget(expiry)
            tell(DELIVERED)

        expiry = self._at(until, lambda: tell(EXPIRED) if to.withdraw(done) else None)
        try:
            to.deliver(pdu, done=done)
        except ValueError:  # too many wait for it
            self._forget(expiry)
            tell(CONGESTION)

    def _forget(self, timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        self._timers.discard(timer)

    def _at(self, moment: float, work: Callable[[], None]) -> asyncio.TimerHandle:
        def run() -> None:
            self._timers.discard(timer)
            work()

        timer = asyncio.get_running_loop().call_at(moment, run)
        self._timers.add(timer)
        return timer

    def _span(self, validity: ValidityPeriod | None) -> float:
        """Return the seconds that a message is kept (3GPP TS 23.040 9.2.3.12)."""
        if validity is None:
            return DEFAULT_VALIDITY
        if isinstance(validity, Timestamp):
            return (validity.utc() - self._clock()).total_seconds()
        span = validity.span
        return DEFAULT_VALIDITY if span is None else span.total_seconds()


def dialled(destination: Address) -> str:
    """Return the number with country code that a destination means, "" for a name or a short code.

    A number of unknown type is dialled as on a phone: `00` in front is international, anything else is national.
    """
    digits = destination.text.removeprefix("+")
    match destination.ton:
        case TypeOfNumber.INTERNATIONAL:
            return f"+{digits}"
        case TypeOfNumber.UNKNOWN if digits.startswith("00"):
            return f"+{digits[2:]}"
        case TypeOfNumber.UNKNOWN | TypeOfNumber.NATIONAL:
            return f"+{COUNTRY}{digits}"
    return ""


def _nothing(_status: int) -> None:
    """Nobody asked to be told."""
