# SPDX-License-Identifier: Apache-2.0
"""What a setting switches: SMS door, TCP server, event monitor, started and stopped as commands and the file say.

Rules of this file: a service that can't be started keeps its setting (TCP-11), and the asker is told why; the services
go by the settings as they are, so that a change counts without a restart of anything.
"""

from collections.abc import Callable
from typing import Final, Protocol

import structlog

from atrund.atrun.family.forms import CloseTcp, Confirm, Effect, EnterTransparent, Running, Service, ServiceSet
from atrund.atrun.family.services import holders, is_on
from atrund.atrun.request import Door, Request
from atrund.atrun.settings import INSTANCES, Settings
from atrund.confirmations import Confirmations
from atrund.doors.monitor import MonitorDoor
from atrund.doors.sms import SmsDoor
from atrund.doors.tcp import TcpDoor

log = structlog.get_logger()

ABSENT: Final = {Service.TCP_CLIENT: "client mode"}
"""What this version can't start."""


_DOORS: Final = {Service.SMS: Door.SMS, Service.TCP_SERVER: Door.TCP}


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
        monitor: MonitorDoor,
        confirmations: Confirmations,
        on_change: Callable[[], None],
    ) -> None:
        """`sms` and `monitor` run as long as the daemon, switched on or off."""
        self.sms = sms
        self.tcp: TcpDoor | None = None
        self._switched_by: dict[Service, int] = {}
        self.held: list[Holding] = []
        """Who else has the instances, and gives them up to a service (CMD-3)."""
        self.closed: set[Door] = set()
        """Which doors an operator keeps closed, whatever their settings say, until they are opened or a restart."""
        self._settings = settings
        self._make_tcp = make_tcp
        self._monitor = monitor
        self._confirmations = confirmations
        self._on_change = on_change

    async def begin(self, *, must_listen: bool = True) -> None:
        """Start what is switched on. Raises `OSError` when the TCP server can't listen and must."""
        settings = self._settings()
        if settings.tcp.enabled:
            try:
                await self._open_tcp()
            except OSError as error:
                if must_listen:
                    raise
                log.error("tcp door stays shut", detail=str(error))  # noqa: TRY400 - said whole
        await self.sms.begin(on=settings.sms.enabled)
        self._share_out()
        self._monitor.follow()
        for service, name in ABSENT.items():
            if is_on(settings, service):
                log.warning("a service is switched on that this version does not have", service=name)

    async def close_tcp(self) -> None:
        """Close the TCP door and end its session."""
        door, self.tcp = self.tcp, None
        if door is not None:
            await door.close()

    async def close(self, door: Door) -> None:
        """Close a door at once and keep it closed; what its setting says is left as it is."""
        self.closed.add(door)
        match door:
            case Door.TCP:
                await self.close_tcp()
            case Door.SMS:
                await self.sms.switch(on=False)
        self._on_change()

    async def open(self, door: Door) -> str:
        """Let a door be as its setting says again; returns why it could not be, or ""."""
        self.closed.discard(door)
        return await self.settle(self._settings())

    async def settle(self, before: Settings) -> str:
        """Start and stop doors so that they are as the settings say, whatever changed; returns what failed, or ""."""
        now = self._settings()
        why = ""
        if self.tcp is not None and (not now.tcp.enabled or now.tcp.port != before.tcp.port):
            await self.close_tcp()
        if self.tcp is None and now.tcp.enabled and Door.TCP not in self.closed:
            try:
                await self._open_tcp()
            except OSError as error:
                why = str(error)
        await self.sms.switch(on=now.sms.enabled and Door.SMS not in self.closed)
        self._on_change()
        return why

    def told(self, service: Service) -> int:
        """Return the instance that is told what a service has to say: the one that switched it on, else 1 (CMD-3)."""
        return self._switched_by.get(service, 1)

    def running(self, request: Request) -> Running:  # noqa: ARG002 - who asks will matter once a session is the asker's
        """Return what runs, as a command needs to know it."""
        return Running(
            listening=self.tcp is not None, monitoring=self._monitor.on, confirmations=self._confirmations.lines()
        )

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
        self._monitor.follow()
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
        door = _DOORS.get(service)
        if on and door in self.closed:
            return _closed(door)
        try:
            match service, on:
                case Service.TCP_SERVER, True:
                    if self.tcp is None:
                        await self._open_tcp()
                case Service.TCP_SERVER, False:
                    # Not waited for: the session that asked is to see its answer first.
                    shut, self.tcp = self.tcp, None
                    if shut is not None:
                        shut.shut()
                case Service.SMS, _:
                    await self.sms.switch(on=on)
        except OSError as error:
            return str(error)
        self._on_change()
        return ""

    async def _open_tcp(self) -> None:
        door = self._make_tcp()
        try:
            await door.start()
            if Door.TCP in self.closed:  # meanwhile
                raise OSError(_closed(Door.TCP))
        except OSError:
            door.shut()  # the addresses that it could have
            raise
        self.tcp = door


def _closed(door: Door) -> str:
    return f"an operator closed the {door.value} door; atrunctl doors open {door.value} opens it"
