# SPDX-License-Identifier: Apache-2.0
"""Is there a way out for TCP ATRUN: always, a network interface, a context of the module (TCP-14)."""

import asyncio
from collections.abc import Callable

Told = Callable[[], None]
"""Is told that something is another."""


class Bearer:
    """One that is always there; the others know better. `begin`, then `run` until cancelled."""

    def __init__(self, interface: str = "") -> None:
        self.up = True
        self.detail = ""
        """Why it is not up, to a person."""
        self.interface = interface
        """The network interface that sockets are to be bound to, "" for any."""
        self.on_change: Told = lambda: None
        """Told when `up` is another."""

    async def begin(self) -> None:
        """Look for the first time, where that takes no waiting."""

    async def run(self) -> None:
        """Watch it."""
        await asyncio.Event().wait()

    def look(self) -> None:
        """Look soon: the module was set up, or has a network again."""

    def status(self) -> dict[str, object]:
        """Return what `atrunctl status` shows."""
        return {"state": "up" if self.up else "down", "detail": self.detail}

    def _is(self, detail: str) -> None:
        """Take note of why it is not up, "" where it is."""
        before, self.up, self.detail = self.up, not detail, detail
        if self.up is not before:
            self.on_change()
