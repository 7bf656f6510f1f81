# SPDX-License-Identifier: Apache-2.0
"""`#ENAEVMONI`, `#ENAEVMONICFG`, `#EVMONI`, and `#ATRUNCONFIRM` (commands.md 4, POL-2)."""

from dataclasses import replace
from typing import Final

from atrund.atrun import events
from atrund.atrun.events import EVENTS, Event
from atrund.atrun.family.forms import (
    MINUTE,
    Confirm,
    Context,
    Done,
    Row,
    Service,
    bad,
    flag,
    minutes,
    nothing,
    number,
    ranges,
    text,
)
from atrund.atrun.family.services import INSTANCES, refuse_while_on, switch
from atrund.atrun.ranges import FLAG, read_number, shown
from atrund.atrun.secrets import mask_line

_TIMEOUT: Final = range(1, 6)
_TYPES: Final = range(4)
_COMMAND: Final = 0
_WITH_TYPE: Final = 3
"""Arguments of a set form that names a parameter's type."""


def _set_mod(given: tuple[str, ...], context: Context) -> Done:
    return switch(Service.MONITOR, given, context, up=context.running.monitoring)


def _read_mod(context: Context) -> tuple[str, ...]:
    return (f"{int(context.settings.monitor.enabled)},{int(context.running.monitoring)}",)


def _set_config(given: tuple[str, ...], context: Context) -> Done:
    refuse_while_on(context.settings, Service.SMS, Service.MONITOR)
    return Done(
        {
            "sms.instance": number(given, 0, "instance", INSTANCES),
            "monitor.urc": flag(given, 1, "urcmod", 1),
            "monitor.timeout": float(number(given, 2, "timeout", _TIMEOUT, 5) * MINUTE),
        }
    )


def _read_config(context: Context) -> tuple[str, ...]:
    monitor = context.settings.monitor
    return (f"{context.settings.sms.instance},{int(monitor.urc)},{minutes(monitor.timeout)}",)


def _set_event(given: tuple[str, ...], context: Context) -> Done:
    label = text(given, 0, "label").upper()
    if label not in EVENTS:
        raise bad("<label> is no event", ", ".join(EVENTS))
    event = replace(context.settings.monitor.event[label], on=flag(given, 1, "mode"))
    if len(given) >= _WITH_TYPE:
        event = _with_parameter(label, event, given, context)
    return Done({f"monitor.event.{label}": event})


def _with_parameter(label: str, event: Event, given: tuple[str, ...], context: Context) -> Event:
    type_ = number(given, 2, "paramType", _TYPES)
    if len(given) == _WITH_TYPE:
        raise bad("<param> is missing", 'a value, or "" to erase the command')
    string = text(given, 3, "param")
    if type_ == _COMMAND:
        command = events.read_command(string)
        if command is None:
            raise bad("<param> is no command", f"a command line of at most {events.COMMAND_MAX} characters")
        asker = context.asker
        peer = asker.names[0] if asker.names else ""
        return replace(event, command=command, door=asker.door.value, peer=peer, forgeable=asker.forgeable)
    value = events.read_parameter(label, type_, string)
    if value is None:
        raise bad("<param> is out of range", _shown_ranges(label))
    return replace(event, parameters=(*event.parameters[: type_ - 1], value, *event.parameters[type_:]))


def _read_events(context: Context) -> tuple[str, ...]:
    stored = context.settings.monitor.event
    return tuple(
        events.shown(label, replace(stored[label], command=mask_line(stored[label].command))) for label in EVENTS
    )


def _test_events(_context: Context) -> tuple[str, ...]:
    return tuple(map(_shown_ranges, EVENTS))


def _shown_ranges(label: str) -> str:
    kinds = EVENTS[label]
    allowed = ("" if one is None else shown(one) for one, _default in kinds)
    return ",".join((f'"{label}"', shown(FLAG), shown(range(len(kinds) + 1)), *allowed))


def _confirm(given: tuple[str, ...], context: Context) -> Done:
    id_ = read_number(given[0], tuple(context.running.confirmations))
    if id_ is None:
        raise bad("<id> is none that is open", "one that AT#ATRUNCONFIRM lists")
    return Done(effects=(Confirm(id_),))


def _list_open(_given: tuple[str, ...], context: Context) -> Done:
    return Done(lines=tuple(context.running.confirmations.values()))


ROWS: Final = (
    Row("#ENAEVMONI", set=_set_mod, read=_read_mod, test=ranges(FLAG)),
    Row(
        "#ENAEVMONICFG",
        set=_set_config,
        arguments=(1, 3),
        read=_read_config,
        test=ranges(INSTANCES, FLAG, _TIMEOUT),
    ),
    Row("#EVMONI", set=_set_event, arguments=(2, 4), read=_read_events, test=_test_events),
    Row(
        "#ATRUNCONFIRM",
        set=_confirm,
        read=lambda context: tuple(context.running.confirmations.values()),
        test=nothing,
        execute=_list_open,
        prefix=False,
    ),
)
