# SPDX-License-Identifier: Apache-2.0
"""Finds the port that a configured name means, each time anew: after a replug it may be another device (MOD-2)."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from atrund.module.channel import Channel
from atrund.module.port import OpenPort, PortError
from atrund.module.turn import LinkLostError, TimedOutError
from atrund.usb.names import ByImei, PortNameError, candidates, decide, network_up, parse_name, resolve
from atrund.usb.sysfs import UsbPort, snapshot

ASK_TIMEOUT: Final = 2.0
"""Seconds for a candidate to tell its IMEI: a module that is up answers at once."""

Snapshot = Callable[[], Iterable[UsbPort]]


class Locator:
    """Resolves one name. `look` takes a snapshot of sysfs; it blocks, and so runs on a thread."""

    def __init__(self, name: str, *, baudrate: int, open_port: OpenPort, look: Snapshot = snapshot) -> None:
        """Raises `PortNameError` for what is no name."""
        self._name = parse_name(name)
        self._baudrate = baudrate
        self._open_port = open_port
        self._look = look
        self._path: Path | None = None

    async def path(self) -> str:
        """Return the path of the port that the name means now. Raises `PortError`, which lists what there is."""
        ports = tuple(await asyncio.get_running_loop().run_in_executor(None, self._look))
        try:
            if isinstance(self._name, ByImei):
                found: UsbPort | Path = decide(self._name, *(await self._ask(self._name, ports)))
            else:
                found = resolve(self._name, ports)
        except PortNameError as error:
            raise PortError(str(error)) from error
        self._path = found if isinstance(found, Path) else found.path
        return str(self._path)

    def carries_data(self) -> bool:
        """Return whether a network interface on the port's USB device is up (MOD-8); blocking, but sysfs is memory."""
        return self._path is not None and network_up(self._look(), self._path)

    async def _ask(self, name: ByImei, ports: Iterable[UsbPort]) -> tuple[tuple[UsbPort, ...], dict[Path, str]]:
        asked = candidates(name, ports)
        answers = {port.path: await self._identity(str(port.path)) for port in asked}
        return asked, {path: answer for path, answer in answers.items() if answer}

    async def _identity(self, path: str) -> str:
        """Return what the module on a port says to +CGSN, "" if nothing."""
        channel = Channel(unsolicited=lambda _: None, on_lost=lambda _: None)
        try:
            channel.attach(await self._open_port(path, self._baudrate, channel))
        except PortError:
            return ""
        try:
            async with channel.turn("daemon") as turn:
                await turn.ask("ATE0V1Q0", ASK_TIMEOUT)
                answer = await turn.ask("AT+CGSN", ASK_TIMEOUT)
        except (LinkLostError, TimedOutError):
            return ""
        finally:
            channel.close()
        return answer.lines[0] if answer.lines else ""
