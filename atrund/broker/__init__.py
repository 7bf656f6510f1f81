# SPDX-License-Identifier: Apache-2.0
"""The broker: keeps a connection to it, hands requests in, has the outbox drained (MQ-1 to MQ-6).

Rule of this room: one connection after the other, each used once; what must outlive one lies in the ledger.
"""

import asyncio
import contextlib
import math
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from atrund.broker import lean  # noqa: F401 - before anything of paho
from atrund.broker.connection import BrokerError, BrokerSettings, Connection, Incoming
from atrund.broker.outbox import Outbox
from atrund.ledger import Ledger, StorageError, tables
from atrund.records import to_json

__all__ = ["Broker", "BrokerError", "BrokerSettings", "Incoming", "switched_off"]

log = structlog.get_logger()

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
STABLE: Final = 30.0
"""Seconds after which a connection counts as one that held, so that the next loss is tried again at once."""
GOODBYE: Final = 2.0
"""Seconds for the farewell at a clean stop; the will says `offline` too if the broker does not take it in time."""
FLUSH: Final = 1.5
"""Of those, seconds for what waits in the outbox; what is not out by then is sent after the next start."""


class Broker:
    """Runs until cancelled."""

    def __init__(
        self,
        settings: BrokerSettings,
        *,
        base: str,
        subscriptions: tuple[str, ...],
        ledger: Ledger,
        status: Callable[[str, str | None], Mapping[str, Any]],
        on_message: Callable[[Incoming], None],
    ) -> None:
        """`base` is `<prefix>/<node>/`; `status` builds the payload of a state with its reason."""
        self.connected = False
        self._settings = settings
        self._base = base
        self._subscriptions = subscriptions
        self._ledger = ledger
        self._status = status
        self._on_message = on_message
        self._connection: Connection | None = None
        self._outbox = Outbox(ledger)
        self._draining: asyncio.Task[None] | None = None
        self._states: dict[str, str] = {}
        """The retained states by topic: as many as there are kinds."""
        self._away_since = -math.inf
        """When there was a connection last, on the loop's clock."""
        self._random = random.Random(settings.client_id)  # noqa: S311 - spreads nodes in time, guards nothing

    async def run(self) -> None:
        """Stay connected for ever, with growing, jittered pauses between tries."""
        loop = asyncio.get_running_loop()
        pause, said = FIRST_PAUSE, ""
        self._away_since = loop.time() - await self._away_before()
        while True:
            begun = loop.time()
            try:
                await self._live_once()
            except BrokerError as error:
                if str(error) != said:  # once for each cause, however often it is tried
                    said = str(error)
                    log.warning("broker away", host=self._settings.host, detail=said)
            if loop.time() - begun > STABLE:
                pause, said = FIRST_PAUSE, ""
            await asyncio.sleep(pause * self._random.uniform(0.5, 1.0))
            pause = min(pause * 2, LONGEST_PAUSE)

    async def say_goodbye(self, reason: str) -> None:
        """Send what waits, publish `offline` behind it and leave in order; bounded, because a stop must end."""
        connection = self._connection
        if connection is None:
            return
        try:
            async with asyncio.timeout(GOODBYE):
                await self._flush(connection)
                await connection.publish_acknowledged(
                    self._base + "status", to_json(self._status("offline", reason)), retain=True
                )
        except (TimeoutError, BrokerError):
            log.info("broker did not acknowledge the farewell")
        connection.disconnect()

    def publish(self, topic: str, payload: Mapping[str, Any], extra: Mapping[str, str]) -> None:
        """Publish past the outbox: for what the disk could not take."""
        if self._connection is not None:
            self._connection.publish(topic, to_json(payload), extra, retain=False)

    def tell(self, topic: str, payload: Mapping[str, Any]) -> None:
        """Publish a state, retained, below the node's prefix: now, and at each connection anew."""
        self._states[self._base + topic] = to_json(payload)
        if self._connection is not None:
            self._connection.publish(self._base + topic, to_json(payload), {}, retain=True)

    async def _live_once(self) -> None:
        loop = asyncio.get_running_loop()
        away = loop.time() - self._away_since
        connection = Connection(self._settings, loop, self._will(), self._receive, away)
        try:
            session_present = await connection.open()
            connection.subscribe(tuple(self._base + topic for topic in self._subscriptions))
            connection.publish(self._base + "status", to_json(self._status("online", None)), {}, retain=True)
            for topic, payload in self._states.items():
                connection.publish(topic, payload, {}, retain=True)
            self._connection, self.connected = connection, True
            log.info("broker connected", host=self._settings.host, session_present=session_present)
            self._ledger.behind(tables.set_meta(_AWAY, _NOT_AWAY))
            self._draining = loop.create_task(self._outbox.drain(connection), name="outbox")
            try:
                await connection.closed
            finally:
                self._draining.cancel()
        finally:
            if self.connected:
                self._away_since = loop.time()
                self._ledger.behind(tables.set_meta(_AWAY, self._ledger.run))
                self._outbox.lost(connection.in_flight)
            self._connection, self.connected = None, False
            await connection.close()

    async def _away_before(self) -> float:
        """Return for how many seconds there had been no connection at the start, infinite where that is not known.

        What the daemon ran without one, and all the time that it did not run: a request may have waited through both.
        """
        try:
            away: float = await self._ledger.ask(tables.get_meta(_AWAY, 0.0))
        except StorageError:
            return math.inf
        return self._ledger.down + (0.0 if away == _NOT_AWAY else max(0.0, self._ledger.run - away))

    async def _flush(self, connection: Connection) -> None:
        """Give what waits a while to go out; then nothing more is sent, so that `offline` is the last word."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH):
                await self._outbox.flush(connection)
        if self._draining is not None:
            self._draining.cancel()

    def _receive(self, message: Incoming) -> None:
        try:
            self._on_message(message)
        except Exception:  # a message must never end the connection for all others
            log.exception("request not handled")

    def _will(self) -> tuple[str, str]:
        return self._base + "status", to_json(self._status("offline", "connection lost"))


def switched_off(ledger: Ledger) -> None:
    """Take note that there is no MQTT: what comes to the broker meanwhile has waited there when there is (MQ-2)."""
    ledger.behind(tables.set_meta(_AWAY, 0.0))


_AWAY: Final = "mqtt_away"
"""At which second of the daemon's running (REQ-11) the connection was lost."""
_NOT_AWAY: Final = -1.0
