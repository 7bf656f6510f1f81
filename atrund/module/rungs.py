# SPDX-License-Identifier: Apache-2.0
"""What the upper rungs of the recovery ladder do: AT#REBOOT, and the operator's command (MOD-4)."""

import asyncio
import contextlib
import os
import signal
from typing import Final

import structlog

from atrund.module.port import OpenPort

log = structlog.get_logger()

REBOOT_LINGER: Final = 1.0
"""Seconds that the port stays open behind a blind AT#REBOOT, so that it leaves the UART."""
KILL_WAIT: Final = 1.0
"""Seconds for a killed command to be gone; only one that hangs in the kernel takes longer."""
COMMAND_TIMEOUT: Final = 60.0
"""Seconds for the operator's command: a power switch takes a few."""


async def write_reboot(open_port: OpenPort, path: str, baudrate: int) -> None:
    """Write AT#REBOOT blindly: whatever hung may still read. Raises `PortError`."""
    port = await open_port(path, baudrate, _Nobody())
    port.write(b"\x1b\rAT#REBOOT\r")
    asyncio.get_running_loop().call_later(REBOOT_LINGER, port.close)


async def run_command(command: tuple[str, ...]) -> bool:
    """Run the operator's command, without a shell, for a bounded time; returns whether it succeeded. Never raises."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, start_new_session=True
        )
    except (OSError, ValueError) as error:
        log.error("recovery command not run", detail=str(error))  # noqa: TRY400 - the text says it all
        return False
    try:
        async with asyncio.timeout(COMMAND_TIMEOUT):
            code = await process.wait()
    except TimeoutError:
        log.error("recovery command killed", detail=f"it took longer than {COMMAND_TIMEOUT:g} s")  # noqa: TRY400
        return False
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with all that it started
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KILL_WAIT):
                    await process.wait()
    log.warning("recovery command ended", exit=code)
    return code == 0


class _Nobody:
    """Takes what a hung module says, and that it goes."""

    def received(self, data: bytes) -> None:
        pass

    def lost(self, why: str) -> None:
        pass
