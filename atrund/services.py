# SPDX-License-Identifier: Apache-2.0
"""What a setting switches: the SMS door and the TCP server, started and stopped as commands and the file say.

Rules of this file: a service that can't be started keeps its setting (TCP-11), and the asker is told why; the services
go by the settings as they are, so that a change counts without a restart of anything.
"""

from collections.abc import Callable
from typing import Final, Protocol

import structlog

from atrund.atrun.family.forms import CloseTcp, Confirm, Effect, EnterTransparent, Running, Service, ServiceSet
from atrund.atrun.family.services import holders
from atrund.atrun.request import Request
from atrund.atrun.settings import INSTANCES, Settings
from atrund.confirmations import Confirmations
from atrund.doors.sms import SmsDoor
from atrund.doors.tcp import TcpDoor

log = structlog.get_logger()

ABSENT: Final = {Service.TCP_CLIENT: "client mode", Service.MONITOR: "the event monitor"}
"""What this version can't start."""


class Holding(Protocol):
    """Who serves instances while no service has them."""

    def hold(self, instance: int, reason: str) -> None:
        """Answer nobody there any more."""

    def release(self, instance: int) -> None:
        """Serve it again."""


class Services:
    """Holds what runs. `on_change` is told when a door was opened or closed."""

    def __init__(
        self,
        *,
        settings: Callable[[], Settings],
        sms: SmsDoor,
        make_tcp: Callable[[], TcpDoor],
        confirmations: Confirmations,
        on_change: Callable[[], None],
    ) -> None:
        """`sms` runs as long as the daemon, switched on or off."""
        self.sms = sms
        self.tcp: TcpDoor | None = None
        self._switched_by: dict[Service, int] = {}
        self.held: list[Holding] = []
        """Who else has the instances, and gives them up to a service (CMD-3)."""
        self._settings = settings
        self._make_tcp = make_tcp
        self._confirmations = confirmations
        self._on_change = on_change

    async def begin(self) -> None:
        """Start what is switched on. Raises `OSError` when the TCP server can't listen."""
        settings = self._settings()
        if settings.tcp.enabled:
            await self._open_tcp()
        await self.sms.begin(on=settings.sms.enabled)
        self._share_out()
        for service, name in ABSENT.items():
            if {Service.TCP_CLIENT: settings.tcp.client.enabled, Service.MONITOR: settings.monitor.enabled}[service]:
                log.warning("a service is switched on that this version does not have", service=name)

    async def close_tcp(self) -> None:
        """Close the TCP door and end its session."""
        door, self.tcp = self.tcp, None
        if door is not None:
            await door.close()

    def told(self, service: Service) -> int:
        """Return the instance that is told what a service has to say: the one that switched it on, else 1 (CMD-3)."""
        return self._switched_by.get(service, 1)

    def running(self, request: Request) -> Running:  # noqa: ARG002 - who asks will matter once a session is the asker's
        """Return what runs, as a command needs to know it."""
        return Running(listening=self.tcp is not None, confirmations=self._confirmations.lines())

    async def carry_out(self, effect: Effect, request: Request) -> str:
        """Do what a command asked for; returns why it could not be done, or ""."""
        match effect:
            case ServiceSet(service, on, instance, _changed):
                self._switched_by[service] = instance
                return await self._switch(service, on=on, request=request)
            case CloseTcp():
                if self.tcp is not None and self.tcp.session is not None:
                    self.tcp.session.stop()
                return ""
            case Confirm(id_):
                await self._confirmations.confirm(id_)
                return ""
            case EnterTransparent():
                return "there is no way to a serial port in this version"

    def follow(self, before: Settings) -> None:
        """Bring what runs up to date with settings that changed."""
        now = self._settings()
        if self.tcp is not None and now.tcp != before.tcp:
            self.tcp.follow()
        self._share_out()

    def _share_out(self) -> None:
        """Take the instances of the services that are on from whoever else has them, and give the others back."""
        taken = holders(self._settings())
        for holding in self.held:
            for instance in range(1, INSTANCES + 1):
                if instance in taken:
                    holding.hold(instance, " and ".join(service.value for service in taken[instance]))
                else:
                    holding.release(instance)

    async def _switch(self, service: Service, *, on: bool, request: Request) -> str:
        log.info("service set", service=service.value, on=on, id=request.rid, door=request.door.value)
        if service in ABSENT:
            return f"this version does not have {ABSENT[service]}" if on else ""
        try:
            match service, on:
                case Service.TCP_SERVER, True:
                    if self.tcp is None:
                        await self._open_tcp()
                case Service.TCP_SERVER, False:
                    # Not waited for: the session that asked is to see its answer first.
                    door, self.tcp = self.tcp, None
                    if door is not None:
                        door.shut()
                case Service.SMS, _:
                    await self.sms.switch(on=on)
        except OSError as error:
            return str(error)
        self._on_change()
        return ""

    async def _open_tcp(self) -> None:
        door = self._make_tcp()
        await door.start()
        self.tcp = door
