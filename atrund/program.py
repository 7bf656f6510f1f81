# SPDX-License-Identifier: Apache-2.0
"""The program `atrund`: options, configuration, signals; runs the daemon until it is told to stop."""

import argparse
import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from atrund import __version__, journal
from atrund.atrun.secrets import adopt, read_masks
from atrund.config import Config, ConfigError, load, report, warnings
from atrund.daemon import build
from atrund.ledger import open_ledger
from atrund.service import Service

log = structlog.get_logger()

EXIT_CONFIG: Final = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    options = _parser().parse_args(argv)
    try:
        config = load(options.config, hostname=socket.gethostname(), machine_id=_machine_id())
    except ConfigError as error:
        sys.stderr.write(report(error) + "\n")
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
        return asyncio.run(_serve(config))
    finally:
        log_output.close()


async def _serve(config: Config) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    for warning in warnings(config):
        log.warning("configuration", detail=warning)
    with contextlib.suppress(OSError):
        config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    daemon = build(
        config, ledger=await loop.run_in_executor(None, open_ledger, config.state_dir), notify=Service(os.environ)
    )
    try:
        await daemon.start()
    except OSError as error:
        log.error("not started", detail=str(error))  # noqa: TRY400 - the text says it all
        await daemon.stop()
        return 1
    daemon.failed.add_done_callback(lambda _: stopping.set())
    await stopping.wait()
    await daemon.stop()
    return 1 if daemon.failed.done() else 0


def _spare_memory() -> None:
    """Let all threads allocate from one arena: one each would cost memory, and the interpreter runs one at a time."""
    with contextlib.suppress(OSError, AttributeError):  # a C library without it
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


_M_ARENA_MAX: Final = -8
"""mallopt(3) of the GNU C library."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="atrund", description="Runs AT commands for those who are allowed.")
    parser.add_argument("--config", type=Path, default=Path("/etc/atrund/atrund.toml"), metavar="FILE")
    parser.add_argument("--check", action="store_true", help="say whether the configuration is right, and end")
    parser.add_argument("--version", action="version", version=f"atrund {__version__}")
    return parser


def _machine_id() -> str | None:
    try:
        return Path("/etc/machine-id").read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None
