# SPDX-License-Identifier: Apache-2.0
"""What the broker is told of the daemon's own accord: `module/state`, `info`, `urc`, `metrics`; and Home Assistant.

Rule of this file: nothing here waits for the broker; what is not retained and finds no connection is dropped.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final

from atrund import __version__, records
from atrund.at.syntax import LINE_MAX
from atrund.broker import Broker
from atrund.config import Config
from atrund.ledger import Ledger, StorageError, tables
from atrund.metrics import Metrics
from atrund.mirror import Mirror

FIRST: Final = 60.0
"""Seconds after a connection at which the metrics are told first, give or take half of them.

So a fleet sees what came back, a line that comes and goes costs nothing, and a broker that did is not met by all of
them at once.
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is so at the moment: the configuration in force, what `module/state` shows, which doors are open."""

    config: Callable[[], Config]
    module: Callable[[], Mapping[str, object]]
    doors: Callable[[], list[str]]


class Telling:
    """Tells what is so now; without a `broker` it does nothing."""

    def __init__(
        self, facts: Facts, metrics: Metrics, *, ledger: Ledger, mirror: Mirror, broker: Broker | None
    ) -> None:
        self.broker = broker
        self._mirror = mirror
        self._ledger = ledger
        self._metrics = metrics
        self._facts = facts
        self._told: dict[str, object] = {}
        """The last payload by topic, without its stamp."""
        self._announced: set[str] | None = None
        """Where a discovery of ours may lie at the broker, over all starts; None until that is known."""
        self._anew = asyncio.Event()
        """Set with each connection, and where another interval counts."""
        self._random = Random(mirror.base)  # noqa: S311 - spreads nodes in time, guards nothing
        if broker is not None:
            broker.on_connected = self._anew.set

    async def begin(self) -> None:
        """Tell what is so at the start; the ledger has to be there."""
        if self.broker is None:
            return
        try:
            text: str = await self._ledger.ask(tables.get_text(_ANNOUNCED))
        except StorageError:
            text = ""
        self._announced = set(text.split("\n")) - {""}
        self.look()

    async def run(self) -> None:
        """Tell the metrics for ever, from a while after each connection on."""
        first = True
        while True:
            self._anew.clear()
            every = self._facts.config().mqtt.metrics
            pause = min(FIRST * self._random.uniform(0.5, 1.5), every) if first else every
            try:
                async with asyncio.timeout(pause if every else None):
                    await self._anew.wait()
                first = True
            except TimeoutError:
                first = False
                await self._measure()

    def look(self) -> None:
        """Tell what the module is like and what the daemon is, where that changed."""
        if self.broker is None:
            return
        module = dict(self._facts.module())
        if self._is_new("module/state", module):
            self.broker.tell("module/state", records.state_record(self._mirror.stamp(), module))
        info = self._info(module)
        if self._is_new("info", info):
            self.broker.tell("info", records.info_record(self._mirror.stamp(), info))
        if self._announced is not None:
            self._announce(self.broker, self._announced, module)

    def follow(self) -> None:
        """Go by another configuration."""
        self._anew.set()
        self.look()

    def unsolicited(self, lines: tuple[str, ...]) -> None:
        """Tell an unsolicited code, where that is wanted."""
        if self.broker is not None and self._facts.config().mqtt.urc:
            payload = records.urc_record(self._mirror.stamp(), self._mirror.unsolicited(lines))
            self.broker.publish(f"{self._mirror.base}urc", payload, {}, qos=0)

    async def _measure(self) -> None:
        if self.broker is not None and self.broker.connected:
            payload = await self._metrics.record(self._mirror.stamp(), self.broker.connects)
            self.broker.publish(f"{self._mirror.base}metrics", payload, {}, qos=0)

    def _is_new(self, topic: str, payload: dict[str, object]) -> bool:
        before, self._told[topic] = self._told.get(topic), payload
        return payload != before

    def _announce(self, broker: Broker, announced: set[str], module: Mapping[str, object]) -> None:
        """Have Home Assistant find the module, or no longer, where it was made to before."""
        given = self._facts.config().mqtt.homeassistant
        wanted = ""
        if given.enabled:
            from atrund import homeassistant  # noqa: PLC0415 - few want it

            wanted, payload = homeassistant.discovery(
                given.prefix,
                self._mirror.base,
                name=self._facts.config().node,
                version=__version__,
                model=str(module["model"]),
                firmware=str(module["firmware"]),
            )
            if self._is_new(wanted, payload):
                announced.add(wanted)
                self._keep(announced)
                broker.retain(wanted, records.to_json(payload))
        for topic in announced - {wanted}:
            if self._is_new(topic, {}):
                broker.clear(topic, partial(self._forget, announced, topic))

    def _forget(self, announced: set[str], topic: str) -> None:
        announced.discard(topic)
        self._keep(announced)

    def _keep(self, announced: set[str]) -> None:
        self._ledger.behind(tables.set_text(_ANNOUNCED, "\n".join(sorted(announced))))

    def _info(self, module: Mapping[str, object]) -> dict[str, object]:
        return {
            "version": __version__,
            "contract": records.VERSION,
            **{name: module[name] for name in ("model", "firmware", "imei", "iccid") if name in module},
            "doors": self._facts.doors(),
            "line_max": LINE_MAX,
            "queue_depth": self._facts.config().queue.depth,
            "spool": self._facts.config().mqtt.spool,
        }


_ANNOUNCED: Final = "homeassistant"
