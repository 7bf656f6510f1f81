# SPDX-License-Identifier: Apache-2.0
"""`atrunctl sms enrol`: gives a number codes of an authenticator app, which scans a picture from the terminal."""

import argparse
import base64
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Final
from urllib.parse import quote

from atrund.ctl.sealing import UnsealedError, new_secret

SECRET_OCTETS: Final = 20
"""As RFC 4226 section 4, R6 recommends: what SHA-1 gives."""
ISSUER: Final = "atrund"


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `enrol` to the subcommand `sms`."""
    parser = commands.add_parser(
        "enrol",
        help="give a number codes of an authenticator app",
        description="Makes the secret of a number's codes and shows it as a QR code, for any authenticator app.",
    )
    parser.add_argument("number", metavar="NUMBER", help="who is to type codes behind commands, +393468686711")
    parser.add_argument("--file", metavar="F", help="where to put the secret; sms-code-NUMBER if left out")
    parser.add_argument(
        "--gateway", default=ISSUER, metavar="NAME", help="what the app is to call it; atrund if left out"
    )
    parser.add_argument("--again", action="store_true", help="show the secret that is in the file, and make no new one")
    parser.add_argument("--uri", action="store_true", help="print the secret as text instead of a picture")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make and show a secret; return the exit code."""
    from atrund.atrun.codes import read_secret

    digits = args.number.removeprefix("+")
    path = Path(args.file or f"sms-code-{digits}")
    try:
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= _DIGITS_MAX):
            raise UnsealedError("no number: digits, with + before them if wanted, would be right")
        if not args.uri and not sys.stdout.isatty():
            raise UnsealedError(
                "the picture is for a terminal, for it holds the secret; --uri prints it as text all the same"
            )
        qr = None if args.uri else _qr()
        if not args.again:
            new_secret(path, base64.b32encode(os.urandom(SECRET_OCTETS)).decode("ascii"))
        secret = read_secret(path.read_text("ascii").strip())
    except UnsealedError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"{path}: {error.strerror}")
    except ValueError as error:
        return _refuse(f"{path}: {error}")
    uri = enrolment(secret, args.number, args.gateway)
    if qr is None:
        print(uri)
    else:
        qr.make(uri, error="m", micro=False).terminal(compact=True)
        print("Scan it with the authenticator app (a code by counter, HOTP), and clear the screen.", file=sys.stderr)
    print(f"{path} holds the secret. At the gateway, where only the daemon may read it:", file=sys.stderr)
    print(f'  [sms]\n  codes = [{{number = "{args.number}", secret_file = "{path.name}"}}]', file=sys.stderr)
    return 0


def enrolment(secret: bytes, number: str, gateway: str) -> str:
    """Return the URI that authenticator apps read (github.com/google/google-authenticator, wiki, Key Uri Format)."""
    name, whose = quote(gateway, safe=""), quote(number, safe="")
    text = base64.b32encode(secret).decode("ascii").rstrip("=")
    return f"otpauth://hotp/{name}:{whose}?secret={text}&issuer={name}&algorithm=SHA1&digits=6&counter=0"


_DIGITS_MAX: Final = 20


def _qr() -> ModuleType:
    try:
        import segno
    except ImportError:
        raise UnsealedError(
            "no picture without segno (Debian: python3-segno; pip: atrund[qr]); --uri prints the secret as text"
        ) from None
    return segno


def _refuse(why: str) -> int:
    print(f"atrunctl sms enrol: {why}", file=sys.stderr)
    return 2
