# SPDX-License-Identifier: Apache-2.0
"""The instance's own settings and profiles: `E Q V X`, S-registers, `Z &F &W &Y &P &V`, +CMEE, and what stays unsent.

Sources: ITU-T V.250 6.1 and 6.2, 3GPP TS 27.007 9.1; two profiles as on Telit's modules (ME310G1 p. 23).
"""

from collections.abc import Iterable
from typing import Final

from atrund.at.syntax import Command, Op
from atrund.atrun.family.forms import Context, Done, Refused, Row, bad, number
from atrund.atrun.interface import REGISTERS, Interface
from atrund.atrun.ranges import FLAG
from atrund.atrun.request import Reason

_VIEWS: Final = range(4)


def _digits(given: tuple[str, ...]) -> tuple[str, ...]:
    """A basic command without digits means 0 (V.250 5.3.1)."""
    return given or ("0",)


def _register(name: str) -> Row:
    values = REGISTERS[name]

    def set_(given: tuple[str, ...], context: Context) -> Done:
        read = values.read(given)
        if read is None:
            raise bad(f"{name} has no such value", values.shown())
        return Done(interface=context.interface.with_values(name, read))

    def read(context: Context) -> tuple[str, ...]:
        return (",".join(map(str, context.interface.values(name))),)

    def test(_context: Context) -> tuple[str, ...]:
        return (values.shown(),)

    if not Command(name, Op.SET).extended and name[0] != "S":
        return Row(name, execute=lambda given, context: set_(_digits(given), context))
    if name[0] == "S":  # an S-register is shown as three digits, without its name (V.250 5.3.2)
        return Row(
            name,
            set=lambda given, context: set_(_digits(given), context),
            arguments=(0, 1),
            read=lambda context: (f"{context.interface.value(name):03d}",),
            test=lambda _context: (f"{name}: {values.shown()}",),
            prefix=False,
        )
    return Row(name, set=set_, arguments=(1, len(values.ranges)), read=read, test=test)


def _profile(given: tuple[str, ...]) -> int:
    return number(_digits(given), 0, "profile", FLAG)


def _reset(given: tuple[str, ...], context: Context) -> Done:
    if context.running.data_call:
        raise Refused(Reason.POLICY, "Z: a data call is up on this instance's port; end it first")
    return Done(interface=context.settings.instance[context.instance - 1].load(_profile(given)))


def _factory(given: tuple[str, ...], _context: Context) -> Done:
    _profile(given)
    return Done(interface=Interface())


def _store(given: tuple[str, ...], context: Context) -> Done:
    return Done({f"instance.{context.instance}.profile{_profile(given)}": context.interface})


def _choose(given: tuple[str, ...], context: Context) -> Done:
    return Done({f"instance.{context.instance}.start": _profile(given)})


def _view(given: tuple[str, ...], context: Context) -> Done:
    number(_digits(given), 0, "view", _VIEWS)
    return Done(lines=("ACTIVE PROFILE:", *_view_lines(context.interface)))


def _view_lines(interface: Interface) -> Iterable[str]:
    """Basic settings, S-registers as three digits, the extended ones."""
    registers = [name for name in REGISTERS if name[0] == "S"]
    extended = [name for name in REGISTERS if name[0] == "+"]
    basic = [name for name in REGISTERS if name not in {*registers, *extended}]
    yield " ".join(f"{name}{interface.value(name)}" for name in basic)
    yield " ".join(f"{name}:{interface.value(name):03d}" for name in registers)
    yield " ".join(f"{name}:{','.join(map(str, interface.values(name)))}" for name in extended)


ROWS: Final = (
    *map(_register, REGISTERS),
    Row("Z", execute=_reset),
    Row("&F", execute=_factory),
    Row("&W", execute=_store),
    Row("&Y", execute=_choose),
    Row("&P", execute=_choose),
    Row("&V", execute=_view),
)
