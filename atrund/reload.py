# SPDX-License-Identifier: Apache-2.0
"""The configuration read anew while the daemon runs.

Rules of this file: the file is read and weighed off the event loop; one with a mistake changes nothing. What changes,
changes in one moment, between two steps of the loop; only then services open, close and move, and whoever is in, what
runs, the broker and the port are left as they are.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from atrund import making
from atrund.atrun.secrets import adopt, read_masks
from atrund.atrun.settings import Settings
from atrund.config import Config, ConfigError, Mistake, warnings
from atrund.config.following import follow
from atrund.daemon import Daemon
from atrund.service import Service

log = structlog.get_logger()

PATIENCE: Final = 60.0
"""Seconds for the file to be read, and for whatever changes settings to end, and as many for the services to follow: a
disk that hangs is not waited for."""
SAID_MAX: Final = 50
"""Mistakes that are said one by one: more of them come from a file that is none of ours."""


class Reload:
    """Reads the configuration anew, when told to. `read` blocks, and raises `ConfigError`."""

    def __init__(self, daemon: Daemon, read: Callable[[], Config], notify: Service) -> None:
        self._daemon = daemon
        self._read = read
        self._notify = notify
        self._catching_up: asyncio.Future[str] | None = None

    async def run(self, wanted: asyncio.Event) -> None:
        """Reload whenever it is `wanted`, until cancelled; what is wanted while one runs is one more behind it."""
        while True:
            await wanted.wait()
            wanted.clear()
            await self.once()

    async def once(self) -> None:
        """Reload, and tell systemd, journal and status what came of it."""
        self._notify.reloading()
        try:
            await self._reload()
        except ConfigError as error:
            self._refuse(error.mistakes)
        except TimeoutError:
            self._refuse((Mistake("", f"was not done within {PATIENCE:g} s", "a disk that answers, and another try"),))
        finally:
            self._daemon.tell_ready()

    async def _reload(self) -> None:
        daemon = self._daemon
        async with asyncio.timeout(PATIENCE):
            given = await self._given()
            await daemon.own.changing.acquire()  # of two changes none is lost
        try:
            change, before = follow(daemon.config, given), daemon.nvm.settings
            base, masks = making.file_settings(change.config), read_masks(change.config.policy.mask)
            if clash := daemon.nvm.clash_with(base, locked=change.config.locked):
                mistake = Mistake("sms.instance, tcp.instance", clash, "an instance for each")
                raise ConfigError(Path(), (mistake,))
            adopt(masks)
            daemon.follow(change.config)
            daemon.not_followed, daemon.not_reloaded = change.waiting, ""
            why = await self._catch_up(before)
        finally:
            daemon.own.changing.release()
        log.info("configuration reloaded", changed=", ".join(change.followed) or "nothing")
        for warning in warnings(change.config):
            log.warning("configuration", detail=warning)
        if change.waiting:
            waiting = f"needs a restart: {', '.join(change.waiting)}"
            log.warning(waiting)
        if why:
            log.error("a door is not as the configuration says", detail=why)

    async def _given(self) -> Config:
        try:
            return await asyncio.get_running_loop().run_in_executor(None, self._read)
        except ConfigError:
            raise
        except Exception as error:
            # A file that changes while it is read, or a fault of ours in reading it: neither is to end what runs well.
            log.exception("configuration not understood")
            raise ConfigError(Path(), (Mistake("", f"{type(error).__name__} in reading it", "another try"),)) from error

    async def _catch_up(self, before: Settings) -> str:
        """Bring the services to what is in force; never cut short, for both are to agree in the end."""
        self._catching_up = asyncio.ensure_future(self._daemon.services.catch_up(before))
        done, _ = await asyncio.wait([self._catching_up], timeout=PATIENCE)
        return self._catching_up.result() if done else f"not done within {PATIENCE:g} s, and still tried"

    def _refuse(self, mistakes: tuple[Mistake, ...]) -> None:
        count = f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}"
        self._daemon.not_reloaded = f"{count} in the configuration; the first: {mistakes[0]}"
        log.error("configuration not reloaded, and nothing changed", mistakes=len(mistakes))
        for mistake in mistakes[:SAID_MAX]:
            detail = f"{mistake.wrong}; {mistake.right}"
            file = None if mistake.file is None else str(mistake.file)
            log.error("mistake in the configuration", key=mistake.key, detail=detail, file=file)
