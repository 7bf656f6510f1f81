# SPDX-License-Identifier: Apache-2.0
"""What a setting switches: SMS door, TCP server and client, event monitor, as commands, the file and the bearer say.

Rules of this file: a service that can't be started keeps its setting (TCP-11), and the asker is told why; the services
go by the settings as they are, so that a change counts without a restart of anything.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from atrund.atrun.family.forms import CloseTcp, Confirm, Effect, EnterTransparent, Running, Service, ServiceSet
from atrund.atrun.family.services import holders
from atrund.atrun.request import Door, Request
from atrund.atrun.settings import INSTANCES, Login, Settings
from atrund.bearer import Bearer
from atrund.confirmations import Confirmations
from atrund.doors.monitor import MonitorDoor
from atrund.doors.sms import SmsDoor
from atrund.doors.tcp import TcpDoor

if TYPE_CHECKING:  # few call
    from atrund.doors.client import ClientDoor
    from atrund.doors.connection import Connection
    from atrund.doors.transparent import Transparent

log = structlog.get_logger()

_DOORS: Final = {Service.SMS: Door.SMS, Service.TCP_SERVER: Door.TCP, Service.TCP_CLIENT: Door.TCP}


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
        make_client: Callable[[], "ClientDoor"],
        bearer: Bearer,
        monitor: MonitorDoor,
        confirmations: Confirmations,
        on_change: Callable[[], None],
        transparent: "Transparent | None" = None,
    ) -> None:
        """`sms` and `monitor` run as long as the daemon, switched on or off. `transparent`: the way to serial ports."""
        self.sms = sms
        self.tcp: TcpDoor | None = None
        self.client: ClientDoor | None = None
        """Client mode, once it was on."""
        self.bearer = bearer
        bearer.on_change = self._bearer_changed
        self._switched_by: dict[Service, int] = {}
        self.held: list[Holding] = []
        """Who else has the instances, and gives them up to a service (CMD-3)."""
        self.closed: set[Door] = set()
        """Which doors an operator keeps closed, whatever their settings say, until they are opened or a restart."""
        self._settings = settings
        self._make_tcp = make_tcp
        self._make_client = make_client
        self._monitor = monitor
        self._confirmations = confirmations
        self._on_change = on_change
        self._transparent = transparent
        self._shut_doors: list[TcpDoor] = []
        """Servers that take nobody any more, and whose sessions wait for an answer."""
        self._listens_on = 0
        """What the setting of the TCP door's port was when it was opened."""
        self._awaited: object = None
        """The session whose end the door waits for to move."""
        self._moves: set[asyncio.Task[None]] = set()

    async def begin(self, *, must_listen: bool = True) -> None:
        """Start what is switched on. Raises `OSError` when the TCP server can't listen and must."""
        if why := await self._open_if_wanted():
            if must_listen:
                raise OSError(why)
            log.error("tcp door stays shut", detail=why)
        await self.sms.begin(on=self._settings().sms.enabled)
        self._share_out()
        self._monitor.follow()
        self._settle_client()

    def tcp_status(self) -> dict[str, object]:
        """Return what `atrunctl status` shows of the TCP server."""
        door = self.tcp
        if door is None:
            return {"state": "off", "ports": [], "peer": "", "peers": [], "kept_out": 0}
        ports, peers = list(door.ports), [session.peer for session in door.sessions]
        return {"state": "open", "ports": ports, "peer": door.peer, "peers": peers, "kept_out": door.kept_out}

    def client_status(self) -> dict[str, object]:
        """Return what `atrunctl status` shows of client mode."""
        return {"state": "off"} if self.client is None else self.client.status()

    async def close_tcp(self) -> None:
        """Close the TCP door, be it server or client, and end its session."""
        doors, self.tcp, self._shut_doors = self._doors, None, []
        for door in doors:
            await door.close()
        if self.client is not None:
            await self.client.close()

    @property
    def _doors(self) -> list[TcpDoor]:
        return [*self._shut_doors, *([] if self.tcp is None else [self.tcp])]

    def leave(self) -> None:
        """Let nobody in over TCP any more, whatever its bearer does; who is in goes behind the answer it awaits."""
        self.bearer.on_change = lambda: None
        self.closed.add(Door.TCP)
        self._shut()
        self._settle_client()

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
        if self.tcp is not None and (not now.tcp.enabled or now.tcp.port != before.tcp.port):
            await self.close_tcp()
        why = await self._open_if_wanted()
        self._settle_client()
        await self.sms.switch(on=now.sms.enabled and Door.SMS not in self.closed)
        self._on_change()
        return why

    async def catch_up(self, before: Settings) -> str:
        """Be as a file says that was read anew; returns what failed, or "".

        Whoever is in over TCP stays, unless the file shuts them out, has no such login any more or has the door off:
        then the session ends behind the answer that it waits for.
        """
        now, why = self._settings(), ""
        if self.tcp is not None and not now.tcp.enabled:
            self._shut()
        elif self.tcp is not None:
            self.tcp.follow()
            self.tcp.put_out(lambda name: _logins(before, name) != _logins(now, name))
            why = await self._move_tcp()
        else:
            why = await self._open_if_wanted()
        self._settle_client()
        if self.client is not None:
            self.client.follow()
        await self.sms.switch(on=now.sms.enabled and Door.SMS not in self.closed)
        self._on_change()
        return why

    def told(self, service: Service) -> int:
        """Return the instance that is told what a service has to say: the one that switched it on, else 1 (CMD-3)."""
        return self._switched_by.get(service, 1)

    def running(self) -> Running:
        """Return what runs, as a command needs to know it."""
        return Running(
            listening=self.tcp is not None,
            client=0 if self.client is None else self.client.stat,
            connected=self.client is not None and self.client.is_up,
            monitoring=self._monitor.on,
            confirmations=self._confirmations.lines(),
            serial_ports=tuple(self._serial_rates),
            serial_rates=self._serial_rates,
        )

    async def carry_out(self, effect: Effect, request: Request) -> str:
        """Do what a command asked for; returns why it could not be done, or ""."""
        match effect:
            case ServiceSet(service, on, instance, _changed):
                self._switched_by[service] = instance
                return await self._switch(service, on=on, request=request)
            case CloseTcp():
                for door in self._doors:
                    door.hang_up(request.rid)
                if self.client is not None:
                    self.client.hang_up(request.rid)
                return ""
            case Confirm(id_):
                await self._confirmations.confirm(id_)
                return ""
            case EnterTransparent():
                if self._transparent is None:
                    return "no serial port is configured: tcp.serial"
                return self._transparent.begin(effect, request, self._sessions())

    async def outcome(self, effect: Effect) -> str:
        """Wait for what `carry_out` only began; returns why it failed, or ""."""
        match effect:
            case ServiceSet(Service.TCP_CLIENT, True) if self.client is not None:
                return await self.client.outcome()
            case EnterTransparent() if self._transparent is not None:
                return await self._transparent.outcome(effect)
        return ""

    def follow(self, before: Settings) -> None:
        """Bring what runs up to date with settings that changed."""
        now = self._settings()
        if self.tcp is not None and now.tcp != before.tcp:
            self.tcp.follow()
        if self.client is not None and now.tcp != before.tcp:
            self.client.follow()
        self._monitor.follow()
        self._share_out()

    def _sessions(self) -> "list[Connection]":
        calls = [] if self.client is None or self.client.session is None else [self.client.session]
        return calls if self.tcp is None else [*calls, *self.tcp.sessions]

    @property
    def _serial_rates(self) -> Mapping[int, tuple[int, ...]]:
        return {} if self._transparent is None else self._transparent.ports.rates

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
        asked = {"id": request.rid, "door": request.door.value, "peer": request.peer}
        log.info("service set", service=service.value, on=on, **asked)
        door = _DOORS.get(service)
        if on and door in self.closed:
            return _closed(door)
        try:
            match service, on:
                case Service.TCP_SERVER, True:
                    if self.tcp is None:
                        await self._open_tcp()
                case Service.TCP_SERVER, False:
                    self._shut()  # not waited for: the session that asked is to see its answer first
                case Service.TCP_CLIENT, True:
                    self._call()
                case Service.TCP_CLIENT, False:
                    self._settle_client()
                case Service.SMS, _:
                    await self.sms.switch(on=on)
        except OSError as error:
            return str(error)
        self._on_change()
        return ""

    @property
    def _may_listen(self) -> bool:
        return self._settings().tcp.enabled and Door.TCP not in self.closed and self.bearer.up

    def _settle_client(self) -> None:
        """Have client mode on or off, as its setting and the operator say."""
        on = self._settings().tcp.client.enabled and Door.TCP not in self.closed
        if on and (self.client is None or not self.client.is_on):
            with contextlib.suppress(OSError):  # it waits for the bearer
                self._call()
        elif not on and self.client is not None:
            self.client.switch_off()

    def _call(self) -> None:
        """Have client mode call now. Raises `OSError` where it has to wait for the bearer."""
        if self.client is None:
            self.client = self._make_client()
        self.client.switch_on(bearer=self.bearer.up)
        if not self.bearer.up:
            raise OSError(_no_bearer(self.bearer))

    def _bearer_changed(self) -> None:
        log.info("bearer up" if self.bearer.up else "bearer down", detail=self.bearer.detail or None)
        if self.client is not None:
            self.client.bearer_is(up=self.bearer.up)
        if self.bearer.up:
            self._soon(self._listen_again(), "tcp door opens")
        elif (door := self.tcp) is not None:
            self.tcp = None
            self._soon(door.close(), "tcp door closes")
        self._on_change()

    async def _listen_again(self) -> None:
        if self.tcp is None:
            if why := await self._open_if_wanted():
                log.error("tcp door stays shut", detail=why)
            if not self._may_listen:  # switched off while it was opened
                self._shut()
            self._on_change()

    async def _open_if_wanted(self) -> str:
        """Open the TCP server where it is to be and is not; returns why it can't be, or ""."""
        if self.tcp is None and self._may_listen:
            try:
                await self._open_tcp()
            except OSError as error:
                return str(error)
        return ""

    def _shut(self) -> None:
        """Close the TCP server to others; who is in has its answer first, and is in reach until then."""
        door, self.tcp = self.tcp, None
        if door is not None:
            door.shut()
            self._shut_doors = [one for one in (*self._shut_doors, door) if one.sessions]

    def _soon(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._moves.add(task)
        task.add_done_callback(self._moves.discard)

    async def _move_tcp(self) -> str:
        """Listen on the port that is set, once nobody is in; returns why it can't be had, or "": the old one stays."""
        port, door = self._settings().tcp.port, self.tcp
        if door is None or port == self._listens_on:
            return ""
        if self._may_move(door):
            other = self._make_tcp()
            try:
                await other.start()
            except OSError as error:
                other.shut()
                return str(error)
            if self._may_move(door):
                self.tcp, self._listens_on = other, port
                door.shut()
                return ""
            other.shut()
        session = door.session
        if door is self.tcp and session is not None and session is not self._awaited:
            log.info("the tcp door moves to its other port when the session is over", peer=door.peer)
            self._awaited = session
            session.ended.add_done_callback(self._move_later)
        return ""

    def _may_move(self, door: TcpDoor) -> bool:
        return door is self.tcp and door.session is None

    def _move_later(self, _: object) -> None:
        async def move() -> None:
            if why := await self._move_tcp():
                log.error("the tcp door stays on its port", detail=why)
            self._on_change()

        self._soon(move(), "tcp door moves")

    async def _open_tcp(self) -> None:
        if not self.bearer.up:
            raise OSError(_no_bearer(self.bearer))
        self._listens_on = self._settings().tcp.port
        door = self._make_tcp()
        try:
            await door.start()
            if Door.TCP in self.closed:  # meanwhile
                raise OSError(_closed(Door.TCP))
            if not self.bearer.up:
                raise OSError(_no_bearer(self.bearer))
        except OSError:
            door.shut()  # the addresses that it could have
            raise
        if self.tcp is not None:  # opened by another meanwhile
            self.tcp.shut()
        self.tcp = door


def _logins(settings: Settings, name: str) -> list[Login]:
    return [login for login in settings.tcp.logins if login.name == name]


def _no_bearer(bearer: Bearer) -> str:
    return f"the bearer is not up: {bearer.detail}"


def _closed(door: Door) -> str:
    return f"an operator closed the {door.value} door; atrunctl doors open {door.value} opens it"
