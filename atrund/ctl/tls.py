# SPDX-License-Identifier: Apache-2.0
"""TLS as the options of `atrunctl dial` and `listen` ask for it: version 1.2 at least, and no unverified far side."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ssl

    from atrund.tls import FileError, Files


def options(parser: argparse.ArgumentParser, *, server: bool) -> None:
    """Let a parser take certificates."""
    group = parser.add_argument_group("TLS")
    if not server:
        group.add_argument("--tls", action="store_true", help="speak TLS; the certificate must fit the host's name")
        group.add_argument("--tls-name", metavar="NAME", help="the name or address that it is for instead")
    group.add_argument("--tls-cert", metavar="PEM", help="our certificate, with what leads to its authority")
    group.add_argument("--tls-key", metavar="PEM", help="its private key (default: in the same file)")
    whose = "callers must show a certificate of" if server else "the certificate's authority is"
    group.add_argument("--tls-ca", metavar="PEM", help=f"{whose} one of these (default: {_default(server=server)})")


def client(args: argparse.Namespace) -> "ssl.SSLContext | None":
    """Return how to call, None for clear text. Raises `OSError` that names what can't be used."""
    from atrund.tls import FileError, client_context

    if not (args.tls or args.tls_cert or args.tls_key or args.tls_ca or args.tls_name):
        return None
    try:
        return client_context(_files(args))
    except FileError as error:
        raise _named(error) from None


def server(args: argparse.Namespace) -> "ssl.SSLContext | None":
    """Return how calls are taken, None for clear text. Raises `OSError` that names what can't be used."""
    from atrund.tls import FileError, server_context

    if not args.tls_cert:
        if args.tls_ca or args.tls_key:
            raise OSError("--tls-cert is missing: a server has a certificate of its own")
        return None
    try:
        return server_context(_files(args))
    except FileError as error:
        raise _named(error) from None


def _files(args: argparse.Namespace) -> "Files":
    from atrund.tls import Files

    if args.tls_key and not args.tls_cert:
        raise OSError("--tls-cert is missing: --tls-key is the key of a certificate")
    return Files(*(given and Path(given) for given in (args.tls_cert, args.tls_key, args.tls_ca)))


def _named(error: "FileError") -> OSError:
    return OSError(f"{_OPTIONS[error.option]}: {error.wrong}; {error.right}")


def _default(*, server: bool) -> str:
    return "none is asked for" if server else "the system's"


_OPTIONS: Final = {"certificate": "--tls-cert", "key": "--tls-key", "ca": "--tls-ca"}
