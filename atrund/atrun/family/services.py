# SPDX-License-Identifier: Apache-2.0
"""Switching services on and off, and what they share: who holds which instance (CMD-2)."""

from typing import Final

from atrund.atrun.family.forms import Context, Done, Refused, Service, ServiceSet, flag
from atrund.atrun.request import Reason
from atrund.atrun.settings import Settings

INSTANCES: Final = range(1, 4)
"""What <instance> may be: 1 too, with a warning."""

_ENABLED: Final = {
    Service.SMS: "sms.enabled",
    Service.MONITOR: "monitor.enabled",
    Service.TCP_SERVER: "tcp.enabled",
    Service.TCP_CLIENT: "tcp.client.enabled",
}
_SHARING: Final = (Service.SMS, Service.MONITOR)
_TCP: Final = (Service.TCP_SERVER, Service.TCP_CLIENT)


def is_on(settings: Settings, *services: Service) -> bool:
    """Whether one of these services is on."""
    return any(settings.value(_ENABLED[service]) for service in services)


def instance_of(settings: Settings, service: Service) -> int:
    """Return the instance that a service takes while it is on."""
    return settings.sms.instance if service in _SHARING else settings.tcp.instance


def holders(settings: Settings) -> dict[int, tuple[Service, ...]]:
    """Return which services hold which instance (CMD-3)."""
    held: dict[int, tuple[Service, ...]] = {}
    for service in Service:
        if is_on(settings, service):
            number = instance_of(settings, service)
            held[number] = (*held.get(number, ()), service)
    return held


def clashes(settings: Settings) -> str:
    """Return which services that can't share an instance are on one (CMD-2), or ""."""
    for number, services in holders(settings).items():
        if not any(set(services) <= set(sharing) for sharing in (_SHARING, _TCP)):
            return f"instance {number} would be held by {' and '.join(service.value for service in services)}"
    return ""


def refuse_while_on(settings: Settings, *services: Service) -> None:
    """Raise `Refused` while one of these services is on."""
    for service in services:
        if is_on(settings, service):
            raise Refused(Reason.POLICY, f"not while the {service.value} service is on; switch it off first")


def switch(service: Service, given: tuple[str, ...], context: Context, *, up: bool) -> Done:
    """Set `<mod>`. `up`: the service does what it is on for, so that there is nothing to start."""
    settings = context.settings
    on = flag(given, 0, "mod")
    changed = on != is_on(settings, service)
    warnings: tuple[str, ...] = ()
    if on:
        number = instance_of(settings, service)
        _refuse_taken(service, number, context)
        if number == 1 and changed:
            warnings = (f"the {service.value} service takes instance 1: there is no local control on it any more",)
    start = changed or (on and not up)
    effects = (ServiceSet(service, on, context.instance, changed),) if start else ()
    return Done({_ENABLED[service]: on}, effects=effects, warnings=warnings)


def _refuse_taken(service: Service, number: int, context: Context) -> None:
    sharing = _SHARING if service in _SHARING else _TCP
    if service in _TCP:
        refuse_while_on(context.settings, *(other for other in _TCP if other is not service))
    others = [other.value for other in holders(context.settings).get(number, ()) if other not in sharing]
    holder = others[0] if others else context.running.held.get(number)
    if holder is not None:
        raise Refused(Reason.HELD, f"instance {number} is held by {holder}; another instance would be right")
