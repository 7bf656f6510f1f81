# SPDX-License-Identifier: Apache-2.0
"""Secrets that a person gives: typed without being shown, or read from a file, never an argument."""

import argparse
import sys
from pathlib import Path
from typing import Final

OCTETS_MAX: Final = 4096
"""What is read of a file: no password is near it, and a device would not end."""


class UnusableError(ValueError):
    """It can't be read or can't be taken; the text says why, and shows nothing of it."""


def option(parser: argparse.ArgumentParser) -> None:
    """Let a parser take the file of a password."""
    parser.add_argument(
        "--password-file", metavar="F", help="read the password from F (- for standard input) instead of asking for it"
    )


def read_file(path: str) -> str:
    """Return what a file, or with `-` standard input, holds but for the end of its line. Raises `UnusableError`."""
    try:
        if path == "-":
            octets = sys.stdin.buffer.read(OCTETS_MAX)
        else:
            with Path(path).open("rb") as file:
                octets = file.read(OCTETS_MAX)
        return octets.decode().removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise UnusableError(f"--password-file: {error.strerror}: {path}") from None
    except UnicodeDecodeError:
        raise UnusableError(f"--password-file: {path} is no UTF-8 text") from None


def given(path: str | None, whose: str) -> str:
    """Return a password from a file, or asked for twice at the terminal. Raises `UnusableError`."""
    if path is not None:
        return read_file(path)
    if not sys.stdin.isatty():
        raise UnusableError("there is no terminal to ask at; --password-file F or --password-file - would be right")
    from getpass import getpass

    try:
        first = getpass(f"Password of {whose}: ")
        again = getpass("The same once more: ")
    except EOFError:
        raise UnusableError("no password was given") from None
    if first != again:
        raise UnusableError("the two are not the same")
    return first


def quotable(text: str, what: str) -> str:
    """Return a text as it stands in an AT command. Raises `UnusableError` for one that can't (V.250 5.4.2.2)."""
    if '"' in text or not (text.isascii() and text.isprintable()):
        raise UnusableError(f"{what}: a quote or other than printable ASCII in it, which no AT command carries")
    return f'"{text}"'
