# SPDX-License-Identifier: Apache-2.0
"""Operations of the control socket that show what real modules do: quirks, spoilt answers, the bus, other tenants."""

from typing import Final

from atrund.sim import requests
from atrund.sim.mangle import How, Mangle
from atrund.sim.module import SimModule
from atrund.sim.quirks import QUIRKS, QuirkError
from atrund.sim.requests import Answer, Operations, Request, RequestError
from atrund.sim.store import MEMORIES, Message, Status
from atrund.sms.pdu import Address, Dcs, Deliver, Timestamp, UserData

POSITIONS: Final = range(10_000)
"""Places in an answer; more than an answer of this module has lines."""

FILLER: Final = Address.parse("+393490000000")
"""Who wrote the messages that a store is filled with."""


class MoreControl:
    """What can be done beside the operations of `Control`."""

    def __init__(self, module: SimModule) -> None:
        self._module = module

    def operations(self) -> Operations:
        """Return the operations by name."""
        return {
            "quirk": (self._op_quirk, frozenset({"name", "value"})),
            "quirks": (self._op_quirks, frozenset()),
            "mangle": (
                self._op_mangle,
                frozenset({"command", "how", "times", "always", "seconds", "text", "position"}),
            ),
            "unplug": (self._op_unplug, frozenset()),
            "plug": (self._op_plug, frozenset()),
            "tenant": (self._op_tenant, frozenset({"line"})),
            "fill": (self._op_fill, frozenset({"memory", "leave"})),
            "report": (self._op_report, frozenset({"reference", "to", "status"})),
            "uploads": (self._op_uploads, frozenset({"clear"})),
            "network": (self._op_network, frozenset({"loss", "repeat", "reorder", "delay"})),
        }

    def _op_quirk(self, request: Request) -> Answer:
        name = requests.string(request, "name")
        try:
            return {"name": name, "value": self._module.set_quirk(name, request.get("value"))}
        except QuirkError as error:
            raise RequestError(str(error)) from None

    def _op_quirks(self, _request: Request) -> Answer:
        values = self._module.quirks.values()
        return {
            "quirks": [
                {"name": quirk.name, "value": values[quirk.name], "values": quirk.values, "what": quirk.what}
                for quirk in QUIRKS.values()
            ]
        }

    def _op_mangle(self, request: Request) -> Answer:
        mangle = Mangle(How(requests.one_of(request, "how", [how.value for how in How])), requests.times(request))
        if "seconds" in request:
            mangle.seconds = requests.seconds(request)
        if "text" in request:
            mangle.text = requests.printable(request["text"], "text")
        if "position" in request:
            mangle.position = requests.whole(request, "position", POSITIONS)
        command = requests.printable(requests.string(request, "command"), "command")
        try:
            self._module.mangles.add(command, mangle)
        except ValueError as error:
            raise RequestError(f"command: {error}") from None
        return {}

    def _op_unplug(self, _request: Request) -> Answer:
        self._module.unplug()
        return {}

    def _op_plug(self, _request: Request) -> Answer:
        self._module.plug()
        return {}

    def _op_tenant(self, request: Request) -> Answer:
        line = requests.printable(requests.string(request, "line"), "line")
        if line[:2].upper() != "AT":
            raise RequestError("line: must begin with AT")
        answer = self._module.tenant(line)
        if answer is None:
            raise RequestError("line: the one before is not done yet")
        return {"answer": [part for part in answer.split("\r\n") if part]}

    def _op_fill(self, request: Request) -> Answer:
        """Fill a memory with messages that have been read, but for some slots."""
        store = self._module.store
        memory = requests.one_of(request, "memory", list(MEMORIES)) if "memory" in request else store.memory3
        leave = requests.whole(request, "leave", range(store.sizes[memory] + 1)) if "leave" in request else 0
        added = 0
        while store.sizes[memory] - store.used(memory) > leave:
            added += 1
            text = UserData.from_text(f"filler {added}", Dcs(0))
            message = Deliver(FILLER, Timestamp.of(self._module.clock()), text, smsc=FILLER)
            store.add(memory, Message(Status.REC_READ, message.encode()))
        return {"added": added}

    def _op_report(self, request: Request) -> Answer:
        reference = requests.whole(request, "reference", range(256))
        status = requests.whole(request, "status", range(256)) if "status" in request else 0
        recipient = Address.parse(requests.string(request, "to"))
        try:
            return {"outcome": self._module.network.report(reference, recipient, status).value}
        except ValueError as error:
            raise RequestError(str(error)) from None

    def _op_uploads(self, request: Request) -> Answer:
        uploads = self._module.uploads
        answer: Answer = {"uploads": [upload.record() for upload in uploads]}
        if requests.flag(request, "clear"):
            uploads.clear()
        return answer

    def _op_network(self, request: Request) -> Answer:
        """Change what is given of the weather, and show it and what it did so far."""
        network = self._module.network
        centre = network.centre
        if centre is None:
            raise RequestError("network: this module is joined to no other; --peer-link makes one and joins them")
        for name in ("loss", "repeat", "reorder"):
            if name in request:
                setattr(centre.weather, name, requests.share(request, name))
        if "delay" in request:
            centre.weather.delay = requests.seconds(request, "delay")
        return {
            "number": centre.number_of(network),
            **centre.weather.record(),
            "lost": centre.lost,
            "repeated": centre.repeated,
        }
