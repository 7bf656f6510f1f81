# SPDX-License-Identifier: Apache-2.0
"""What the configuration says of certificates: the options' readers for the TCP door (TCP-13), and what is wrong.

Rules of this file: files are read by those whose options name them, while the configuration is read, and not later.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from atrund.config.kinds import public_file
from atrund.config.reader import Mistake, Place

if TYPE_CHECKING:
    from atrund.config.mqtt import Mqtt
    from atrund.config.values import Tcp, TcpClientTls, TcpTls
    from atrund.tls import Files

T = TypeVar("T", "TcpTls", "TcpClientTls")

SOON = timedelta(days=14)  # a certificate that is renewed by a program is so well before


@dataclass(frozen=True, slots=True)
class Certificate:
    """A file with our certificate, and until when it is good."""

    path: Path
    good_until: datetime


def certificate(value: object, place: Place) -> Certificate | None:
    """Our own certificate with what leads to its authority; "" is none."""
    path = public_file(value, place)
    if path is None:
        return None
    from atrund.tls import expiry_of  # noqa: PLC0415 - few speak TLS

    try:
        return Certificate(path, expiry_of(path))
    except ValueError as error:
        return place.refuse(str(error), "a PEM file with the certificate, and what leads to its authority behind it")


def server_files(tls: "TcpTls") -> "Files":
    """Return the files of the server."""
    from atrund.tls import Files  # noqa: PLC0415 - few speak TLS

    return Files(_path(tls.certificate), tls.key, tls.client_ca)


def client_files(tls: "TcpClientTls") -> "Files":
    """Return the files of client mode."""
    from atrund.tls import Files  # noqa: PLC0415 - few speak TLS

    return Files(_path(tls.certificate), tls.key, tls.ca)


def mistakes(tcp: "Tcp") -> Iterator[Mistake]:
    """What is wrong with the files together."""
    server, client = tcp.tls, tcp.client.tls
    if server.enabled and server.certificate is None:
        yield Mistake("tcp.tls.certificate", "is not set while tcp.tls.enabled is true", "the server's certificate")
    yield from _mistakes("tcp.tls", server, "client_ca", _read_server)
    yield from _mistakes("tcp.client.tls", client, "ca", _read_client)


def warnings(tcp: "Tcp") -> Iterator[str]:
    """What is doubtful about the certificates."""
    for section, tls in (("tcp.tls", tcp.tls), ("tcp.client.tls", tcp.client.tls)):
        if tls.enabled and tls.certificate is not None:
            yield from _expires(f"{section}.certificate", tls.certificate.good_until)


def broker_warnings(mqtt: "Mqtt") -> Iterator[str]:
    """What is doubtful about files that are read anew for each connection, and may be others by then."""
    from atrund.tls import FileError, Files, check, expiry_of  # noqa: PLC0415 - few speak TLS

    options = {"certificate": "mqtt.cert_file", "key": "mqtt.key_file", "ca": "mqtt.ca_file"}
    try:
        check(Files(mqtt.cert_file, mqtt.key_file, mqtt.ca_file))
        if mqtt.cert_file is not None:
            yield from _expires(options["certificate"], expiry_of(mqtt.cert_file))
    except FileError as error:
        yield f"{options[error.option]}: {error.wrong}, so no connection can be made"


def _expires(option: str, until: datetime) -> Iterator[str]:
    left = until.timestamp() - time.time()
    if left <= 0:
        yield f"{option}: has expired on {until:%Y-%m-%d}, so nobody who looks will take it"
    elif left <= SOON.total_seconds():
        yield f"{option}: expires on {until:%Y-%m-%d}"


def _mistakes(section: str, tls: T, authority: str, read: Callable[[T], object]) -> Iterator[Mistake]:
    """`authority`: the option that names the other side's authorities; `read` reads the files."""
    given = [name for name in ("certificate", "key", authority) if getattr(tls, name) is not None]
    if not tls.enabled:
        for name in given:
            yield Mistake(f"{section}.{name}", f"is set while {section}.enabled is false", f"{section}.enabled = true")
    for there, lacking in (("certificate", "key"), ("key", "certificate")):
        if there in given and lacking not in given:
            yield Mistake(f"{section}.{there}", f"is set without {section}.{lacking}", "both or neither")
            return
    if tls.enabled and given:
        from atrund.tls import FileError  # noqa: PLC0415 - few speak TLS

        try:
            read(tls)
        except FileError as error:
            option = authority if error.option == "ca" else error.option
            yield Mistake(f"{section}.{option}", error.wrong, error.right)


def _read_server(tls: "TcpTls") -> None:
    from atrund.tls import server_context  # noqa: PLC0415 - few speak TLS

    server_context(server_files(tls))


def _read_client(tls: "TcpClientTls") -> None:
    from atrund.tls import client_context  # noqa: PLC0415 - few speak TLS

    client_context(client_files(tls))


def _path(certificate: Certificate | None) -> Path | None:
    return None if certificate is None else certificate.path
