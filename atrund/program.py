# SPDX-License-Identifier: Apache-2.0
"""The program `atrund`: options, configuration, signals; runs the daemon until it is told to stop."""

import argparse
import asyncio
import contextlib
import ctypes
import gc
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

from atrund import __version__, journal
from atrund.activation import Handed, handed_over
from atrund.atrun.secrets import adopt, read_masks
from atrund.config import Config, ConfigError, load, own_machine_id, report, warnings
from atrund.daemon import Daemon, build
from atrund.ledger import open_ledger
from atrund.service import Service

log = structlog.get_logger()

EXIT_CONFIG: Final = 2
LEDGER_WAIT: Final = 300.0
"""Seconds for a ledger to be read, copied and migrated: some 100 MB at the 1 MB a second of poor flash."""
SWITCH: Final = 0.0005
"""Seconds after which a busy thread lets another one run: by default the ledger's would hold an answer up for 5 ms."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    options = _parser().parse_args(argv)
    hangups = _Hangups()
    handed = handed_over(os.environ)

    def read() -> Config:
        name = options.name or ""
        file = options.config or _FOLDER / name / "atrund.toml"
        return load(file, hostname=socket.gethostname(), machine_id=own_machine_id(), name=name)

    try:
        config = read()
    except ConfigError as error:
        sys.stderr.write(journal.as_errors(report(error)) + "\n")
        return EXIT_CONFIG
    if options.check:
        for warning in warnings(config):
            sys.stderr.write(f"warning: {warning}\n")
        sys.stdout.write("ok\n")
        return 0
    _spare_memory()
    adopt(read_masks(config.policy.mask))
    log_output = journal.configure(config.log.level, config.log.format)
    try:
        return asyncio.run(_serve(config, read, hangups, handed))
    finally:
        hangups.ignore()
        log_output.close()


async def _serve(config: Config, read: Callable[[], Config], hangups: "_Hangups", handed: list[Handed]) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    for warning in warnings(config):
        log.warning("configuration", detail=warning)
    with contextlib.suppress(OSError):
        config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    notify = Service(os.environ)
    notify.starting(LEDGER_WAIT)
    ledger = await loop.run_in_executor(None, open_ledger, config.state_dir)
    daemon = build(config, ledger=ledger, notify=notify, handed=handed)
    try:
        await daemon.start()
    except OSError as error:
        log.error("not started", detail=str(error))  # noqa: TRY400 - the text says it all
        await daemon.stop()
        return 1
    _settle()
    daemon.failed.add_done_callback(lambda _: stopping.set())
    reloading = loop.create_task(_reload(daemon, read, notify, hangups.wanted()), name="reload")
    reloading.add_done_callback(lambda _: stopping.set())
    await stopping.wait()
    failed = daemon.failed.done() or reloading.done()
    reloading.cancel()
    (ended,) = await asyncio.gather(reloading, return_exceptions=True)
    if failed and isinstance(ended, Exception):
        log.error("room failed", room="reload", exc_info=ended)
    await daemon.stop()
    return 1 if failed or daemon.failed.done() else 0


async def _reload(daemon: Daemon, read: Callable[[], Config], notify: Service, wanted: asyncio.Event) -> None:
    await wanted.wait()
    from atrund.reload import Reload  # noqa: PLC0415 - most daemons never need it

    await Reload(daemon, read, notify).run(wanted)


class _Hangups:
    """Takes note of SIGHUP from the program's first moment to its last: by default it would end it."""

    def __init__(self) -> None:
        self._came = False
        self._tell: Callable[[], object] = lambda: None
        signal.signal(signal.SIGHUP, self._note)

    def wanted(self) -> asyncio.Event:
        """Return what is set at each SIGHUP from now on, and already if one came before."""
        wanted, loop = asyncio.Event(), asyncio.get_running_loop()
        self._tell = lambda: None if loop.is_closed() else loop.call_soon_threadsafe(wanted.set)
        if self._came:
            wanted.set()
        return wanted

    def ignore(self) -> None:
        """Take no more note: the interpreter gives its handlers back while it ends, but leaves what is ignored."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _note(self, _number: int, _frame: object) -> None:
        self._came = True
        self._tell()


def _spare_memory() -> None:
    """Let all threads allocate from one arena: one each would cost memory, and the interpreter runs one at a time."""
    with contextlib.suppress(OSError, AttributeError):  # a C library without it
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _settle() -> None:
    """Have neither what is there for good nor what a thread does in the background keep an answer waiting."""
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH)


_M_ARENA_MAX: Final = -8
"""mallopt(3) of the GNU C library."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="atrund", description="Runs AT commands for those who are allowed.")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="instead of /etc/atrund/atrund.toml; conf.d beside it is read too"
    )
    parser.add_argument(
        "--name",
        type=_name,
        metavar="NAME",
        help="one of several daemons: its file is /etc/atrund/NAME/atrund.toml; node, state and socket end with it",
    )
    parser.add_argument("--check", action="store_true", help="say whether the configuration is right, and end")
    parser.add_argument("--version", action="version", version=f"atrund {__version__}")
    return parser


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,16}", text):
        raise argparse.ArgumentTypeError("1 to 16 of the characters A-Z a-z 0-9 _ -")
    return text


_FOLDER: Final = Path("/etc/atrund")
