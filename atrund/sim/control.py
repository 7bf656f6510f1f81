# SPDX-License-Identifier: Apache-2.0
"""The control socket of the simulated module: JSON lines in, one JSON answer to each.

`{"op": "sms", "from": "+39…", "text": "AT+COPS?"}` -> `{"ok": true, "outcome": "stored"}`; what was wrong comes back
as `{"ok": false, "error": "…"}`. The operations are the methods `_op_…` of `Control` and `MoreControl`.
"""

import asyncio
import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Final

from atrund.at.results import classify
from atrund.sim import requests
from atrund.sim.faults import Plant
from atrund.sim.module import SimModule
from atrund.sim.operations import MoreControl
from atrund.sim.requests import Answer, Operations, Request, RequestError
from atrund.sim.state import Sim
from atrund.sms.alphabet import Alphabet, UnsendableError
from atrund.sms.pdu import Address, Dcs, Deliver, PduError, Timestamp, UserData

LINE_CAP: Final = 65536
"""Longest line in bytes; a longer one is refused and its connection closed."""

PLANTED_LINES_CAP: Final = 4096

SERVICE_CENTRE: Final = Address.parse("+393492000009")
DCS_OF: Final = {"gsm7": Dcs(0x00), "8bit": Dcs(0x04), "ucs2": Dcs(0x08)}


class Control:
    """What can be done to a module from outside."""

    def __init__(self, module: SimModule) -> None:
        self._module = module
        self._operations: Operations = {
            "sms": (self._op_sms, frozenset({"pdu", "from", "text", "alphabet", "dcs"})),
            "sent": (self._op_sent, frozenset({"clear"})),
            "seen": (self._op_seen, frozenset({"clear"})),
            "state": (self._op_state, frozenset()),
            "hang": (self._op_hang, frozenset()),
            "resume": (self._op_resume, frozenset()),
            "reboot": (self._op_reboot, frozenset()),
            "late": (self._op_late, frozenset({"command", "seconds", "times", "always"})),
            "fail": (self._op_fail, frozenset({"command", "result", "times", "always"})),
            "answer": (self._op_answer, frozenset({"command", "lines", "result", "times", "always"})),
            "clear": (self._op_clear, frozenset({"command"})),
            "registration": (self._op_registration, frozenset({"state", "seconds"})),
            "signal": (self._op_signal, frozenset({"rssi", "ber"})),
            "sim": (self._op_sim, frozenset({"state"})),
            "urc": (self._op_urc, frozenset({"text", "port"})),
            **MoreControl(module).operations(),
        }

    def handle(self, line: bytes) -> Answer:
        """Do what a line asks for and return the answer."""
        try:
            return {"ok": True} | self._handle(line)
        except (RequestError, PduError, UnsendableError) as error:
            return {"ok": False, "error": str(error)}

    def _handle(self, line: bytes) -> Answer:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"no JSON: {error}") from None
        if not isinstance(request, dict):
            raise RequestError('not an object; {"op": "state"} would be one')
        operation = request.pop("op", None)
        if not isinstance(operation, str) or operation not in self._operations:
            raise RequestError(f"op: must be one of {', '.join(self._operations)}")
        method, fields = self._operations[operation]
        foreign = sorted(set(request) - fields)
        if foreign:
            raise RequestError(f"{foreign[0][:40]}: {operation} has no such field; it has {_listed(fields)}")
        return method(request)

    # Messages.

    def _op_sms(self, request: Request) -> Answer:
        if "pdu" in request:
            if len(request) > 1:
                raise RequestError("pdu: holds all of the message; leave the other fields out")
            try:
                pdu = bytes.fromhex(requests.string(request, "pdu"))
            except ValueError:
                raise RequestError("pdu: must be pairs of hex digits") from None
        else:
            pdu = self._message(request).encode()
        try:
            return {"outcome": self._module.network.deliver(pdu).value}
        except PduError:
            raise
        except ValueError as error:
            raise RequestError(str(error)) from None

    def _message(self, request: Request) -> Deliver:
        sender = requests.string(request, "from")
        digits = sender.removeprefix("+")
        originator = Address.parse(sender) if digits.isascii() and digits.isdigit() else Address.alphanumeric(sender)
        if "dcs" in request:
            dcs = Dcs(requests.whole(request, "dcs", range(256)))
            if "alphabet" in request and _alphabet(request) is not dcs.alphabet:
                raise RequestError("alphabet: not the one that dcs says; leave one of them out")
        else:
            dcs = DCS_OF[_alphabet(request).value]
        return Deliver(
            originator=originator,
            timestamp=Timestamp.of(self._module.clock()),
            user_data=UserData.from_text(requests.string(request, "text"), dcs),
            dcs=dcs,
            smsc=SERVICE_CENTRE,
        )

    def _op_sent(self, request: Request) -> Answer:
        sent = self._module.network.sent
        answer: Answer = {"sent": [message.record() for message in sent]}
        if requests.flag(request, "clear"):
            sent.clear()
        return answer

    # What the module got, and where it stands.

    def _op_seen(self, request: Request) -> Answer:
        answer: Answer = {"seen": [list(port.seen) for port in self._module.ports]}
        if requests.flag(request, "clear"):
            for port in self._module.ports:
                port.seen.clear()
        return answer

    def _op_state(self, _request: Request) -> Answer:
        return {"state": self._module.summary()}

    # Faults.

    def _op_hang(self, _request: Request) -> Answer:
        self._module.hang()
        return {}

    def _op_resume(self, _request: Request) -> Answer:
        self._module.resume()
        return {}

    def _op_reboot(self, _request: Request) -> Answer:
        self._module.reboot()
        return {}

    def _op_late(self, request: Request) -> Answer:
        return self._plant(request, Plant(seconds=requests.seconds(request)))

    def _op_fail(self, request: Request) -> Answer:
        return self._plant(request, Plant(final=_final(request)))

    def _op_answer(self, request: Request) -> Answer:
        lines = request.get("lines")
        if not isinstance(lines, list) or len(lines) > PLANTED_LINES_CAP:
            raise RequestError(f"lines: must be a list of at most {PLANTED_LINES_CAP} texts")
        texts = tuple(requests.printable(line, "lines") for line in lines)
        return self._plant(request, Plant(lines=texts, final=_final(request, "OK")))

    def _plant(self, request: Request, plant: Plant) -> Answer:
        plant.left = requests.times(request)
        command = requests.printable(requests.string(request, "command"), "command")
        try:
            self._module.faults.plant(command, plant)
        except ValueError as error:
            raise RequestError(f"command: {error}") from None
        return {}

    def _op_clear(self, request: Request) -> Answer:
        command = requests.string(request, "command") if "command" in request else None
        self._module.faults.clear(command)
        self._module.mangles.clear(command)
        return {}

    # The world around.

    def _op_registration(self, request: Request) -> Answer:
        state = requests.whole(request, "state", range(6))
        if "seconds" in request:
            self._module.lose_registration(state, requests.seconds(request))
        else:
            self._module.set_registration(state)
        return {}

    def _op_signal(self, request: Request) -> Answer:
        rssi = requests.whole(request, "rssi", range(100))
        ber = requests.whole(request, "ber", range(100)) if "ber" in request else 99
        if rssi not in {*range(32), 99} or ber not in {*range(8), 99}:
            raise RequestError("rssi, ber: rssi is 0 to 31, ber 0 to 7; 99 is unknown")
        self._module.set_signal(rssi, ber)
        return {}

    def _op_sim(self, request: Request) -> Answer:
        state = requests.string(request, "state")
        if state not in {sim.value for sim in Sim}:
            raise RequestError(f"state: must be one of {', '.join(sim.value for sim in Sim)}")
        self._module.set_sim(Sim(state))
        return {}

    def _op_urc(self, request: Request) -> Answer:
        text = requests.printable(requests.string(request, "text"), "text")
        if "port" not in request:
            self._module.urc(text)
            return {}
        numbers = range(len(self._module.ports))
        self._module.ports[requests.whole(request, "port", numbers)].urc(text)
        return {}


class ControlServer:
    """The socket itself, for any number of clients. Only its owner may connect."""

    def __init__(self, control: Control, path: Path) -> None:
        self._control = control
        self._path = path
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen. A stale socket is replaced. Raises `OSError` if another one listens there or the path is refused."""
        if _in_use(self._path):
            raise FileExistsError(f"{self._path} is in use by another program")
        mask = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, self._path, limit=LINE_CAP)
        finally:
            os.umask(mask)

    async def close(self) -> None:
        """Stop listening, let the clients go and remove the socket."""
        if self._server is None:
            return
        self._server.close()
        for writer in list(self._clients):
            writer.close()
        await self._server.wait_closed()
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            while line := await _line(reader, writer):
                if line.strip():
                    await _answer(writer, self._control.handle(line))
        except OSError:  # the client went
            pass
        finally:
            self._clients.discard(writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Return the next line, or nothing at the end; what can't be a line is answered."""
    try:
        return await reader.readline()
    except ValueError:  # longer than the reader's limit
        await _answer(writer, {"ok": False, "error": f"line: longer than {LINE_CAP} bytes"})
        return b""


async def _answer(writer: asyncio.StreamWriter, answer: Answer) -> None:
    writer.write(json.dumps(answer).encode() + b"\n")
    await writer.drain()


def _in_use(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _listed(fields: frozenset[str]) -> str:
    return ", ".join(sorted(fields)) or "none"


def _alphabet(request: Request) -> Alphabet:
    name = request.get("alphabet", "gsm7")
    if not isinstance(name, str) or name not in DCS_OF:
        raise RequestError(f"alphabet: must be one of {', '.join(DCS_OF)}")
    return Alphabet(name)


def _final(request: Request, default: str | None = None) -> str:
    text = request.get("result", default)
    if not isinstance(text, str) or classify(text) is None:
        raise RequestError("result: must be a final result such as ERROR or +CME ERROR: 100")
    return text
