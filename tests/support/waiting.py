# SPDX-License-Identifier: Apache-2.0
"""Waiting by looking, in a test's own event loop."""

import asyncio
from collections.abc import Callable
from typing import Any

from tests.support.virtual import House


async def until(look: Callable[[], object], seconds: float = 60.0, every: float = 0.1) -> None:
    """Wait until there is something to see."""
    async with asyncio.timeout(seconds):
        while not look():  # noqa: ASYNC110 - many things are looked at, and few of them are events
            await asyncio.sleep(every)


async def status(house: House) -> dict[str, Any]:
    """The daemon's status, as `atrunctl status --json` shows it."""
    found: dict[str, Any] = await house.daemon.status()
    return found


async def ready(house: House) -> None:
    """Wait until the module is set up."""
    async with asyncio.timeout(30):
        while (await status(house))["module"]["state"] != "ready":  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.1)
