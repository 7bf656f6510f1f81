# SPDX-License-Identifier: Apache-2.0
"""The broker: keeps a connection to it, hands requests in, has the outbox drained (MQ-1 to MQ-6).

Rule of this room: one connection after the other, each used once; what must outlive one lies in the ledger.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from atrund.broker import lean  # noqa: F401 - before anything of paho
from atrund.broker.apart import answers
from atrund.broker.connection import Connection
from atrund.broker.dialling import Dialling, Failure
from atrund.broker.notes import Notes
from atrund.broker.outbox import Outbox
from atrund.broker.retained import Retained
from atrund.broker.settings import BrokerError, BrokerSettings, Incoming, Place, Then
from atrund.broker.twin import Twin
from atrund.ledger import Ledger, StorageError, tables
from atrund.records import to_json

__all__ = ["Broker", "BrokerError", "BrokerSettings", "Incoming", "Place", "switched_off"]

log = structlog.get_logger()

GOODBYE: Final = 2.0
"""Seconds for the farewell at a clean stop; the will says `offline` too if the broker does not take it in time."""
FLUSH: Final = 1.5
"""Of those, seconds for what waits in the outbox; what is not out by then is sent after the next start."""
NOTE_WAIT: Final = 2.0
"""Seconds for the disk to take a note, before the broker is spoken to without it."""
HEAL_EVERY: Final = 10.0
"""Seconds between two times that `online` is said over a belated `offline`: with another device it would be a fight."""
ELSEWHERE: Final = "another broker"
"""The reason of `offline` at a broker that is left for a better one."""


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
        clock_known: Callable[[], bool] = lambda: True,
    ) -> None:
        """`base` is `<prefix>/<node>/`; `status` builds the payload of a state with its reason and its `session`.

        `clock_known`: whether this machine's clock is set, without which no certificate can be judged.
        """
        self.connected = False
        self.connects = 0
        """How often there was a connection, since the start."""
        self.on_connected: Callable[[], None] = _nobody
        self._each = settings.each()
        self._base = base
        self._subscriptions = subscriptions
        self._ledger = ledger
        self._status = status
        self._on_message = on_message
        self._connection: Connection | None = None
        self._outbox = Outbox(ledger)
        self._draining: asyncio.Task[None] | None = None
        self._retained = Retained(self._publish)
        self._clock_known = clock_known
        self._random = random.Random()  # noqa: S311 - spreads nodes in time, guards nothing
        self._dialling = Dialling(
            len(self._each), spread=settings.spread, longest=settings.reconnect_max, uniform=self._random.uniform
        )
        self._changed = asyncio.Event()
        self._which = 0
        self._away = ""
        """Why there is no connection."""
        self._said: dict[int, str] = {}
        self._left = False
        """Whether the farewell was said, behind which nothing more is."""
        self._parting = asyncio.Lock()
        self._notes = Notes((), run=0.0)
        self._remembers = True
        """Whether it is known in whose names the runs before spoke."""
        self._twin = Twin()
        self._spoken: set[str] = set()
        """The brokers at which this run said `online`."""
        self._spoke_before = False
        """Whether it had done so at this one before the connection that there is."""
        self._watches = True
        self._healed = -HEAL_EVERY

    async def run(self) -> None:
        """Stay connected for ever: to the preferred broker, or to one that stands in for it."""
        loop = asyncio.get_running_loop()
        self._notes = await self._notes_before()
        self._dialling.begin(loop.time())
        while not self._left:
            which, pause = self._dialling.next(loop.time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            if self._changed.is_set():
                self._changed.clear()
                self._dialling.begin(loop.time())
                continue
            await self._live_once(which)
        await loop.create_future()

    def follow(self, settings: BrokerSettings) -> None:
        """Go by other settings from the next connection on, and try that now if there is none; the places stay."""
        if (each := settings.each()) != self._each:
            self._each = each
            self._said.clear()
            if self._connection is None:
                self._changed.set()

    def report(self) -> dict[str, object]:
        """Return what `atrunctl status` shows of it."""
        now = asyncio.get_running_loop().time()
        return {
            "connected": self.connected,
            "broker": self._each[self._which].name,
            "preferred": self._which == 0,
            "detail": self._away,
            "another_device": self._twin.is_there(now),
        }

    async def say_goodbye(self, reason: str) -> None:
        """Send what waits, publish `offline` behind it and leave in order; bounded, because a stop must end."""
        self._left = True
        async with self._parting:
            if self._connection is not None:
                await self._part(self._connection, reason)

    def publish(self, topic: str, payload: Mapping[str, Any], extra: Mapping[str, str], *, qos: int = 1) -> None:
        """Publish past the outbox: for what the disk could not take, and with QoS 0 what may be lost."""
        self._publish(topic, to_json(payload), extra, retain=False, qos=qos)

    def tell(self, topic: str, payload: Mapping[str, Any]) -> None:
        """Publish a state, retained, below the node's prefix: now, and at each connection anew."""
        self.retain(self._base + topic, to_json(payload))

    def retain(self, topic: str, text: str) -> None:
        """Publish a state in the same way wherever `topic` is."""
        self._retained.put(topic, text, self._each[self._which].name)

    def clear(self, topic: str, then: Callable[[], None]) -> None:
        """Take a retained message away from each broker; `then` is called once all of them have done it."""
        names = [settings.name for settings in self._each]
        self._retained.take(topic, names, then, self._each[self._which].name)

    async def _live_once(self, which: int) -> None:
        loop = asyncio.get_running_loop()
        settings = self._each[which]
        away = self._notes.away(settings.name, self._ledger.run)
        connection = Connection(settings, loop, self._will(), self._receive, away)
        self._which, begun = which, None
        try:
            session_present = await connection.open()
            if self._left:
                return
            begun = loop.time()
            await self._be_born(connection, settings, session_present=session_present)
            await self._live(connection, which)
            self._dialling.left(loop.time())
        except BrokerError as error:
            self._fail(which, error, None if begun is None else loop.time() - begun)
        finally:
            if begun is not None:
                # Who drops a connection over that question is not asked on the next.
                self._watches = not self._watches or connection.watching is True
                self._notes.went(settings.name, self._ledger.run)
                self._ledger.behind(tables.set_text(_NOTES, self._notes.text))
                self._outbox.lost(connection.in_flight)
            self._connection, self.connected = None, False
            await connection.close()

    async def _be_born(self, connection: Connection, settings: BrokerSettings, *, session_present: bool) -> None:
        """Subscribe, and say what is so."""
        status = self._status("online", None)
        connection.subscribe(tuple(self._base + topic for topic in self._subscriptions))
        if self._notes.came(settings.name, str(status.get("session"))):
            # Before it is spoken: a run that finds it there must know it for one of this device.
            with contextlib.suppress(StorageError, TimeoutError):
                async with asyncio.timeout(NOTE_WAIT):
                    await self._ledger.ask(tables.set_text(_NOTES, self._notes.text))
        else:
            self._ledger.behind(tables.set_text(_NOTES, self._notes.text))
        if self._watches:
            connection.watch(self._base + "status")
        self._connection, self.connected, self._away = connection, True, ""
        self._spoke_before = settings.name in self._spoken
        self._publish(self._base + "status", to_json(status))
        self._spoken.add(settings.name)
        self._retained.born(settings.name)
        self.connects += 1
        self.on_connected()
        limits = connection.limits
        log.info(
            "broker connected",
            host=settings.name,
            session_present=session_present,
            packet_max=limits.packet_max,
            session_expiry=limits.session_expiry,
        )
        if not limits.retains:
            log.warning("broker keeps no retained messages: who comes later sees no status", host=settings.name)

    async def _live(self, connection: Connection, which: int) -> None:
        """Live with a connection until it is left for a better broker's. Raises `BrokerError` when it is lost."""
        loop = asyncio.get_running_loop()

        def drained(task: asyncio.Task[None]) -> None:
            # It ends by cancellation alone; a fault in it must end the daemon, not the mirror.
            if not task.cancelled() and (fault := task.exception()) is not None and not connection.closed.done():
                connection.closed.set_exception(fault)

        self._draining = loop.create_task(self._outbox.drain(connection), name="outbox")
        self._draining.add_done_callback(drained)
        returning = loop.create_task(self._better(which), name="better broker")
        try:
            await asyncio.wait({connection.closed, returning}, return_when=asyncio.FIRST_COMPLETED)
            if connection.closed.done():
                connection.closed.result()
            returning.result()
            async with self._parting:
                if not self._left:
                    await self._part(connection, ELSEWHERE)
        finally:
            self._draining.cancel()
            returning.cancel()

    async def _better(self, which: int) -> None:
        """Wait until a broker that is preferred to this one answers again, looked at now and then."""
        each = self._each
        while which == 0 or not each[0].return_after:
            await asyncio.get_running_loop().create_future()
        while True:
            # At random, for all of a fleet came here in the same minute.
            await asyncio.sleep(each[0].return_after * self._random.uniform(0.5, 1.0))
            for better in each[:which]:
                if await answers(better):
                    log.info("a preferred broker answers again", host=better.name)
                    return

    def _fail(self, which: int, error: BrokerError, lasted: float | None) -> None:
        """Take note of a try that failed, or of a connection that was lost after so many seconds."""
        now = asyncio.get_running_loop().time()
        self._away, failure = str(error), error.failure
        if self._away.startswith("TLS: ") and not self._clock_known():
            self._away += "; this machine's clock is not set, and that alone may be why"
            failure = Failure.AWAY
        if failure is Failure.TAKEN:
            self._twin.taken_over(now)
            self._look_for_twin(now)
            failure = Failure.AWAY
        if lasted is None:
            self._dialling.failed(which, failure, now)
        else:
            # What takes the connection away from us is not always said: MQTT 3.1.1 has no word for it.
            failure = Failure.TAKEN if self._twin.is_there(now) else failure
            self._dialling.lost(which, failure, lasted, now)
        if self._said.get(which) != self._away and not self._left:  # once for each cause, however often it is tried
            self._said[which] = self._away
            log.warning("broker away", host=self._each[which].name, detail=self._away)

    async def _part(self, connection: Connection, reason: str) -> None:
        try:
            async with asyncio.timeout(GOODBYE):
                await self._flush(connection)
                # From here on `offline` is the last word.
                self._connection = None
                await connection.publish_acknowledged(
                    self._base + "status", to_json(self._status("offline", reason)), retain=True
                )
        except (TimeoutError, BrokerError, ValueError):
            log.info("broker did not acknowledge the farewell")
        connection.disconnect()

    def _publish(
        self,
        topic: str,
        text: str,
        extra: Mapping[str, str] | None = None,
        *,
        retain: bool = True,
        qos: int = 1,
        then: Then | None = None,
    ) -> None:
        if self._connection is None:
            return
        try:
            self._connection.publish(topic, text, extra or {}, retain=retain, qos=qos, then=then)
        except ValueError as error:
            log.warning("message not sent", topic=topic, detail=str(error))

    async def _notes_before(self) -> Notes:
        """Return what was kept in the run before; kept anew at once, for how long the daemon was down is in it."""
        names = [settings.name for settings in self._each]
        try:
            kept: str = await self._ledger.ask(tables.get_text(_NOTES))
        except StorageError:
            kept, self._remembers = "", False
        notes = Notes(names, run=self._ledger.run, kept=kept, down=self._ledger.down)
        if notes.text != kept:
            self._ledger.behind(tables.set_text(_NOTES, notes.text))
        return notes

    async def _flush(self, connection: Connection) -> None:
        """Give what waits a while to go out; then nothing more is sent, so that `offline` is the last word."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH):
                await self._outbox.flush(connection)
        if self._draining is not None:
            self._draining.cancel()

    def _receive(self, message: Incoming) -> None:
        if message.topic == self._base + "status":
            self._see_status(message)
            return
        try:
            self._on_message(message)
        except Exception:  # a message must never end the connection for all others
            log.exception("request not handled")

    def _see_status(self, message: Incoming) -> None:
        """Look who speaks as this node; what is said over our own `online` by mistake is said back."""
        now, name = asyncio.get_running_loop().time(), self._each[self._which].name
        # What lies there at the birth is older than that.
        spoken = self._spoke_before or not message.retained
        if spoken or self._remembers:
            self._twin.status(message.payload, self._notes.sessions(name), now, spoken=spoken)
            self._look_for_twin(now)
        if (
            not message.retained
            and b'"offline"' in message.payload
            and self._connection is not None
            and now - self._healed >= HEAL_EVERY
        ):
            self._healed = now
            self._publish(self._base + "status", to_json(self._status("online", None)))

    def _look_for_twin(self, now: float) -> None:
        if self._twin.is_news(now):
            log.error(
                "another device uses this node's name; the broker is dialled slowly from now on",
                node=self._base.rstrip("/"),
                client_id=self._each[self._which].client_id,
                detail="give each a node of its own, or no node at all",
            )

    def _will(self) -> tuple[str, str]:
        return self._base + "status", to_json(self._status("offline", "connection lost"))


def switched_off(ledger: Ledger) -> None:
    """Take note that there is no MQTT: what comes to a broker meanwhile has waited there when there is (MQ-2)."""
    ledger.behind(tables.set_text(_NOTES, ""))


def _nobody() -> None:
    pass


_NOTES: Final = "mqtt_brokers"
"""Where the notes on the brokers are kept."""
