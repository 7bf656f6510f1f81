# SPDX-License-Identifier: Apache-2.0
"""The commands that the daemon owns, carried out for all instances (CMD-1 to CMD-4).

Rules of this file: one is carried out after the other; what a command set is on disk before its answer is given; one
that can't be carried out changes nothing.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, Protocol

import structlog

from atrund.at.syntax import Command
from atrund.atrun import commands, reporting
from atrund.atrun.family.forms import Context, Delays, Effect, Reply, Running
from atrund.atrun.instance import code_of
from atrund.atrun.interface import Interface
from atrund.atrun.policy import DEFAULTS, Abilities, Asker, DoorPolicy
from atrund.atrun.request import Door, Reason, Request
from atrund.atrun.settings import INSTANCES, Settings
from atrund.ledger import StorageError
from atrund.nvm import Nvm

log = structlog.get_logger()

ABILITIES: Final = Abilities(own_commands=True)
"""What every door can do; `abilities_of` says what one that asks can besides."""
_INTERACTIVE: Final = replace(ABILITIES, prompts=True)

NEEDED: Final[reporting.Reporting] = {"+CNMI": (2, 1, 0, 0, 0)}
"""What the daemon itself has the module report (MOD-3)."""
WITH_DELIVERY: Final[reporting.Reporting] = {"+CNMI": (2, 1, 0, 1, 0)}
"""The same where it asks for reports on the delivery of its answers: shown, for stored ones would fill the store."""


class Services(Protocol):
    """What can be switched by a command, and what runs now."""

    def running(self) -> Running:
        """Return what runs, as the asker's command needs it."""

    async def carry_out(self, effect: Effect, request: Request) -> str:
        """Do what a command asked for; returns why it could not be done, or "". Raises `StorageError`."""

    async def outcome(self, effect: Effect) -> str:
        """Wait for what `carry_out` only began; returns why it failed, or ""."""


class Own:
    """What each instance has set, and the commands that change it."""

    def __init__(
        self,
        nvm: Nvm,
        services: Callable[[], Services],
        *,
        policies: Mapping[Door, DoorPolicy] = DEFAULTS,
        delays: Delays | None = None,
        home: Callable[[], str] = lambda: "",
    ) -> None:
        """`home` tells the memory of messages that the daemon keeps selected, "" while it is not known."""
        self.delays = delays or Delays()
        self.home = home
        self.reported = reporting.union(NEEDED, ())
        """What the module reports, as far as is known."""
        self.on_reports: Callable[[], None] = lambda: None
        """Told when the instances may want other reports than the module gives."""
        self.needs: Callable[[], reporting.Reporting] = lambda: NEEDED
        """What the daemon itself has the module report now."""
        self.in_data_call: Callable[[int], bool] = lambda _instance: False
        """Whether the port of an instance is in a data call."""
        self._nvm = nvm
        self._services = services
        self._policies = policies
        self._interfaces: dict[int, Interface] = {}
        self._one_at_a_time = asyncio.Lock()
        self._under_way: set[asyncio.Task[Reply]] = set()

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._nvm.settings

    @property
    def changing(self) -> asyncio.Lock:
        """What is held while settings change, so that of two changes none is lost."""
        return self._one_at_a_time

    def interface(self, instance: int) -> Interface:
        """Return what an instance has set; at first what its stored profile holds (CMD-1)."""
        return self._interfaces.get(instance) or self.settings.instance[instance - 1].at_start

    def asked_for(self) -> dict[int, reporting.Reporting]:
        """Return what each instance wants reported."""
        return {number: self.interface(number).reports for number in range(1, INSTANCES + 1)}

    def reports(self) -> dict[str, reporting.Setting]:
        """Return what the module is to report: what the daemon needs and what each instance asked for (CMD-3)."""
        return reporting.union(self.needs(), self.asked_for().values())

    def policy(self, door: Door) -> DoorPolicy:
        """Return what is allowed at a door."""
        return self._policies[door]

    def context(self, request: Request) -> Context:
        """Return what a command of this request runs on."""
        return Context(
            settings=self.settings,
            interface=self.interface(request.instance),
            instance=request.instance,
            asker=asker_of(request),
            remote_admin=self._policies[request.door].remote_admin,
            locked=self._nvm.locked,
            running=replace(self._services().running(), data_call=self.in_data_call(request.instance)),
            delays=self.delays,
        )

    def answer(self, command: Command, request: Request) -> Reply:
        """Answer a command without carrying anything out."""
        return commands.execute(command, self.context(request))

    async def execute(self, command: Command, request: Request) -> Reply:
        """Answer a command and carry it out, to its end even if its asker goes meanwhile: disk and services agree."""
        reply = self.answer(command, request)
        if not self._changes(reply, request):  # a disk that hangs keeps nobody from reading
            return reply
        work = asyncio.get_running_loop().create_task(self._execute(command, request), name="own command")
        self._under_way.add(work)
        work.add_done_callback(self._under_way.discard)
        return await asyncio.shield(work)

    def reports_after(self, reply: Reply, instance: int) -> dict[str, reporting.Setting]:
        """Return what the module is to report once a reply counts."""
        return reporting.union(self.needs(), (self.asked_for() | {instance: reply.interface.reports}).values())

    def _changes(self, reply: Reply, request: Request) -> bool:
        if not reply.ok:
            return False
        inside = (reply.interface, reply.delays) != (self.interface(request.instance), self.delays)
        return inside or bool(reply.wrote or reply.effects)

    async def _execute(self, command: Command, request: Request) -> Reply:
        async with self._one_at_a_time:
            reply = self.answer(command, request)
            if reply.ok:
                reply = await self._keep(reply, request)
        for effect in reply.effects:  # a call that takes a minute holds up no other setting
            if why := await self._services().outcome(effect):
                return _refused(reply, Reason.BUSY, why)
        return reply

    async def _keep(self, reply: Reply, request: Request) -> Reply:
        for warning in reply.warnings:
            asked = {"id": request.rid, "door": request.door.value, "peer": request.peer}
            log.warning("command carried out with a warning", **asked, detail=warning)
        before = self.settings
        try:
            await self._nvm.keep(reply.settings, reply.wrote, request)
        except StorageError as error:
            return _refused(reply, Reason.STORAGE, f"not kept: {error}", settings=before)
        self._interfaces[request.instance] = reply.interface
        if self.reports() != self.reported:
            self.on_reports()
        self.delays = reply.delays
        try:
            for effect in reply.effects:
                if why := await self._services().carry_out(effect, request):
                    return _refused(reply, Reason.BUSY, why)
        except StorageError as error:
            return _refused(reply, Reason.STORAGE, f"not kept: {error}")
        return reply


def abilities_of(request: Request) -> Abilities:
    """Return what the request's door can do: one whose asker can answer prompts carries data for them."""
    return _INTERACTIVE if request.answers_prompts else ABILITIES


def asker_of(request: Request) -> Asker:
    """Return who asks, with every name that a rule may mean."""
    return Asker(request.door, (request.peer, *request.names), request.forgeable)


def _refused(reply: Reply, reason: Reason, detail: str, settings: Settings | None = None) -> Reply:
    kept = reply.settings if settings is None else settings
    final = f"+CME ERROR: {code_of(reason)}"
    return replace(reply, settings=kept, lines=(), final=final, reason=reason, detail=detail, effects=())
