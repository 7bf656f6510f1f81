# SPDX-License-Identifier: Apache-2.0
"""The network as far as messages go: what was sent through it, and how an incoming message reaches the module."""

import asyncio
import enum
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from atrund.sim.rendering import cmt_lines
from atrund.sim.state import Power
from atrund.sim.store import Message, Status
from atrund.sms.pdu import Deliver, Submit, decode_deliver

if TYPE_CHECKING:  # the module owns its network, and so knows it
    from atrund.sim.module import SimModule
    from atrund.sim.port import SimPort

SENT_CAP: Final = 500
"""Sent messages remembered, the newest; listed, they stay below a mebibyte."""

HELD_CAP: Final = 255
"""Messages that the service centre keeps for a module that can't take them."""

CNMA_SECONDS: Final = 17.0
"""How long the network waits for +CNMA before it takes a message for lost (AT guides of the family, +CNMA)."""

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


class Network:
    """The message side of the network of one module."""

    def __init__(self, module: "SimModule") -> None:
        self._module = module
        self._reference = 0
        self._waiting: deque[bytes] = deque()
        self._unacknowledged: tuple[bytes, asyncio.TimerHandle] | None = None
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
        return reference

    def deliver(self, pdu: bytes) -> Outcome:
        """Bring an SMS-DELIVER to the module, or keep it until that can take it.

        Raises `PduError` for what is none, `ValueError` if too many wait already.
        """
        message = decode_deliver(pdu)
        if not self._waiting:
            outcome = self._bring(pdu, message)
            if outcome is not Outcome.HELD:
                return outcome
        if len(self._waiting) >= HELD_CAP:
            raise ValueError(f"{HELD_CAP} messages wait for the module already")
        self._waiting.append(pdu)
        return Outcome.HELD

    def release(self) -> None:
        """Bring what waits, as far as the module takes it."""
        while self._waiting:
            pdu = self._waiting[0]
            if self._bring(pdu, decode_deliver(pdu)) is Outcome.HELD:
                return
            self._waiting.popleft()

    def acknowledge(self) -> bool:
        """Take +CNMA; False if nothing waits for it."""
        if self._unacknowledged is None:
            return False
        self._unacknowledged[1].cancel()
        self._unacknowledged = None
        self.release()
        return True

    def forget_pending(self) -> None:
        """The module went off: what it had not acknowledged is kept for it."""
        if self._unacknowledged is not None:
            pdu, timer = self._unacknowledged
            timer.cancel()
            self._unacknowledged = None
            self._waiting.appendleft(pdu)

    def close(self) -> None:
        """Stop what still runs."""
        if self._unacknowledged is not None:
            self._unacknowledged[1].cancel()
            self._unacknowledged = None

    def _bring(self, pdu: bytes, message: Deliver) -> Outcome:
        module = self._module
        reachable = module.power is Power.ON and module.radio.in_service
        if not reachable or self._unacknowledged is not None:
            return Outcome.HELD
        if module.values.get("#SMSATRUN") == ("1",) and is_at_run(message):
            self.swallowed += 1
            return Outcome.SWALLOWED
        takers = [port for port in module.ports if direct(port, message)]
        if takers and not module.hung:
            for port in takers:
                for line in cmt_lines(port, pdu, message):
                    port.urc(line)
            if module.values.get("+CSMS") == ("1",):
                timer = asyncio.get_running_loop().call_later(CNMA_SECONDS, self._not_acknowledged, takers)
                self._unacknowledged = pdu, timer
            return Outcome.SHOWN
        if message.dcs.message_class == 0:
            return Outcome.DISCARDED
        return self._store(pdu, message)

    def _store(self, pdu: bytes, message: Deliver) -> Outcome:
        module = self._module
        memory = "SM" if message.dcs.message_class == 2 else module.store.memory3
        index = module.store.add(memory, Message(Status.REC_UNREAD, pdu))
        if index is None:
            return Outcome.HELD
        for port in module.ports:
            if _cnmi(port) in {1, 2, 3}:
                port.urc(f'+CMTI: "{memory}",{index}')
            if module.store.full(memory) and port.settings.number("#SMOV"):
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
