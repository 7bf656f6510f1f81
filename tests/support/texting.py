# SPDX-License-Identifier: Apache-2.0
"""What tests of the SMS door have in common: a box that lives, messages put into its store, what came of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

from atrund.config.values import Config
from atrund.sim.state import Options
from atrund.sim.store import Message, Status
from tests.support.lives import Lives
from tests.support.virtual import FRIEND, House, config, deliver

SIGNAL = "\r\n+CSQ: 14,99\r\n\r\nOK\r\n"
OTHER_PASSWORD = "6543210987654321"
EIGHT_BIT, UCS2, NOTES_DCS = 0x04, 0x08, 0x15
BUSY = "+CMS ERROR: 42"
"""Congestion (TS 24.011 8.2.5.4): it passes."""


def rules(**fields: object) -> Config:
    given = config()
    return replace(given, sms=replace(given.sms, **fields))  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def living(
    given: Config | None = None, options: Options | None = None, *, wait: bool = True
) -> AsyncIterator[tuple[Lives, House]]:
    lives = Lives(given, options)
    yield lives, await lives.start(wait=wait)
    await lives.end()


def put(lives: Lives, text: str = "AT+CSQ", sender: str = FRIEND, *, memory: str = "SM", **fields: object) -> None:
    """Lay a message into the store, announced to nobody."""
    given = deliver(text, sender, at=lives.clock.now(), **fields)  # type: ignore[arg-type]
    assert lives.module.store.add(memory, Message(Status.REC_UNREAD, given.encode())) is not None


def raw(house: House, data: bytes, sender: str = FRIEND, *, dcs: int = EIGHT_BIT) -> None:
    """Bring a message with these octets to the module."""
    house.module.network.deliver(deliver("", sender, dcs=dcs, at=house.clock.now(), data=data).encode())


def show(lives: Lives, text: str = "AT+CSQ") -> None:
    """Let the module show a message that it puts into no store."""
    pdu = deliver(text, at=lives.clock.now()).encode()
    lives.wire.inject(f"\r\n+CMT: ,{len(pdu) - 1 - pdu[0]}\r\n{pdu.hex().upper()}\r\n".encode())


def texts(house: House) -> list[str]:
    return [text for _, text in house.sent]


def refusal(reason: str) -> str:
    return f'\r\n#ATRUN: "{reason}"\r\n\r\nERROR\r\n'


def lying(lives: Lives) -> int:
    return lives.module.store.used("SM") + lives.module.store.used("ME")


def undelivered(house: House) -> list[str | None]:
    return [reason for what, reason in house.told if what == "answer undelivered"]


def tries(lives: Lives, command: bytes = b"AT+CMGS=") -> list[float]:
    """Note when the daemon writes a command, from now on."""
    times: list[float] = []
    plain = lives.wire.on_write

    def on_write(data: bytes) -> bytes:
        if data.startswith(command):
            times.append(round(asyncio.get_running_loop().time()))
        return plain(data)

    lives.wire.on_write = on_write
    return times
