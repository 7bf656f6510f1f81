# SPDX-License-Identifier: Apache-2.0
"""Opens the connection of client mode: to which address, by which way, in clear text only where that is allowed.

Rules of this file: a look-up has a thread of its own, for it can hang; there is one at a time.
"""

import asyncio
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import chain, islice, zip_longest
from typing import TYPE_CHECKING, Any, Final

from atrund.atrun.firewall import address_of
from atrund.doors.connection import Connection
from atrund.doors.wire import CLOSING

if TYPE_CHECKING:  # few speak TLS
    from atrund.doors.certificates import Certificates

ADDRESSES_MAX: Final = 4
"""Addresses of one host that are tried: a name may have dozens, and each gets its share of the time."""

Address = tuple[Any, ...]
"""What a socket connects to: host, port, and for IPv6 two more."""
LookUp = Callable[[str, int], Awaitable[list[Address]]]
Make = Callable[[], Connection]


@dataclass(frozen=True, slots=True)
class Far:
    """Whom to call, and how. `timeout` seconds for all of it.

    `interface`: what the bearer is bound to, "" for any. Clear text goes over `trusted` interfaces and loopback alone
    unless `insecure` (TCP-13). `server_name`: what the far end's certificate is for with `tls`, "" for the host.
    """

    host: str
    port: int
    timeout: float
    interface: str = ""
    trusted: tuple[str, ...] = ()
    insecure: bool = False
    tls: bool = False
    server_name: str = ""


async def open_call(
    far: Far, make: Make, look_up: LookUp, certificates: "Callable[[], Certificates] | None" = None
) -> None:
    """Call, and give the connection to what `make` makes. Raises `OSError`, whose text says what was tried.

    `certificates` gives those for TLS; without it none is spoken.
    """
    if not far.host:
        raise OSError("there is no host to call: AT#TCPATRUNCFG or tcp.client.host names it")
    where = f"{far.host} port {far.port}"
    try:
        async with asyncio.timeout(far.timeout):
            addresses = await look_up(far.host, far.port)
            link = await _connect(far, addresses)
            if far.tls and certificates is not None:
                await _shake(far, make, link, certificates())
            elif far.tls:
                link.close()
                raise OSError("nobody speaks TLS here")
            else:
                await asyncio.get_running_loop().create_connection(make, sock=link)
    except TimeoutError:
        raise OSError(f"{where}: no answer within {far.timeout:g} s") from None
    except OSError as error:
        raise OSError(f"{where}: {error.strerror or error}") from None


async def _connect(far: Far, addresses: list[Address]) -> socket.socket:
    """Try one after the other, each for its share of the time that is left. Raises what the last one ended with."""
    loop = asyncio.get_running_loop()
    end = loop.time() + far.timeout
    tries = [(address, way) for address in islice(_mixed(addresses), ADDRESSES_MAX) for way in ways(far, address[0])]
    last: OSError = OSError(f"clear text can be read on the way; {_RIGHT}")
    for at, (address, way) in enumerate(tries):
        share = (end - loop.time()) / (len(tries) - at)
        link = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
        try:
            link.setblocking(False)
            if way:
                link.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, way.encode())
            async with asyncio.timeout(share):
                await loop.sock_connect(link, address)
        except TimeoutError:
            link.close()
            last = OSError("no answer")
        except OSError as error:
            link.close()
            last = OSError(os.strerror(error.errno)) if error.errno else error  # asyncio words it its own way
        except BaseException:
            link.close()
            raise
        else:
            return link
    raise last


async def _shake(far: Far, make: Make, link: socket.socket, certificates: "Certificates") -> None:
    """Speak TLS over a connection; what `make` makes begins behind the handshake. Raises what says what was wrong."""
    from atrund.tls import explain  # noqa: PLC0415 - few speak TLS

    given = False
    try:
        context = await certificates.context()
        given = True
        await asyncio.get_running_loop().create_connection(
            make,
            sock=link,
            ssl=context,
            server_hostname=far.server_name or far.host.partition("%")[0],
            ssl_handshake_timeout=far.timeout + 1,  # the caller's comes first
            ssl_shutdown_timeout=CLOSING,
        )
    except TimeoutError:
        raise
    except OSError as error:
        raise OSError(explain(error)) from None
    finally:
        if not given:
            link.close()


def ways(far: Far, address: str) -> tuple[str, ...]:
    """Return the interfaces over which an address may be called, "" for any; none where it may not.

    Loopback is never bound: what is called there goes on from a program of this host's.
    """
    if address_of(address).is_loopback:
        return ("",)
    anywhere = far.insecure or far.tls
    if far.interface:
        return (far.interface,) if anywhere or far.interface in far.trusted else ()
    return ("",) if anywhere else far.trusted


class LookUps:
    """Looks names up in a thread, which the system's resolver may hold for half a minute."""

    def __init__(self) -> None:
        self._under_way: asyncio.Future[list[Address]] | None = None

    async def __call__(self, host: str, port: int) -> list[Address]:
        """Return the addresses of a host, each once. Raises `OSError`."""
        with suppress(ValueError):
            if "%" not in host:  # with a zone the resolver knows the interface's number
                return [(str(ip_address(host)), port)]
        if self._under_way is not None and not self._under_way.done():
            raise OSError("the look-up before has not ended yet")
        self._under_way = found = asyncio.get_running_loop().create_future()
        found.add_done_callback(_seen)
        threading.Thread(target=_look_up, args=(host, port, found), name="look-up", daemon=True).start()
        return await asyncio.shield(found)


_RIGHT: Final = "[tcp.client.tls], tcp.client.host on loopback, its way in tcp.trusted_interfaces, tcp.insecure = true"


def _look_up(host: str, port: int, found: "asyncio.Future[list[Address]]") -> None:
    loop = found.get_loop()
    addresses: list[Address] = []
    failure: OSError | None = None
    try:
        addresses = list(dict.fromkeys(entry[4] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
    except OSError as error:
        failure = error
    except UnicodeError:
        failure = OSError("is no host name")

    def tell() -> None:
        if failure is None:
            found.set_result(addresses)
        else:
            found.set_exception(failure)

    with suppress(RuntimeError):  # the daemon has ended meanwhile
        loop.call_soon_threadsafe(tell)


def _seen(found: "asyncio.Future[list[Address]]") -> None:
    if not found.cancelled():
        found.exception()  # whoever asked may have gone


def _mixed(addresses: list[Address]) -> Iterator[Address]:
    """Give IPv6 and IPv4 addresses in turn, each in the order of the look-up, which knows the host's own (RFC 6724)."""
    families: dict[bool, list[Address]] = {}
    for address in addresses:
        families.setdefault(":" in address[0], []).append(address)
    turns: Iterable[Address | None] = chain.from_iterable(zip_longest(*families.values()))
    return (address for address in turns if address is not None)
