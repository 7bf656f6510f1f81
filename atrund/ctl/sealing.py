# SPDX-License-Identifier: Apache-2.0
"""Sealed SMS: `atrunctl sms seal-key` makes a key, and `atrunctl sms encode --seal` seals with it."""

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from atrund.ctl.secret import OCTETS_MAX
from atrund.sms.seal import COUNTERS, KEY_NUMBERS, KEY_OCTETS, SealError, SealKey, read_key, seal, write_key


class UnsealedError(ValueError):
    """It can't be sealed, or no key can be made; the text says why, and shows nothing of a key."""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `seal-key` to the subcommand `sms`."""
    parser = commands.add_parser(
        "seal-key",
        help="make a key for sealed SMS",
        description="Makes the file of a key for sealed SMS, for one sender and one gateway: both keep a copy of it.",
    )
    parser.add_argument("--number", type=int, required=True, metavar="N", help="of the key, 0 to 255, at its gateway")
    parser.add_argument("file", metavar="FILE", help="the file to make; one that is there is left as it is")
    parser.set_defaults(run=run_key)


def run_key(args: argparse.Namespace) -> int:
    """Make a key; return 0, or 2 if that can't be."""
    try:
        if args.number not in KEY_NUMBERS:
            raise UnsealedError(f"--number: {args.number} is out of range, 0 to {KEY_NUMBERS[-1]}")
        new_secret(Path(args.file), write_key(SealKey(args.number, os.urandom(KEY_OCTETS))))
    except UnsealedError as error:
        print(f"atrunctl sms seal-key: {error}", file=sys.stderr)
        return 2
    print(f"{args.file} holds key {args.number}. At the gateway, where only the daemon may read a copy of it:")
    print(f'  [sms]\n  seal_key_files = ["{Path(args.file).name}"]')
    print(f"Here: atrunctl sms encode --seal {args.file} --to NUMBER 'AT+CSQ'")
    return 0


def new_secret(path: Path, content: str) -> None:
    """Make a file that nobody else may read. Raises `UnsealedError`; one that is there stays as it is."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(f"{content}\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise UnsealedError(f"{path} is there already, and is left as it is") from None
    except OSError as error:
        raise UnsealedError(f"{path}: {error.strerror}") from None


def sealed(text: str, path: str, *, counter: int | None, now: float) -> str:
    """Seal a text with the key in a file. Raises `UnsealedError`.

    The counter is the time, or one more than the last, which is kept beside the key: so it goes on growing where that
    was lost. `now`: seconds since 1970.
    """
    try:
        with Path(path).open("rb") as file:
            key = read_key(file.read(OCTETS_MAX).decode("ascii", "replace").removesuffix("\n").removesuffix("\r"))
        if counter is None:
            counter = _next(Path(f"{path}{_COUNTER}"), round(now))
        return seal(key, text, counter=counter, time=round(now))
    except OSError as error:
        raise UnsealedError(f"--seal: {error.strerror}: {error.filename or path}") from None
    except SealError as error:
        raise UnsealedError(f"--seal: {error}") from None


def _next(path: Path, now: int) -> int:
    """Take the next counter: it is on disk before it is used, for a gateway takes none twice."""
    import fcntl

    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        last = file.read(_COUNTER_MAX).strip()
        if last and not (last.isascii() and last.isdecimal() and int(last) in COUNTERS):
            raise UnsealedError(f"{path} holds no counter; --counter N gives one, higher than any that was used")
        counter = max(int(last or 0) + 1, now)
        if counter not in COUNTERS:
            raise UnsealedError(f"{path}: the counters are used up; a new key would be right")
        # In place and never shorter: a power cut leaves one of the two.
        file.seek(0)
        file.write(f"{counter:010}\n")
        file.flush()
        os.fsync(file.fileno())
    return counter


_COUNTER: Final = ".counter"
_COUNTER_MAX: Final = 32
