# SPDX-License-Identifier: Apache-2.0
"""What blocks, on a thread that nobody waits for at a stop: looking a name up may take minutes."""

import asyncio
import itertools
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from atrund.broker.settings import BrokerSettings

HANGING_MAX: Final = 16
"""Threads that may hang at once: more than minutes of a name service's silence make, at five brokers in turn."""


async def apart(work: Callable[[], None]) -> None:
    """Do the work on a thread of its own. Raises what it raises; who is cancelled leaves it behind.

    Raises `OSError` also where too many were left behind and hang still.
    """
    if sum(thread.name == _NAME for thread in threading.enumerate()) >= HANGING_MAX:
        raise OSError(f"{HANGING_MAX} calls before this one hang still, in looking a name up or reading a file")
    done: Future[None] = Future()
    done.set_running_or_notify_cancel()

    def act() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - it is raised where it is awaited
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=act, name=_NAME, daemon=True).start()
    await asyncio.wrap_future(done)


def call(address: tuple[str, int], patience: float) -> socket.socket:
    """Return a socket connected to one of a name's addresses. Raises `OSError`.

    Each has `patience` seconds, and none is begun after twice that. One of each family comes in turn, for a whole one
    may lead nowhere, and brokers have many addresses.
    """
    families: dict[int, list[Any]] = {}
    for found in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
        families.setdefault(found[0], []).append(found)
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*families.values()))
    until, failed = time.monotonic() + 2 * patience, OSError("its name has no address")
    for family, kind, protocol, _, at in filter(None, in_turn):
        if time.monotonic() >= until:
            break
        try:
            own = socket.socket(family, kind, protocol)
        except OSError as error:  # this machine has none of that family
            failed = error
            continue
        try:
            own.settimeout(patience)
            own.connect(at)
        except OSError as error:
            own.close()
            failed = error
        else:
            return own
    raise failed


async def answers(settings: BrokerSettings) -> bool:
    """Return whether somebody takes a call there; that it is the broker, and in order, only a connection can tell."""

    def look() -> None:
        call((settings.host, settings.port), settings.connect_timeout / 2).close()

    try:
        async with asyncio.timeout(settings.connect_timeout):
            await apart(look)
    except (OSError, ValueError):  # TimeoutError is one
        return False
    return True


_NAME: Final = "broker connect"
