# SPDX-License-Identifier: Apache-2.0
"""The local door: the control socket that atrunctl talks to."""

import asyncio
import contextlib
import os
import socket
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog

from atrund import control
from atrund.atrun.instance import final_words
from atrund.atrun.request import Door, End, Outcome, Reason, Request
from atrund.doors.rights import Peer, group_id, how_to_join, peer_of
from atrund.module.port import PortError
from atrund.run import Run
from atrund.runner import Runner

log = structlog.get_logger()

Administer = Callable[[control.Reading | control.Administering, str], Awaitable[control.Answer]]
"""Carries out what is no command line, for a peer that may, and answers."""


class Loan(Protocol):
    """The module's ports, lent: the first one's device. `over` is set when the time is."""

    path: str
    over: asyncio.Event

    def give_back(self) -> None:
        """Give them back; for the second time nothing happens."""


Lend = Callable[[str, float], Awaitable[Loan]]
Record = Callable[[str, str], None]
"""Lends the module's ports to a peer for so many seconds. Raises `PortError`."""


async def lends_nothing(_who: str, _seconds: float) -> Loan:
    """Refuse to lend, where there is nothing to lend."""
    raise PortError("nothing is lent here")


CONNECTIONS_MAX: Final = 16
"""Clients at once: operators and scripts, each short."""
OF_ONE_USER_MAX: Final = 8
"""Of these, of a user other than root and the daemon's own: nobody keeps an operator out by sitting there."""
SLOW_READER: Final = 30.0


@dataclass(frozen=True, slots=True)
class Rights:
    """Whose members may do what, by name and by number; no group: everybody."""

    status_name: str = ""
    command_name: str = ""
    status: int | None = None
    command: int | None = None

    def against_status(self, peer: Peer) -> str:
        """Return why a peer may not read the status and what it types to be allowed to, or ""."""
        if peer.is_in(self.status) or not self.against_commands(peer):
            return ""
        return f"reading the status is for the group {self.status_name}:  {how_to_join(self.status_name)}"

    def against_commands(self, peer: Peer) -> str:
        """Return why a peer may not run commands and what it types to be allowed to, or ""."""
        if peer.is_in(self.command):
            return ""
        return f"running commands is for the group {self.command_name}:  {how_to_join(self.command_name)}"


class LocalDoor:
    """Serves the control socket until closed.

    Who may connect is for the socket's `mode` and `group` to say. Of these, members of `status_group` may read the
    status, and members of `command_group` that, run commands and administer; "" is everybody who connects. Root and
    the daemon's own user always may.
    """

    def __init__(
        self,
        path: Path,
        *,
        mode: int,
        group: str,
        runner: Runner,
        status: Callable[[], Awaitable[dict[str, object]]],
        administer: Administer,
        lend: Lend = lends_nothing,
        status_group: str = "",
        command_group: str = "",
        given: socket.socket | None = None,
        record: Record | None = None,
    ) -> None:
        """`given` is a socket that listens there already, whose mode and group are for those to say who gave it.

        `record` is told who was refused what is no request; by default it is logged.
        """
        self._record = record or _log
        self._given = given
        self._path = path
        self._mode = mode
        self._group = group
        self._groups = (status_group, command_group)
        self._rights = Rights()
        self._runner = runner
        self._status = status
        self._administer = administer
        self._lend = lend
        self._server: asyncio.Server | None = None
        self._clients: dict[asyncio.Task[None], int] = {}

    async def start(self) -> None:
        """Open the socket. Raises `OSError`; a socket that another daemon still serves is left alone."""
        status_group, command_group = self._groups
        self._rights = Rights(
            status_group,
            command_group,
            group_id(status_group, "local.status_group"),
            group_id(command_group, "local.command_group"),
        )
        if self._given is not None:
            # Not as a unix server: asyncio takes the paths of those away at their end, from Python 3.13 on.
            self._server = await asyncio.start_server(self._come, sock=self._given, limit=control.LINE_MAX)
            return
        if _is_served(self._path):
            raise OSError(f"{self._path}: another daemon serves it already")
        group = group_id(self._group, "local.group")
        mask = os.umask(0o177)  # nobody else gets in before group and mode are set
        try:
            # A socket that nobody serves any more is replaced by asyncio; any other file is not touched.
            self._server = await asyncio.start_unix_server(self._come, str(self._path), limit=control.LINE_MAX)
        finally:
            os.umask(mask)
        if group is not None:
            os.chown(self._path, -1, group)
        self._path.chmod(self._mode)

    async def close(self) -> None:
        """Close the socket and take it away; one that was given stays, for who connects meanwhile to wait there."""
        if self._server is None:
            return
        self._server.close()
        for task in self._clients:
            task.cancel()
        if self._clients:
            await asyncio.wait(self._clients, timeout=2.0)
        if self._given is None:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()

    async def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine of a server runs in a task
        peer = peer_of(writer.get_extra_info("socket"))
        crowd = sum(user == peer.uid for user in self._clients.values())
        full = f"{CONNECTIONS_MAX} clients are" if len(self._clients) >= CONNECTIONS_MAX else ""
        if not peer.is_trusted and crowd >= OF_ONE_USER_MAX:
            full = f"{OF_ONE_USER_MAX} clients of {peer} are"
        if full:
            writer.write(control.encode(control.ErrorAnswer(f"{full} connected already")))
            writer.close()
            return
        client = _Client(
            reader,
            writer,
            self._runner,
            status=self._status,
            administer=self._administer,
            lend=self._lend,
            rights=self._rights,
            record=self._record,
        )
        self._clients[task] = peer.uid
        try:
            await client.serve()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            del self._clients[task]
            client.leave()
            writer.close()


class _Client:
    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        runner: Runner,
        *,
        status: Callable[[], Awaitable[dict[str, object]]],
        administer: Administer,
        lend: Lend,
        rights: Rights,
        record: Record,
    ) -> None:
        self._record = record
        self._reader = reader
        self._writer = writer
        self._runner = runner
        self._status = status
        self._administer = administer
        self._lend = lend
        self._borrowing: asyncio.Task[None] | None = None
        self._run: Run | None = None
        self._answering: asyncio.Task[None] | None = None
        self._peer = peer_of(writer.get_extra_info("socket"))
        self._may_not = (rights.against_status(self._peer), rights.against_commands(self._peer))

    async def serve(self) -> None:
        while True:
            try:
                line = await self._reader.readline()
            except ValueError:  # a line over the limit: what follows can't be told from its rest
                await self._say(control.ErrorAnswer(f"a line is at most {control.LINE_MAX} octets"))
                return
            if not line.endswith(b"\n"):
                return
            try:
                request = control.decode_request(line)
            except control.ControlError as error:
                await self._say(control.ErrorAnswer(str(error)))
                continue
            await self._act(request)

    def leave(self) -> None:
        """Take back what the client asked for, now that it is gone."""
        if self._run is not None:
            self._run.give_up()
        for task in (self._answering, self._borrowing):
            if task is not None:
                task.cancel()

    async def _act(self, request: control.Request) -> None:
        no_status, no_commands = self._may_not
        if isinstance(request, control.Reading | control.Administering):
            why_not = no_status if isinstance(request, control.Reading) else no_commands
            await self._say(await self._administered(request, why_not))
            return
        match request:
            case control.StatusRequest() if no_status:
                self._record(str(self._peer), "status refused")
                await self._say(control.ErrorAnswer(no_status))
            case control.StatusRequest():
                await self._say(control.StatusAnswer(await self._status()))
            case control.CancelRequest():
                if self._run is not None:
                    self._run.give_up()
                else:
                    await self._say(control.ErrorAnswer("no command runs on this connection"))
            case control.LendRequest() if no_commands:
                self._record(str(self._peer), "port not lent")
                await self._say(control.ErrorAnswer(no_commands))
            case control.LendRequest() if self._borrowing is not None:
                await self._say(control.ErrorAnswer("the port was asked for already on this connection"))
            case control.LendRequest(seconds):
                self._borrowing = asyncio.get_running_loop().create_task(self._borrow(seconds))
            case control.AtRequest() if no_commands:  # it is written down as any that is refused
                self._runner.start(
                    self._asked(request), refused=Outcome(End.REJECTED, Reason.AUTH, detail="not in the group for it")
                )
                await self._say(control.ErrorAnswer(no_commands))
            case control.AtRequest():
                if self._run is not None:
                    await self._say(control.ErrorAnswer("a command runs already on this connection"))
                    return
                self._run = self._runner.start(self._asked(request))
                self._answering = asyncio.get_running_loop().create_task(self._answer(self._run, request.id))

    async def _borrow(self, seconds: int) -> None:
        """Have the ports until the client goes, which cancels this, and say when the time is over."""
        try:
            loan = await self._lend(str(self._peer), seconds)
        except PortError as error:
            self._borrowing = None
            await self._say(control.ErrorAnswer(str(error)))
            return
        try:
            await self._say(control.LentAnswer(loan.path))
            await loan.over.wait()
            await self._say(control.LentAnswer(loan.path, over=True))
        finally:
            loan.give_back()

    async def _administered(self, request: control.Reading | control.Administering, why_not: str) -> control.Answer:
        if why_not:
            self._record(str(self._peer), "administration refused")
            return control.ErrorAnswer(why_not)
        return await self._administer(request, str(self._peer))

    def _asked(self, request: control.AtRequest) -> Request:
        return Request(
            rid=uuid.uuid4().hex,
            door=Door.LOCAL,
            peer=str(self._peer),
            line=request.cmd,
            timeout=request.timeout_ms / 1000,
            context={"id": request.id},
        )

    async def _answer(self, run: Run, correlation: str | None) -> None:
        if await asyncio.shield(run.accepted):
            await self._say(control.AcceptedAnswer(run.request.rid, correlation))
        async for line in run.lines():
            await self._say(control.LineAnswer(line.text))
        outcome = await asyncio.shield(run.outcome)
        self._run = None
        if outcome is not None:
            await self._say(
                control.FinalAnswer(
                    state=outcome.end.value,
                    final=final_words(outcome, 1),
                    reason=outcome.reason.value if outcome.reason else None,
                    duration_ms=outcome.duration_ms,
                    rid=run.request.rid,
                    detail=outcome.detail or None,
                )
            )

    async def _say(self, answer: control.Answer) -> None:
        try:
            line = control.encode(answer)
        except control.ControlError as error:
            line = control.encode(control.ErrorAnswer(f"the answer is too long; ask for less at once: {error}"))
        self._writer.write(line)
        try:
            async with asyncio.timeout(SLOW_READER):
                await self._writer.drain()
        except (TimeoutError, OSError):  # it does not read, or is gone: reading from it ends too then
            self._writer.transport.abort()


def _log(peer: str, what: str) -> None:
    log.info(what, door=Door.LOCAL.value, peer=peer)


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True
