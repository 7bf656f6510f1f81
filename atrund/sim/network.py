# SPDX-License-Identifier: Apache-2.0
"""The network as far as messages go: what was sent through it, and how an incoming message reaches the module."""

import asyncio
import contextlib
import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from atrund.sim.rendering import cds_line, cmt_lines
from atrund.sim.state import Power
from atrund.sim.store import Message, Status
from atrund.sms.envelope import MTI_STATUS_REPORT, message_type
from atrund.sms.pdu import Address, Deliver, PduError, Submit, Timestamp, decode_deliver
from atrund.sms.report import StatusReport, decode_report

if TYPE_CHECKING:  # the module owns its network, and so knows it
    from atrund.sim.centre import ServiceCentre
    from atrund.sim.module import SimModule
    from atrund.sim.port import SimPort

SENT_CAP: Final = 500
"""Sent messages remembered, the newest; listed, they stay below a mebibyte."""

HELD_CAP: Final = 255
"""Messages that the service centre keeps for a module that can't take them."""

SERVICE_CENTRE: Final = Address.parse("+393492000009")

SMS_AT_RUN: Final = ("AT", "HAT")
DIGEST_MARK: Final = b"\xd0\xd0\xd0"


class Outcome(enum.Enum):
    """What became of an incoming message."""

    STORED = "stored"
    SHOWN = "shown"
    SWALLOWED = "swallowed"
    DISCARDED = "discarded"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that the module sent. `pdu` is as it was given to the module, in hex; `time` is the network's."""

    to: str
    pdu: str
    text: str
    alphabet: str
    reference: int
    time: str

    def record(self) -> dict[str, object]:
        """Return it as the control socket lists it."""
        return {
            "to": self.to,
            "pdu": self.pdu,
            "text": self.text,
            "alphabet": self.alphabet,
            "reference": self.reference,
            "time": self.time,
        }


def _nothing() -> None:
    """Nobody asked to be told."""


@dataclass(frozen=True, slots=True, eq=False)
class _Parcel:
    """An incoming message, and who is told once the module has it."""

    pdu: bytes
    done: Callable[[], None]


class Network:
    """The message side of the network of one module. `centre` is what joins it to others, if anything does."""

    def __init__(self, module: "SimModule") -> None:
        self._module = module
        self.centre: ServiceCentre | None = None
        self._reference = 0
        self._waiting: deque[_Parcel] = deque()
        self._unacknowledged: tuple[_Parcel, asyncio.TimerHandle] | None = None
        self._long_reference = 0
        self._reports: set[asyncio.TimerHandle] = set()
        self.sent: deque[Sent] = deque(maxlen=SENT_CAP)
        self.swallowed = 0

    @property
    def held(self) -> int:
        """How many messages wait for the module."""
        return len(self._waiting)

    def submit(self, message: Submit) -> int:
        """Take a message of the module and return its reference."""
        reference = self._reference
        self._reference = (reference + 1) % 256
        self.sent.append(
            Sent(
                message.destination.text,
                message.encode().hex().upper(),
                message.user_data.text,
                message.dcs.alphabet.value,
                reference,
                self._module.clock().isoformat(timespec="seconds"),
            )
        )
        delay = self._module.quirks.number("report_delay")
        if self.centre is not None:
            self.centre.take(self, message, reference)
        elif message.status_report and delay:
            self._report_later(delay, reference, message.destination)
        return reference

    def next_long_reference(self) -> int:
        """Return the reference of the next long message (TS 23.040 9.2.3.24.1)."""
        self._long_reference = (self._long_reference + 1) % 256
        return self._long_reference

    def report(self, reference: int, recipient: Address, status: int = 0) -> Outcome:
        """Bring a status report of a sent message to the module. Raises as `deliver` does."""
        now = Timestamp.of(self._module.clock())
        return self.deliver(StatusReport(reference, recipient, now, now, status, SERVICE_CENTRE).encode())

    def deliver(self, pdu: bytes, *, done: Callable[[], None] = _nothing) -> Outcome:
        """Bring an SMS-DELIVER or a status report to the module, or keep it until that can take it.

        `done` is called once, when the module has it. Raises `PduError` for what is neither, `ValueError` if too many
        wait already.
        """
        parcel = _Parcel(pdu, done)
        message = _decode(pdu)
        if not self._waiting:
            outcome = self._bring(parcel, message)
            if outcome is not Outcome.HELD:
                return outcome
        if len(self._waiting) >= HELD_CAP:
            raise ValueError(f"{HELD_CAP} messages wait for the module already")
        self._waiting.append(parcel)
        return Outcome.HELD

    def withdraw(self, done: Callable[[], None]) -> bool:
        """Take back the message of which `done` would be told; False if it does not wait for the module."""
        parcel = next((parcel for parcel in self._waiting if parcel.done is done), None)
        if parcel is not None:
            self._waiting.remove(parcel)
        return parcel is not None

    def release(self) -> None:
        """Bring what waits, as far as the module takes it."""
        while self._waiting:
            parcel = self._waiting[0]
            if self._bring(parcel, _decode(parcel.pdu)) is Outcome.HELD:
                return
            self._waiting.popleft()

    def acknowledge(self) -> bool:
        """Take +CNMA; False if nothing waits for it."""
        if self._unacknowledged is None:
            return False
        parcel, timer = self._unacknowledged
        timer.cancel()
        self._unacknowledged = None
        parcel.done()
        self.release()
        return True

    def forget_pending(self) -> None:
        """The module went off: what it had not acknowledged is kept for it."""
        if self._unacknowledged is not None:
            parcel, timer = self._unacknowledged
            timer.cancel()
            self._unacknowledged = None
            self._waiting.appendleft(parcel)

    def close(self) -> None:
        """Stop what still runs."""
        if self._unacknowledged is not None:
            self._unacknowledged[1].cancel()
            self._unacknowledged = None
        for timer in self._reports:
            timer.cancel()
        self._reports.clear()

    def _report_later(self, delay: float, reference: int, recipient: Address) -> None:
        def report() -> None:
            self._reports.discard(timer)
            # A network that keeps too many messages already, or knows no such address, says nothing.
            with contextlib.suppress(PduError, ValueError):
                self.report(reference, recipient)

        timer = asyncio.get_running_loop().call_later(delay, report)
        self._reports.add(timer)

    def _bring(self, parcel: _Parcel, message: Deliver | StatusReport) -> Outcome:
        outcome = self._show(parcel, message)
        if outcome is not Outcome.HELD and (self._unacknowledged is None or self._unacknowledged[0] is not parcel):
            parcel.done()
        return outcome

    def _show(self, parcel: _Parcel, message: Deliver | StatusReport) -> Outcome:
        module, pdu = self._module, parcel.pdu
        reachable = module.power is Power.ON and module.radio.in_service and not module.sms_busy
        if not reachable or self._unacknowledged is not None:
            return Outcome.HELD
        if isinstance(message, StatusReport):
            return self._show_report(parcel)
        if module.values.get("#SMSATRUN") == ("1",) and is_at_run(message):
            self.swallowed += 1
            if module.quirks.on("at_run_answers"):
                module.at_run.take(message)
            return Outcome.SWALLOWED
        takers = module.speaking(lambda port: direct(port, message))
        if takers and not module.hung:
            for port in takers:
                for line in cmt_lines(port, pdu, message):
                    port.urc(line)
            self._await_acknowledgement(parcel, takers)
            return Outcome.SHOWN
        if message.dcs.message_class == 0:
            return Outcome.DISCARDED
        memory = module.store.memory3
        if message.dcs.message_class == 2:
            memory = "SM"
        elif message.dcs.message_class == 1 and module.quirks.on("class1_me"):
            memory = "ME"
        return self._store(pdu, memory, "+CMTI", lambda port: _cnmi(port) in {1, 2, 3})

    def _show_report(self, parcel: _Parcel) -> Outcome:
        """A report is shown, stored, or nobody wants it: ds of +CNMI is 1, 2 or 0 (TS 27.005 3.4.1)."""
        module, pdu = self._module, parcel.pdu
        takers = module.speaking(lambda port: _ds(port) == 1)
        if takers and not module.hung:
            for port in takers:
                port.urc(cds_line(port, pdu))
            self._await_acknowledgement(parcel, takers)
            return Outcome.SHOWN
        if module.speaking(lambda port: _ds(port) == 2):
            return self._store(pdu, module.store.memory3, "+CDSI", lambda port: _ds(port) == 2)
        return Outcome.DISCARDED

    def _await_acknowledgement(self, parcel: _Parcel, takers: "list[SimPort]") -> None:
        seconds = self._module.quirks.number("cnma_seconds")
        if self._module.values.get("+CSMS") == ("1",) and seconds:
            timer = asyncio.get_running_loop().call_later(seconds, self._not_acknowledged, takers)
            self._unacknowledged = parcel, timer

    def _store(self, pdu: bytes, memory: str, urc: str, wanted: Callable[["SimPort"], bool]) -> Outcome:
        module = self._module
        index = module.store.add(memory, Message(Status.REC_UNREAD, pdu))
        if index is None:
            return Outcome.HELD
        told, warned = module.speaking(wanted), module.speaking(lambda port: bool(port.settings.number("#SMOV")))
        for port in list(module.ports):
            if port in told:
                port.urc(f'{urc}: "{memory}",{index}')
            if port in warned and module.store.full(memory):
                port.urc(f'#SMOV: "{memory}"')
        return Outcome.STORED

    def _not_acknowledged(self, takers: "list[SimPort]") -> None:
        """The module stops showing messages to a client that does not acknowledge; the network tries again."""
        for port in takers:
            if "+CNMI" in port.settings.values:
                mode, _mt, bm, _ds, bfr = port.settings.values["+CNMI"]
                port.settings.values["+CNMI"] = (mode, "0", bm, "0", bfr)
        self.forget_pending()
        self.release()


def _decode(pdu: bytes) -> Deliver | StatusReport:
    return decode_report(pdu) if message_type(pdu) == MTI_STATUS_REPORT else decode_deliver(pdu)


def is_at_run(message: Deliver) -> bool:
    """Whether the module's own SMS AT RUN would take a message for a request (application note 2.1, 2.2)."""
    data = message.user_data
    if data.header is not None:
        return False
    return data.text.upper().startswith(SMS_AT_RUN) or (data.octets or b"").startswith(DIGEST_MARK)


def direct(port: "SimPort", message: Deliver) -> bool:
    """Whether a port wants a message shown rather than stored (TS 27.005 3.4.1); class 2 belongs on the SIM."""
    wanted = _cnmi(port)
    message_class = message.dcs.message_class
    return message_class != 2 and (wanted == 2 or (wanted == 3 and message_class == 3))


def _cnmi(port: "SimPort") -> int:
    """Return +CNMI's mt, 0 under mode 0, which keeps all back."""
    return port.settings.number("+CNMI", 1) if port.settings.number("+CNMI", 0) else 0


def _ds(port: "SimPort") -> int:
    """Return +CNMI's ds, 0 under mode 0."""
    return port.settings.number("+CNMI", 3) if port.settings.number("+CNMI", 0) else 0
