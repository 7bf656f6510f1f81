# SPDX-License-Identifier: Apache-2.0
"""A parsed line cut into what the daemon answers and what the module does, and the daemon's answers (CMD-1 to CMD-3).

How a line is run: `split` takes the next segment off, again and again, with the settings as they are by then. What each
kind asks of the caller stands at `Kind`. The first error ends the line; there is one final result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from atrund.at.syntax import Command, Op, arguments
from atrund.atrun import reporting
from atrund.atrun.family import monitor, sms, sockets, tcp, v250
from atrund.atrun.family.forms import Context, Done, Refused, Reply, Row, bad
from atrund.atrun.interface import is_remembered
from atrund.atrun.policy import ADMINISTERING, FORGEABLE_NEVER
from atrund.atrun.request import Door, Reason
from atrund.atrun.settings import Settings
from atrund.table import Word

TABLE: Final[Mapping[str, Row]] = {
    row.name: row for row in (*sms.ROWS, *tcp.ROWS, *sockets.ROWS, *monitor.ROWS, *v250.ROWS)
}
"""Every command that the daemon answers, by name."""


class Kind(Word):
    """Who does a segment, and how."""

    OWN = "own"
    """`execute` answers it; nothing is sent."""
    MODULE = "module"
    """Commands that are sent as one line."""
    KEPT = "kept"
    """One command that is sent; when the module says OK, `execute` gives what is to be kept of it."""
    REPORTING = "reporting"
    """One command that is not sent: `execute` first; if it is OK, the module is brought to the new union, and only when
    it takes that is the reply kept."""
    SHOWN = "shown"
    """One command that is sent; its answer's lines go through `answered` before the asker sees them."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The next part of a line. All kinds but MODULE hold one command."""

    kind: Kind
    commands: tuple[Command, ...]

    @property
    def sent(self) -> bool:
        """Whether its commands go to the module."""
        return self.kind in {Kind.MODULE, Kind.KEPT, Kind.SHOWN}


def kind_of(command: Command, settings: Settings) -> Kind:
    """Return who does a command."""
    if reporting.is_setting(command):
        return Kind.REPORTING
    if reporting.is_reading(command):
        return Kind.SHOWN
    if is_remembered(command):
        return Kind.KEPT
    if command.name in _SOCKETS and command.op is Op.READ:
        return Kind.SHOWN
    if sockets.is_socket(command):
        return Kind.OWN if sockets.conn_id(command) in {None, settings.tcp.conn_id} else Kind.KEPT
    return Kind.OWN if command.name in TABLE else Kind.MODULE


def split(commands: Sequence[Command], settings: Settings) -> tuple[Segment, tuple[Command, ...]]:
    """Take the next segment off a line that is not empty; return it and the rest."""
    kind = kind_of(commands[0], settings)
    end = 1
    if kind is Kind.MODULE:
        while end < len(commands) and kind_of(commands[end], settings) is Kind.MODULE:
            end += 1
    return Segment(kind, tuple(commands[:end])), tuple(commands[end:])


def execute(command: Command, context: Context) -> Reply:
    """Answer a command of the kinds OWN, KEPT and REPORTING; nothing is changed when it is refused."""
    try:
        return _replied(_done(command, context), context)
    except Refused as refused:
        return Reply(
            context.settings,
            context.interface,
            context.delays,
            final=refused.final,
            reason=refused.reason,
            detail=f"{command.name}: {refused.detail}",
        )


def answered(command: Command, lines: Sequence[str], context: Context) -> tuple[str, ...]:
    """Return the module's answer to a SHOWN command as the asker's instance sees it."""
    if command.name in _SOCKETS:
        return sockets.merged(command.name, lines, context.settings)
    return tuple(reporting.as_read(line, context.interface.reports) for line in lines)


_SOCKETS: Final = frozenset(row.name for row in sockets.ROWS)


def _done(command: Command, context: Context) -> Done:
    if reporting.is_setting(command):
        interface = context.interface.with_report(command)
        if interface is None:
            raise bad("a value is out of range", reporting.SETTINGS[command.name].shown())
        return Done(interface=interface)
    if is_remembered(command):
        return Done(interface=context.interface.remembering(command))
    if kind_of(command, context.settings) is Kind.KEPT:
        return Done({} if context.locked else sockets.noted(command))
    _refuse_from_afar(command, context)
    done = _form(TABLE[command.name], command, context)
    if done.values and context.locked:
        raise Refused(Reason.LOCKED, "the configuration file alone sets this here (locked = true)")
    return done


def _refuse_from_afar(command: Command, context: Context) -> None:
    """Hold to CMD-2 once more where the change is made: a stored command comes by no door that was judged."""
    asker = context.asker
    if command.op is not Op.SET or asker.door is Door.LOCAL or context.remote_admin:
        return
    if command.name in ADMINISTERING or (command.name in FORGEABLE_NEVER and asker.forgeable):
        raise Refused(Reason.POLICY, "not set from afar, unless remote_admin names the door")


def _form(row: Row, command: Command, context: Context) -> Done:
    match command.op:
        case Op.SET if row.set is not None:
            given = arguments(command.args)
            least, most = row.arguments
            if not least <= len(given) <= most:
                raise bad(f"has {len(given)} arguments", f"{least} to {most}" if least < most else str(least))
            return row.set(given, context)
        case Op.READ if row.read is not None:
            return Done(lines=_prefixed(row, row.read(context)))
        case Op.TEST if row.test is not None:
            return Done(lines=_prefixed(row, row.test(context)))
        case Op.EXECUTE if row.execute is not None:
            return row.execute((command.args,) if command.args else (), context)
    raise Refused(Reason.BAD_REQUEST, "has no such form")


def _prefixed(row: Row, lines: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{row.name}: {line}" for line in lines) if row.prefix else lines


def _replied(done: Done, context: Context) -> Reply:
    values: Mapping[str, Any] = done.values
    return Reply(
        context.settings.changed(values),
        context.interface if done.interface is None else done.interface,
        context.delays if done.delays is None else done.delays,
        lines=done.lines,
        final=done.final,
        wrote=tuple(values),
        effects=done.effects,
        warnings=done.warnings,
    )
