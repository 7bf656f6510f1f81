# SPDX-License-Identifier: Apache-2.0
"""What operators ask of the daemon itself, beside AT commands: what would happen, settings as a whole, doors closed.

Rules of this file: nothing of the module's is touched; whoever asks was let in by the control socket, which knows the
rights; what changes anything is recorded; a secret leaves in an export that asks for secrets, and nowhere else.
"""

import json
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Final

from atrund import control
from atrund.at.syntax import parse
from atrund.atrun import commands, stored
from atrund.atrun.body import misfit
from atrund.atrun.explain import explain, explain_peer
from atrund.atrun.firewall import Rule, admits
from atrund.atrun.message import is_listed
from atrund.atrun.request import Door, Request
from atrund.ledger import Ledger, StorageError, history
from atrund.mirror import Mirror
from atrund.nvm import Nvm
from atrund.own import Own, abilities_of, asker_of
from atrund.services import Services
from atrund.sms.address import Address
from atrund.sms.fields import PduError

LOCKED: Final = "locked = true: the configuration file alone says what is set here"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the configuration says that settings don't: the firewall with its IPv6 rules, and about MQTT."""

    firewall: Callable[[], Sequence[Rule]]
    mqtt: bool = False
    remote_at: bool = False
    confirm_after: float = 300.0
    codes: Mapping[str, bool] = field(default_factory=dict)
    """The numbers with codes, and whether these are required."""
    seals: bool = False
    """Whether there are keys of seals."""


class Admin:
    """Carries out what the control socket takes."""

    def __init__(self, *, own: Own, nvm: Nvm, services: Services, mirror: Mirror, ledger: Ledger, facts: Facts) -> None:
        self._own = own
        self._nvm = nvm
        self._services = services
        self._mirror = mirror
        self._ledger = ledger
        self.facts = facts
        """Exchanged when the configuration is read anew."""

    async def handle(self, request: control.Reading | control.Administering, peer: str) -> control.Answer:
        """Do it and answer; `peer` is who asks, for the record."""
        try:
            match request:
                case control.ExplainRequest():
                    return self._explain(request)
                case control.SettingsRequest(keys):
                    return self._show(keys)
                case control.SmsLogRequest(limit, before):
                    return await self._sms_log(limit, before)
                case control.AuditRequest() | control.AuditVerifyRequest():
                    from atrund import auditing  # noqa: PLC0415 - few ask for it

                    return await auditing.answer(self._ledger, request)
                case control.ExportRequest(secrets):
                    return self._export(peer, secrets=secrets)
                case control.ImportRequest(values):
                    return await self._import(values, peer)
                case control.ResetRequest(keys):
                    return await self._reset(keys, peer)
                case control.DoorsRequest(action, doors):
                    return await self._doors(doors, peer, close=action == "close")
        except StorageError as error:
            return control.ErrorAnswer(f"the settings can't be kept: {error}")

    @property
    def closed(self) -> list[str]:
        """The doors that an operator keeps closed."""
        return sorted(door.value for door in self._services.closed)

    def _explain(self, asked: control.ExplainRequest) -> control.Answer:
        door = Door(asked.door)
        if asked.cmd is None:
            if door is not Door.TCP or asked.peer is None:
                return control.ErrorAnswer(
                    "without a command line there is only the firewall: --door tcp --peer ADDRESS"
                )
            try:
                told = explain_peer(asked.peer, self.facts.firewall())
            except ValueError:
                return control.ErrorAnswer("peer: no IP address; right is for example 192.0.2.7")
            return control.DoneAnswer({**told, "notes": self._of_door(door)})
        if door is Door.SMS:
            line, forgeable, heard = self._of_sms(asked.cmd, asked.peer or "", digest=asked.digest)
        else:
            line, forgeable, heard = asked.cmd, False, self._of_peer(door, asked.peer or "")
        request = Request(
            rid="",
            door=door,
            peer=asked.peer or "",
            line=line,
            instance=self._instance(door),
            forgeable=forgeable,
            interactive=door in {Door.TCP, Door.MQTT},
        )
        asker = replace(asker_of(request), names=(asked.peer,) if asked.peer else ())
        policy = self._own.policy(door)
        told = explain(line, asker, policy, abilities_of(request), confirm_after=self.facts.confirm_after)
        notes = [*self._of_door(door), *heard]
        if told["decision"] != "refused":
            notes += self._of_own(request)
            if door is Door.MQTT and (lacking := misfit(line, None)) is not None:
                notes.append(lacking[1])
        return control.DoneAnswer({**told, "notes": notes})

    def _instance(self, door: Door) -> int:
        settings = self._own.settings
        of_sms = settings.sms.instance
        return {Door.SMS: of_sms, Door.TCP: settings.tcp.instance, Door.MONITOR: of_sms}.get(door, 1)

    def _of_door(self, door: Door) -> list[str]:
        """Return what keeps anything out that comes by a door."""
        settings = self._own.settings
        on = settings.tcp.enabled or settings.tcp.client.enabled
        off = {
            Door.SMS: "" if settings.sms.enabled else "the sms door is off: AT#SMSATRUN=1 switches it on",
            Door.TCP: "" if on else "the tcp door is off: AT#TCPATRUNL=1 or AT#TCPATRUND=1 switches it on",
            Door.MONITOR: "" if settings.monitor.enabled else "the event monitor is off: AT#ENAEVMONI=1 switches it on",
            Door.MQTT: "" if self.facts.mqtt and self.facts.remote_at else "mqtt requests are off: mqtt.remote_at",
        }.get(door, "")
        stored = "a stored command needs the rights of the door that stored it too: explain it for that one as well"
        closed = f"an operator closed the {door.value} door: atrunctl doors open {door.value} opens it"
        notes = [off] * bool(off) + [closed] * (door in self._services.closed)
        return [*notes, stored] if door is Door.MONITOR else notes

    def _of_sms(self, line: str, peer: str, *, digest: bool) -> tuple[str, bool, list[str]]:
        """Return the line of an SMS without seal and codes, whether anybody could have sent it, and what it lacks."""
        from atrund.atrun.codes import entry_of, split  # noqa: PLC0415 - few ask for it
        from atrund.sms.seal import parse_sealed  # noqa: PLC0415 - as above

        sms = self._own.settings.sms
        if digest:
            none = "the white list has no password: no SMS with a digest would be taken for an ATRUN SMS"
            return line, False, [] if sms.passwords else [none]
        if (sealed := parse_sealed(line)) is not None:
            none = "there are no keys of seals: this SMS would be left alone"
            return sealed.text, False, [_NOT_LOOKED_AT.format("seal") if self.facts.seals else none]
        notes = []
        if peer and not _listed(peer, sms.numbers):
            unless = "unless it had a digest or a seal"
            notes.append(f"this number is not on the white list: its SMS would be left alone, {unless}")
        if (entry := entry_of(peer, self.facts.codes)) is None:
            return line, True, notes
        line, codes = split(line)
        if codes:
            notes.append(_NOT_LOOKED_AT.format("code"))
        elif self.facts.codes[entry]:
            notes.append("this number must put a code behind its commands: it would be refused (auth)")
        return line, not codes, notes

    def _of_peer(self, door: Door, peer: str) -> list[str]:
        """Return whether who asks would be heard at all."""
        if door is Door.TCP and peer and not self._own.settings.tcp.client.enabled:
            try:
                admitted = admits(self.facts.firewall(), peer)
            except ValueError:  # a login
                return []
            return [] if admitted else ["the firewall would not let this address in"]
        return []

    def _of_own(self, request: Request) -> list[str]:
        """Return what the daemon would refuse of its own commands, each on what those before it would have set."""
        plain = request.line[1:] if request.line[:3].upper() == "HAT" else request.line
        context = self._own.context(request)
        for command in parse(plain):
            if commands.kind_of(command, context.settings) is not commands.Kind.OWN:
                continue
            reply = commands.execute(command, context)
            if not reply.ok:
                return [f"{reply.detail}: answered {reply.final}, and the line ends there"]
            context = replace(context, settings=reply.settings, interface=reply.interface, delays=reply.delays)
        return []

    async def _sms_log(self, limit: int, before: int) -> control.Answer:
        try:
            entries: list[history.Entry] = await self._ledger.ask(history.entries(limit, before))
        except StorageError as error:
            return control.ErrorAnswer(f"the history can't be read: {error}")
        shown = [{**asdict(one), "raw": None if one.raw is None else one.raw.hex()} for one in entries]
        return control.DoneAnswer({"entries": shown})

    def _show(self, asked: Iterable[str]) -> control.Answer:
        keys, mistakes = _expanded(asked or stored.KEYS)
        if mistakes:
            return control.ErrorAnswer("no such settings", mistakes)
        hidden = {one.key for one in self._nvm.hidden()}
        shown = self._nvm.shown()
        settings: list[dict[str, object]] = []
        for key in keys:
            row = self._nvm.origin(key)
            told: dict[str, object] = {"key": key, "value": json.loads(shown[key])}
            if row is None:
                told |= {"from": "file"}
            else:
                told |= {"from": "command", "door": row.door, "peer": row.peer, "ts": row.ts, "hides": key in hidden}
            settings.append(told)
        unusable = [str(error) for error in self._nvm.unusable()]
        head = {"locked": self._nvm.locked, "failure": self._nvm.failure, "unusable": unusable}
        return control.DoneAnswer({**head, "settings": settings})

    def _export(self, peer: str, *, secrets: bool) -> control.Answer:
        if self._nvm.failure:
            raise StorageError(self._nvm.failure)
        settings, left_out = self._nvm.export(secrets=secrets)
        if secrets:
            self._record(peer, "settings exported with their secrets")
        return control.DoneAnswer({"settings": settings, "left_out": list(left_out)})

    async def _import(self, values: dict[str, object], peer: str) -> control.Answer:
        async with self._own.changing:
            if (refused := self._refused()) is not None:
                return refused
            before = self._own.settings
            mistakes = await self._nvm.take(values, _by(peer))
            if mistakes:
                return control.ErrorAnswer("nothing was imported", tuple(map(str, mistakes)))
            self._record(peer, "settings imported", _some(values))
            why = await self._services.settle(before)
        return control.DoneAnswer({"imported": list(values), "failed": why})

    async def _reset(self, asked: Iterable[str], peer: str) -> control.Answer:
        keys, mistakes = _expanded(asked)
        if mistakes:
            return control.ErrorAnswer("nothing was reset", mistakes)
        async with self._own.changing:
            if (refused := self._refused()) is not None:
                return refused
            if clash := self._nvm.clash_without(keys):
                return control.ErrorAnswer(f"nothing was reset: {clash}")
            before = self._own.settings
            there = await self._nvm.reset(keys)
            if there:
                self._record(peer, "settings reset", _some(there))
            why = await self._services.settle(before)
        return control.DoneAnswer({"reset": list(there), "failed": why})

    def _refused(self) -> control.Answer | None:
        if self._nvm.locked:
            return control.ErrorAnswer(LOCKED)
        if self._nvm.failure:
            raise StorageError(self._nvm.failure)
        return None

    async def _doors(self, names: Iterable[str], peer: str, *, close: bool) -> control.Answer:
        right = ", ".join(_CLOSABLE)
        wrong = tuple(f"{name}: no door to close or open; right is {right}" for name in names if name not in _CLOSABLE)
        if wrong:
            return control.ErrorAnswer("no door was changed", wrong)
        # Closing waits for nothing that changes, and for the disk with the last one only: that may be what hangs.
        doors = sorted({Door(name) for name in names}, key=lambda door: (door is Door.SMS, door.value))
        failed, notes = [], []
        for door in doors:
            if door is Door.MQTT and not self.facts.mqtt:  # in a bad night it keeps no other from being closed
                notes.append("mqtt: it is not switched on in the configuration (mqtt.enabled)")
                continue
            if close is not (door in self._services.closed):
                self._record(peer, f"door {'closed' if close else 'opened'}", door.value)
            if close:
                await self._services.close(door)
                continue
            async with self._own.changing:
                if why := await self._services.open(door):
                    failed.append(f"{door.value}: {why}")
            notes += self._of_door(door)
        return control.DoneAnswer({"closed": self.closed, "failed": failed, "notes": notes})

    def _record(self, peer: str, what: str, which: str | None = None) -> None:
        self._ledger.behind(*self._mirror.session(Door.LOCAL, peer, what, which))


_NOT_LOOKED_AT: Final = "whether the {} is right was not looked at, for each is taken once"
_NAMED_MAX: Final = 10
"""Keys in one line of the record: a service has about as many."""
_CLOSABLE: Final = (Door.SMS.value, Door.TCP.value, Door.MQTT.value)


def _expanded(asked: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the keys that are meant, a group standing for all in it, and what is neither key nor group."""
    keys: dict[str, None] = {}
    mistakes = []
    for one in asked:
        found = [key for key in stored.KEYS if key == one or key.startswith(f"{one}.")]
        keys |= dict.fromkeys(found)
        mistakes += [] if found else [f"{one[:60]}: no such setting; atrunctl nvm show lists them"]
    return tuple(keys), tuple(mistakes)


def _some(keys: Collection[str]) -> str:
    """Name keys in a record, of which many need not be read one by one."""
    first = ", ".join(islice(keys, _NAMED_MAX))
    return first if len(keys) <= _NAMED_MAX else f"{first} and {len(keys) - _NAMED_MAX} more"


def _listed(number: str, numbers: Sequence[str]) -> bool:
    try:
        return is_listed(Address.parse(number), numbers)
    except PduError:
        return False


def _by(peer: str) -> Request:
    """Return what a change is written down with: who made it, and by which door."""
    return Request(rid=uuid.uuid4().hex, door=Door.LOCAL, peer=peer, line="")
