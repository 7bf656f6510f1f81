# SPDX-License-Identifier: Apache-2.0
"""The settings in force: the configuration file's, and over them what commands set and the ledger keeps (CMD-4).

Rules of this file: a value counts only when it is synced to disk; a ledger that can't be read leaves the file's values;
what the ledger holds and can't be used is said, left as it is, and counts for nothing.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import structlog

from atrund.atrun import stored
from atrund.atrun.family.services import clashes
from atrund.atrun.request import Request
from atrund.atrun.secrets import MASK
from atrund.atrun.settings import Settings
from atrund.atrun.stored import SettingError
from atrund.clock import Clock, rfc3339
from atrund.ledger import Ledger, StorageError, nvm
from atrund.ledger.nvm import Stored

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Hidden:
    """A value of the file, or a default, that a command's counts before: who set that, and when."""

    key: str
    door: str
    peer: str
    ts: str


class Nvm:
    """The settings. `locked`: those of the file only, whatever was stored."""

    def __init__(self, base: Settings, *, ledger: Ledger, clock: Clock, locked: bool = False) -> None:
        self.locked = locked
        self.settings = base
        self.failure = ""
        """Why what commands had set is not known, if it is not."""
        self.on_change: Callable[[Settings], None] = lambda _before: None
        """Told after each change, with the settings before it."""
        self._base = base
        self._ledger = ledger
        self._clock = clock
        self._stored: dict[str, Stored] = {}

    async def load(self) -> None:
        """Read what was stored and lay it over the file's values."""
        try:
            self._stored = await self._ledger.ask(nvm.stored())
        except StorageError as error:
            self.failure = str(error)
            log.error("settings of commands unknown; the file's count", detail=str(error))  # noqa: TRY400 - said whole
            return
        self._settle()
        self._tell_hidden()

    async def keep(self, settings: Settings, keys: Iterable[str], request: Request) -> None:
        """Make `settings` those in force, once these keys of them are on disk. Raises `StorageError`."""
        rows = stored.to_rows(settings, keys)
        if not rows:
            return
        ts = rfc3339(self._clock.now())
        door, peer = request.door.value, request.peer
        await self._ledger.durable(nvm.keep(rows, door=door, peer=peer, ts=ts))
        self._stored |= {key: Stored(key, value, door, peer, ts) for key, value in rows.items()}
        before = self.settings
        self.settings = before.changed({key: settings.value(key) for key in rows})  # a reset may have come meanwhile
        self.on_change(before)

    async def take(self, values: Mapping[str, Any], request: Request) -> tuple[SettingError, ...]:
        """Set all of these, given as `export` gives them, or none: returns the mistakes. Raises `StorageError`."""
        settings, mistakes = self._weigh(values)
        if not mistakes:
            await self.keep(settings, values, request)
        return mistakes

    def export(self, *, secrets: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return what commands set and can be used, as plain values, and the keys left out for their secrets."""
        given: dict[str, Any] = {}
        kept_back = []
        for key, row in self._stored.items():
            try:
                settings = Settings().changed({key: stored.load(key, row.value)})
            except SettingError:
                continue
            given[key] = json.loads(stored.dump(settings, key))
            if not secrets and given[key] != json.loads(stored.shown(settings, key)):
                del given[key]
                kept_back.append(key)
        return given, tuple(kept_back)

    def clash_without(self, keys: Iterable[str]) -> str:
        """Return what would not go together if these were put back to the file's values, or ""."""
        left = {key: row.value for key, row in self._stored.items() if key not in set(keys)}
        settings, _ = stored.from_rows(left, self._base)
        return clashes(settings) if not clashes(self.settings) else ""

    async def reset(self, keys: Iterable[str]) -> tuple[str, ...]:
        """Put settings back to the file's values; returns those that were others. Raises `StorageError`."""
        there = tuple(key for key in keys if key in self._stored)
        await self._ledger.durable(nvm.forget(there))
        for key in there:
            del self._stored[key]
        before = self.settings
        self._settle()
        self.on_change(before)
        return there

    def rebase(self, base: Settings, *, locked: bool = False) -> None:
        """Take the file's values anew, and say which of them are hidden as at the start."""
        self.locked = locked
        self._base = base
        before = self.settings
        self._settle()
        self._tell_hidden()
        self.on_change(before)

    def clash_with(self, base: Settings, *, locked: bool) -> str:
        """Return what would not go together on these values of the file, or ""."""
        rows = {} if locked else {key: row.value for key, row in self._stored.items()}
        settings, _ = stored.from_rows(rows, base)
        return clashes(settings) if not clashes(self.settings) else ""

    def hidden(self) -> tuple[Hidden, ...]:
        """Return whose value of the file is hidden: what is stored there and is another."""
        return tuple(
            Hidden(key, row.door, row.peer, row.ts)
            for key, row in self._stored.items()
            if key in stored.KEYS and self._base.value(key) != self.settings.value(key)
        )

    def status(self) -> dict[str, object]:
        """Return what `atrunctl status` shows of the settings."""
        hidden = [asdict(one) for one in self.hidden()]
        return {"locked": self.locked, "failure": self.failure, "hidden": hidden}

    def origin(self, key: str) -> Stored | None:
        """Return what set a setting's value, None for the file or a default."""
        return None if self.locked else self._stored.get(key)

    def unusable(self) -> tuple[SettingError, ...]:
        """Return what is stored and counts for nothing, and why."""
        return stored.from_rows({key: row.value for key, row in self._stored.items()}, self._base)[1]

    def shown(self) -> Mapping[str, str]:
        """Return every setting's value as text, secrets masked, by key."""
        return {key: stored.shown(self.settings, key) for key in stored.KEYS}

    def _weigh(self, values: Mapping[str, Any]) -> tuple[Settings, tuple[SettingError, ...]]:
        """Return the settings with these values laid over them, and what is wrong with them, each with its key."""
        rows = {key: json.dumps(value) for key, value in values.items()}
        masked = tuple(_masked(key, text) for key, text in rows.items() if _is_masked(key, text))
        if masked:
            return self.settings, masked
        whole = {key: row.value for key, row in self._stored.items()} | rows
        settings, errors = stored.from_rows(whole, self._base)
        old = {str(error) for error in self.unusable()}
        mistakes = tuple(error for error in errors if error.key in rows or str(error) not in old)
        if not mistakes and (clash := clashes(settings)):
            mistakes = (SettingError("tcp.instance" if "tcp.instance" in rows else "sms.instance", clash),)
        return settings, mistakes

    def _tell_hidden(self) -> None:
        for one in self.hidden():
            log.info(
                "setting of a command counts before the file's",
                key=one.key,
                door=one.door,
                peer=one.peer or None,
                since=one.ts,
            )

    def _settle(self) -> None:
        if self.locked:
            self.settings = self._base
            return
        rows = {key: row.value for key, row in self._stored.items()}
        self.settings, errors = stored.from_rows(rows, self._base)
        for error in errors:
            log.warning("a stored setting is not used", key=error.key, detail=str(error))


def _is_masked(key: str, text: str) -> bool:
    """Whether a value is one that was shown and not exported: taken, it would make the mask the password."""
    try:
        settings = Settings().changed({key: stored.load(key, text)})
    except SettingError:
        return False
    kind = stored.KEYS[key]
    return (
        kind.secret
        and MASK in text
        and stored.dump(settings, key) == json.dumps(json.loads(stored.shown(settings, key)), separators=(",", ":"))
    )


def _masked(key: str, _text: str) -> SettingError:
    return SettingError(key, "its secret is masked; atrunctl nvm export --secrets gives it")
