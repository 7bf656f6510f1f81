# SPDX-License-Identifier: Apache-2.0
"""Where the broker of a fleet is and what its topics are, by the options of `atrunctl fleet`."""

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

from atrund.ctl import secret
from atrund.ctl.fleet_link import Link, LinkError, Message, Where
from atrund.ctl.fleet_names import NamesError, is_name
from atrund.ctl.terminal import complain, printable
from atrund.records import PREFIX
from atrund.tls import FileError, Files, client_context

STATUS_APART: Final = 50
"""Nodes whose status is subscribed to one by one; for more it is everybody's."""


class BadOption(ValueError):
    """An option that can't be; the text names it and says what would be right."""


def guarded(work: Callable[[], int]) -> int:
    """Do the work; say why it failed, if it did, and return the exit code."""
    try:
        return work()
    except (BadOption, NamesError) as error:
        complain(printable(str(error)))
        return 2
    except LinkError as error:
        complain(str(error))
        return 3


def where(args: argparse.Namespace, keep: int = 0) -> Where:
    """Return where the broker is and how it is spoken to. `keep` as in `Where`. Raises `BadOption`."""
    host, port, tls = _address(args.broker)
    if not tls:
        for option in ("ca_file", "cert_file", "key_file"):
            if getattr(args, option):
                raise BadOption(f"--{option.replace('_', '-')} is for TLS: --broker mqtts://{host} would be right")
        if not args.insecure and not _is_loopback(host):
            raise BadOption(f"clear text to {host} can be read on the way: mqtts:// would be right, or --insecure")
    if args.key_file and not args.cert_file:
        raise BadOption("--cert-file is missing: --key-file is the key of a certificate")
    if args.password_file and not args.user:
        raise BadOption("--user is missing: a password is a user's")
    try:
        password = "" if args.password_file is None else secret.read_file(args.password_file)
        given = (args.cert_file, args.key_file, args.ca_file)
        context = client_context(Files(*(name and Path(name) for name in given))) if tls else None
    except secret.UnusableError as error:
        raise BadOption(str(error)) from None
    except FileError as error:
        raise BadOption(f"{_OPTIONS[error.option]}: {error.wrong}; {error.right}") from None
    client_id = args.client_id or f"atrunctl-{uuid4().hex[:12]}"
    return Where(host, port, args.protocol == "5", client_id, args.user, password, context, keep)


def prefix(args: argparse.Namespace) -> str:
    """Return what all topics begin with. Raises `BadOption`."""
    if not _PREFIX.fullmatch(args.prefix):
        raise BadOption('--prefix: it would be topic levels such as "site/atrund", no + or #')
    return str(args.prefix)


def who(args: argparse.Namespace) -> str:
    """Return as whom it is asked; "" where nothing says so. Raises `BadOption`."""
    asker: str = args.user if args.who is None else args.who
    if set(asker) & set("/+#") or not asker.isprintable():
        raise BadOption(f"--who: {asker!r} is no level of a topic, which has no / + # in it; give one that is")
    return asker


def subscribe(link: Link, topics: Iterable[str], *, qos: int, retained: bool = True) -> None:
    """Subscribe. Raises `LinkError`; where this user may not read there the link is closed as well."""
    if refused := link.subscribe(list(topics), qos=qos, retained=retained):
        link.close()
        raise forbidden(refused)


def forbidden(topics: Sequence[str]) -> LinkError:
    """Return the error for topics that this user may not subscribe to."""
    return LinkError(f"the broker does not let this user read {printable(topics[0])}")


def node_of(message: Message, base: str) -> tuple[str, str]:
    """Return the node that a message is of, and its topic below that; two empty texts where it is nobody's."""
    below = message.topic.removeprefix(base + "/")
    node, _, rest = below.partition("/")
    return (node, rest) if below != message.topic and rest and is_name(node) else ("", "")


def _address(url: str) -> tuple[str, int, bool]:
    right = "--broker: it would be mqtt://HOST[:PORT] or mqtts://HOST[:PORT]"
    try:
        parts = urlsplit(url if "//" in url else f"mqtt://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise BadOption(right) from None
    if parts.scheme not in {"mqtt", "mqtts"} or not host or parts.path.strip("/") or parts.query or parts.fragment:
        raise BadOption(right)
    if parts.username is not None or parts.password is not None:
        raise BadOption("--broker: a user goes into --user, its password into --password-file: others see this option")
    tls = parts.scheme == "mqtts"
    return host, port or (8883 if tls else 1883), tls


def _is_loopback(host: str) -> bool:
    try:
        return host.lower() == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


_PREFIX: Final = re.compile(PREFIX)
_OPTIONS: Final = {"certificate": "--cert-file", "key": "--key-file", "ca": "--ca-file"}
