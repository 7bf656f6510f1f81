# SPDX-License-Identifier: Apache-2.0
"""`#SMSATRUN`, `#SMSATRUNCFG`, `#SMSATWL` (commands.md 2)."""

from typing import Final

from atrund.atrun.family.forms import MINUTE, Context, Done, Row, Service, bad, flag, minutes, number, ranges, text
from atrund.atrun.family.services import INSTANCES, refuse_while_on, switch
from atrund.atrun.ranges import FLAG
from atrund.atrun.secrets import Secret
from atrund.atrun.settings import (
    NUMBER,
    PASSWORD_LENGTH,
    PASSWORDS_MAX,
    WHITE_LIST_MAX,
    Entry,
    fits_password,
)

MASKED: Final = "*" * PASSWORD_LENGTH
"""How a password is read back."""
TIMEOUT: Final = range(1, 61)
"""Minutes."""

_ACTIONS: Final = range(3)
_ADD, _DELETE = 0, 1
_SLOTS: Final = range(1, WHITE_LIST_MAX + 1)
_ENTRY_TYPES: Final = FLAG
_PHONE_NUMBER: Final = 0


def _set_mod(given: tuple[str, ...], context: Context) -> Done:
    return switch(Service.SMS, given, context, up=True)


def _set_config(given: tuple[str, ...], context: Context) -> Done:
    refuse_while_on(context.settings, Service.SMS, Service.MONITOR)
    return Done(
        {
            "sms.instance": number(given, 0, "instance", INSTANCES),
            "sms.urc": flag(given, 1, "urcmod", 1),
            "sms.timeout": float(number(given, 2, "timeout", TIMEOUT, 5) * MINUTE),
        }
    )


def _read_config(context: Context) -> tuple[str, ...]:
    sms = context.settings.sms
    return (f"{sms.instance},{int(sms.urc)},{minutes(sms.timeout)}",)


def _set_white_list(given: tuple[str, ...], context: Context) -> Done:
    action = number(given, 0, "action", _ACTIONS)
    slot = number(given, 1, "index", _SLOTS)
    key = f"sms.whitelist.{slot}"
    if action == _DELETE:
        return Done({key: None})
    if action != _ADD:
        return Done(lines=(f"#SMSATWL: {_shown(context.settings.sms.whitelist[slot - 1])}",))
    type_ = number(given, 2, "entryType", _ENTRY_TYPES)
    string = text(given, 3, "string")
    if type_ == _PHONE_NUMBER:
        if NUMBER.fullmatch(string) is None:
            raise bad("<string> is no number", 'digits with an optional "+" before and "*" behind them')
        return Done({key: string})
    if not fits_password(string):
        raise bad("<string> is no password", f"{PASSWORD_LENGTH} printable characters")
    others = context.settings.changed({key: None}).sms.whitelist
    if sum(isinstance(entry, Secret) for entry in others) >= PASSWORDS_MAX:
        raise bad(f"there are {PASSWORDS_MAX} passwords already", "deleting one first")
    return Done({key: Secret(string)})


def _read_white_list(context: Context) -> tuple[str, ...]:
    return tuple(map(_shown, context.settings.sms.whitelist))


def _shown(entry: Entry | None) -> str:
    match entry:
        case None:
            return ""
        case Secret():
            return f'1,"{MASKED}"'
    return f'0,"{entry}"'


ROWS: Final = (
    Row(
        "#SMSATRUN",
        set=_set_mod,
        read=lambda context: (str(int(context.settings.sms.enabled)),),
        test=ranges(FLAG),
    ),
    Row(
        "#SMSATRUNCFG",
        set=_set_config,
        arguments=(1, 3),
        read=_read_config,
        test=ranges(INSTANCES, FLAG, TIMEOUT),
    ),
    Row(
        "#SMSATWL",
        set=_set_white_list,
        arguments=(2, 4),
        read=_read_white_list,
        test=ranges(_ACTIONS, _SLOTS, _ENTRY_TYPES),
    ),
)
