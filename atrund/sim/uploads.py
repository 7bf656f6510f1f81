# SPDX-License-Identifier: Apache-2.0
"""Commands that take data behind a prompt and send it somewhere, known where the quirk `data_prompts` is on.

Their sockets, servers and files are taken for granted: what counts here is the prompt and its data.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from atrund.at.syntax import Command, Op, unquote
from atrund.sim.steps import BAD_PARAMETER, Handler, Prompt, Refused, Step, number, parameters

if TYPE_CHECKING:  # for the annotations alone
    from atrund.sim.port import SimPort

UPLOADS_CAP: Final = 64
"""Uploads remembered, the newest."""

SOCKETS: Final = range(1, 7)
SOCKET_BYTES: Final = range(1, 1501)
"""What #SSENDEXT takes at once (LE910 V2 AT reference, #SSENDEXT)."""

FILE_BYTES: Final = range(1, 65537)
PROFILES: Final = range(3)


@dataclass(frozen=True, slots=True)
class Upload:
    """What was sent behind a prompt: the command as it was given, and the data."""

    command: str
    data: bytes

    def record(self) -> dict[str, object]:
        """Return it as the control socket lists it."""
        return {"command": self.command, "size": len(self.data), "data": self.data.hex().upper()}


def send(port: "SimPort", command: Command) -> Iterator[Step]:
    """#SSEND=<connId>: a text prompt."""
    if command.op is not Op.TEST:
        number(parameters(_set(command), 1)[0], SOCKETS)
        yield from _upload(port, command, Prompt())


def send_extended(port: "SimPort", command: Command) -> Iterator[Step]:
    """#SSENDEXT=<connId>,<bytes>[,<rai>]: a prompt that looks like a text one, and counts."""
    if command.op is Op.TEST:
        yield "#SSENDEXT: (1-6),(1-1500)"
        return
    given = parameters(_set(command), 3, 2)
    number(given[0], SOCKETS)
    yield from _upload(port, command, Prompt(number(given[1], SOCKET_BYTES), as_text=True))


def send_http(port: "SimPort", command: Command) -> Iterator[Step]:
    """#HTTPSND=<profile>,<command>,<resource>,<bytes>[,<type>[,<header>]]: counted; the server's word follows."""
    if command.op is Op.TEST:
        yield "#HTTPSND: (0-2),(0-1)"
        return
    given = parameters(_set(command), 6, 4)
    profile = number(given[0], PROFILES)
    number(given[1], range(2))
    yield from _upload(port, command, Prompt(number(given[3], FILE_BYTES)))
    port.after_final(lambda: port.urc(f'#HTTPRING: {profile},200,"text/html",0'))


def write_file(port: "SimPort", command: Command) -> Iterator[Step]:
    """#M2MWRITE="<name>",<bytes>[,<binary>]: counted."""
    if command.op is Op.TEST:
        return
    given = parameters(_set(command), 3, 2)
    if not 0 < len(unquote(given[0])) <= 64:
        raise Refused(BAD_PARAMETER)
    yield from _upload(port, command, Prompt(number(given[1], FILE_BYTES)))


HANDLERS: Final[dict[str, Handler]] = {
    "#SSEND": send,
    "#SSENDEXT": send_extended,
    "#HTTPSND": send_http,
    "#M2MWRITE": write_file,
}


def _set(command: Command) -> Command:
    if command.op is not Op.SET:
        raise Refused
    return command


def _upload(port: "SimPort", command: Command, prompt: Prompt) -> Iterator[Step]:
    yield prompt
    port.module.uploads.append(Upload(str(command), prompt.data))
