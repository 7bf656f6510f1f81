# SPDX-License-Identifier: Apache-2.0
"""The module's own SMS AT RUN: it runs what `#SMSATRUN=1` has swallowed, and answers by SMS (quirk `at_run_answers`).

The white list is taken for granted; a digest is checked against the one password of the options. A command that does
not end in time restarts the module, as the application note 80000NT10029a warns.
"""

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final

from atrund.sim.port import HIDDEN, SimPort
from atrund.sim.state import PortSettings
from atrund.sms.digest import DigestError, DigestRequest, parse_request
from atrund.sms.parts import Parts, digest_parts, simple_parts
from atrund.sms.pdu import Deliver, PduError, Submit

if TYPE_CHECKING:  # the module owns its service, and so knows it
    from atrund.sim.module import SimModule

WAITING_CAP: Final = 8
"""Requests that wait for the one that runs; more are lost."""

DEFAULT_CONFIG: Final = ("3", "1", "5")
"""Instance, unsolicited codes, minutes until the restart (#SMSATRUNCFG)."""


class AtRun:
    """Runs one request after the other on an interface of its own."""

    def __init__(self, module: "SimModule") -> None:
        self._module = module
        self._out = bytearray()
        self._port = SimPort(module, HIDDEN, self._out.extend)
        self._waiting: deque[Deliver] = deque(maxlen=WAITING_CAP)
        self._running: tuple[Deliver, DigestRequest | None, bool] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def take(self, message: Deliver) -> None:
        """Run a request, when those before it are done."""
        self._waiting.append(message)
        self._next()

    def forget(self) -> None:
        """The module goes off: what ran is lost."""
        self._waiting.clear()
        self._running = None
        self._stop_clock()
        self._port.restart()

    def close(self) -> None:
        """Stop for good."""
        self.forget()
        self._port.close()

    def _next(self) -> None:
        if self._running is not None or not self._waiting:
            return
        message = self._waiting.popleft()
        request: DigestRequest | None = None
        with contextlib.suppress(DigestError):
            request = parse_request(message.user_data.octets or b"")
        if request is not None and request.matches((self._module.options.at_run_password,)) is None:
            return
        text = message.user_data.text if request is None else request.text.decode("latin-1")
        silent = text[:1].upper() == "H"
        self._running = message, request, silent
        _instance, urc, minutes = self._module.values.get("#SMSATRUNCFG", DEFAULT_CONFIG)
        if urc == "1":
            self._module.urc(f"#SMSATRUN: {''.join(character for character in text if character >= ' ')}")
        self._timer = asyncio.get_running_loop().call_later(60 * int(minutes), self._module.reboot)
        self._port.settings = PortSettings(echo=False)
        self._out.clear()
        self._port.after_final(self._done)
        self._port.feed(text[int(silent) :].encode("latin-1", "replace") + b"\r")

    def _done(self) -> None:
        self._stop_clock()
        if self._running is None:
            return
        message, request, silent = self._running
        self._running = None
        if not silent and self._module.radio.in_service:
            with contextlib.suppress(PduError):
                self._answer(message, self._parts(message, request))
        self._next()

    def _parts(self, message: Deliver, request: DigestRequest | None) -> Parts:
        answer = bytes(self._out)
        if request is None:
            reference = self._module.network.next_long_reference()
            return simple_parts(answer.decode("latin-1"), message.dcs.octet, reference)
        password = self._module.options.at_run_password
        return digest_parts(answer, password, request.transaction, request.session)

    def _answer(self, message: Deliver, parts: Parts) -> None:
        for data in parts.parts:
            self._module.network.submit(Submit(message.originator, data, message.dcs))

    def _stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
