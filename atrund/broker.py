# SPDX-License-Identifier: Apache-2.0
"""The one place that knows paho: keeps a connection to the broker, drains the outbox, hands requests in (MQ-1 to MQ-6).

Rules of this file: one paho client a connection, never used again; its callbacks do one line each, on its thread, and
everything else happens on the event loop; a row leaves the outbox only when it was acknowledged on the connection on
which it was sent.
"""

import asyncio
import contextlib
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from atrund.ledger import Ledger, StorageError, tables
from atrund.records import to_json

log = structlog.get_logger()

WINDOW: Final = 20
"""Messages in flight: what mosquitto takes by default, and few enough to be sent again after a loss."""
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
STABLE: Final = 30.0
"""Seconds after which a connection counts as one that held, so that the next loss is tried again at once."""
LOSSES_MAX: Final = 3
"""Connections lost one after the other with the same record in flight, after which it is set aside (MQ-4)."""
RECEIVE_MAX: Final = 100
"""Requests that the broker may send without an acknowledgement (MQTT 5): so many wait for the disk at once."""
PACKET_MAX: Final = 131_072
"""Octets of a packet that the broker may send (MQTT 5): the largest request, with room for topic and properties."""
GOODBYE: Final = 2.0
"""Seconds for `offline` to be acknowledged at a clean stop; the will says the same if it is not."""


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Where the broker is and how it is spoken to. Times in seconds."""

    host: str
    port: int
    client_id: str
    version5: bool
    keepalive: int
    session_expiry: int
    connect_timeout: float
    user: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message as it came. `ack` tells the broker that it is recorded; it does nothing once the connection is gone."""

    topic: str
    payload: bytes
    retained: bool
    duplicate: bool
    response_topic: str | None
    correlation: bytes | None
    expiry: int | None
    queued: bool
    """It came right after a reconnection to a kept session, so it may have waited at the broker."""
    ack: Callable[[], None]
    qos: int = 1
    """With 0 nothing bounds how many come at once, and none comes again."""


class BrokerError(Exception):
    """The broker can't be had, or ended the connection; the text says why."""


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
        self._connection: _Connection | None = None
        self._posted = asyncio.Event()
        self._states: dict[str, str] = {}
        """The retained states by topic: as many as there are kinds."""
        self._away_since: float | None = None
        self._suspects: dict[int, int] = {}
        """Records in flight when the last connection was lost, and at how many in a row they were."""
        self._aside: set[int] = set()
        self._random = random.Random(settings.client_id)  # noqa: S311 - spreads nodes in time, guards nothing
        ledger.on_posted = self._posted.set

    async def run(self) -> None:
        """Stay connected for ever, with growing, jittered pauses between tries."""
        loop = asyncio.get_running_loop()
        pause, said = FIRST_PAUSE, ""
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
        """Publish `offline` and leave in order; bounded, because a stop must end."""
        connection = self._connection
        if connection is None:
            return
        try:
            async with asyncio.timeout(GOODBYE):
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
        away = 0.0 if self._away_since is None else loop.time() - self._away_since
        connection = _Connection(self._settings, loop, self._will(), self._receive, away)
        try:
            session_present = await connection.open()
            connection.subscribe(tuple(self._base + topic for topic in self._subscriptions))
            connection.publish(self._base + "status", to_json(self._status("online", None)), {}, retain=True)
            for topic, payload in self._states.items():
                connection.publish(topic, payload, {}, retain=True)
            self._connection, self.connected = connection, True
            log.info("broker connected", host=self._settings.host, session_present=session_present)
            drain = loop.create_task(self._drain(connection), name="outbox")
            try:
                await connection.closed
            finally:
                drain.cancel()
        finally:
            if self.connected:
                self._away_since = loop.time()
                self._suspect(connection.in_flight)
            self._connection, self.connected = None, False
            await connection.close()

    def _receive(self, message: Incoming) -> None:
        try:
            self._on_message(message)
        except Exception:  # a message must never end the connection for all others
            log.exception("request not handled")

    async def _drain(self, connection: "_Connection") -> None:
        """Send the outbox in order, a window at a time; acknowledged rows are taken out behind."""
        last = 0
        while True:
            self._posted.clear()
            try:
                rows: list[tables.Row] = await self._ledger.ask(tables.outbox_after(last, WINDOW))
            except StorageError as error:
                log.warning("outbox not read", detail=str(error))
                rows = []
            for row in rows:
                last = row.seq
                if row.seq in self._aside:
                    continue
                # Those that may have cost the last connection go alone, so that it shows which it was.
                doubtful = row.seq <= max(self._suspects, default=0) or not self._suspects.keys().isdisjoint(
                    connection.in_flight
                )
                await connection.room(1 if doubtful else WINDOW)
                text = to_json({"v": row.payload.get("v"), "seq": row.seq, **row.payload})
                try:
                    connection.publish(row.topic, text, row.extra, retain=False, row=row.seq, then=self._acknowledged)
                except ValueError as error:  # a topic that cannot be sent
                    self._set_aside(row.seq, str(error))
            if len(rows) < WINDOW:
                await self._posted.wait()

    def _acknowledged(self, seq: int) -> None:
        self._ledger.behind(tables.posted((seq,)))

    def _suspect(self, in_flight: Iterable[int]) -> None:
        self._suspects = {seq: self._suspects.get(seq, 0) + 1 for seq in in_flight}
        for seq, losses in self._suspects.items():
            if losses >= LOSSES_MAX:
                self._set_aside(seq, f"in flight at {losses} lost connections running")

    def _set_aside(self, seq: int, why: str) -> None:
        """Leave a record in the outbox until the next start, so that it holds up nobody."""
        self._aside.add(seq)
        log.error("record set aside", seq=seq, detail=why)

    def _will(self) -> tuple[str, str]:
        return self._base + "status", to_json(self._status("offline", "connection lost"))


_QUEUED_WINDOW: Final = 5.0
_QUEUED_AWAY: Final = 60.0
"""Seconds of MQ-2: a request that came so soon after so long an absence was queued at the broker."""


class _Connection:
    """One connection, used once."""

    def __init__(
        self,
        settings: BrokerSettings,
        loop: asyncio.AbstractEventLoop,
        will: tuple[str, str],
        on_message: Callable[[Incoming], None],
        away: float,
    ) -> None:
        """`away` is for how many seconds there was no connection. Raises `BrokerError`."""
        self.closed: asyncio.Future[None] = loop.create_future()
        self._settings = settings
        self._loop = loop
        self._on_message = on_message
        self._away = away
        self._queued_until = 0.0
        self._opened: asyncio.Future[bool] = loop.create_future()
        self._unacknowledged: dict[int, tuple[int, Callable[[int], None]]] = {}
        self._moved = asyncio.Event()
        self._started = False
        self._over = False
        try:
            self._client = self._make_client(will)
        except OSError as error:  # SSLError is one
            raise BrokerError(f"TLS: {error}; see mqtt.ca_file, cert_file and key_file") from error

    @property
    def in_flight(self) -> tuple[int, ...]:
        """The rows that were published and not acknowledged."""
        return tuple(row for row, _ in self._unacknowledged.values())

    async def room(self, window: int) -> None:
        """Wait until fewer than `window` rows are in flight."""
        while len(self._unacknowledged) >= window:
            self._moved.clear()
            await self._moved.wait()

    async def open(self) -> bool:
        """Connect; returns whether the broker kept a session. Raises `BrokerError`."""
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                await self._apart(self._connect)
                self._client.loop_start()
                self._started = True
                return await self._opened
        except TimeoutError:
            raise BrokerError(f"no answer within {self._settings.connect_timeout:g} s") from None
        except ssl.SSLError as error:
            raise BrokerError(f"TLS: {error}; is the clock right, and mqtt.ca_file the broker's?") from error
        except (OSError, ValueError) as error:
            raise BrokerError(str(error)) from error

    def subscribe(self, topics: tuple[str, ...]) -> None:
        """Subscribe with QoS 1, so that retained messages can be told and are not sent again (MQ-2)."""
        if self._settings.version5:
            options = SubscribeOptions(
                qos=1, retainAsPublished=True, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND
            )
            self._client.subscribe([(topic, options) for topic in topics])
        else:
            self._client.subscribe([(topic, 1) for topic in topics])

    def publish(
        self,
        topic: str,
        payload: str,
        extra: Mapping[str, str],
        *,
        retain: bool,
        row: int = 0,
        then: Callable[[int], None] | None = None,
    ) -> None:
        """Publish with QoS 1; `then` is called with `row` when the broker has it. Raises `ValueError`."""
        properties = None
        if self._settings.version5:
            properties = _properties(PacketTypes.PUBLISH)
            properties.ContentType = "application/json"
            if "correlation" in extra:
                properties.CorrelationData = bytes.fromhex(extra["correlation"])
        told = self._client.publish(topic, payload.encode(), qos=1, retain=retain, properties=properties)
        if then is not None:
            self._unacknowledged[told.mid] = row, then

    async def publish_acknowledged(self, topic: str, payload: str, *, retain: bool) -> None:
        """Publish and wait for the broker's acknowledgement. Raises `BrokerError` when the connection goes."""
        acknowledged: asyncio.Future[None] = self._loop.create_future()
        self.publish(topic, payload, {}, retain=retain, then=lambda _: acknowledged.set_result(None))
        await asyncio.wait({acknowledged, self.closed}, return_when=asyncio.FIRST_COMPLETED)
        if not acknowledged.done():
            raise BrokerError("the connection was lost")

    def disconnect(self) -> None:
        """Leave in order, so that the will is not published."""
        self._client.disconnect()

    async def close(self) -> None:
        """End the client's thread; whatever it still says is not heard."""
        self._over = True
        if self._started:
            self._client.disconnect()
            await self._loop.run_in_executor(None, self._client.loop_stop)
        if self.closed.done() and not self.closed.cancelled():
            self.closed.exception()  # whoever waited has seen it

    def _make_client(self, will: tuple[str, str]) -> paho.Client:
        settings = self._settings
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            clean_session=None if settings.version5 else False,
            protocol=paho.MQTTv5 if settings.version5 else paho.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.max_inflight_messages_set(WINDOW)
        client.max_queued_messages_set(2 * WINDOW)
        client.connect_timeout = settings.connect_timeout
        client.will_set(will[0], will[1].encode(), qos=1, retain=True)
        if settings.user:
            client.username_pw_set(settings.user, settings.password or None)
        if settings.tls:
            client.tls_set_context(_tls_context(settings))
        client.on_socket_open = _no_delay
        client.on_connect = lambda _c, _u, flags, code, _p: self._hop(self._connected, flags, code)
        client.on_disconnect = lambda _c, _u, _f, code, _p: self._hop(self._disconnected, code)
        client.on_publish = lambda _c, _u, mid, code, _p: self._hop(self._published, mid, code)
        client.on_message = lambda _c, _u, message: self._hop(self._came, message)
        client.on_subscribe = lambda _c, _u, _mid, codes, _p: self._hop(self._subscribed, codes)
        return client

    def _hop(self, act: Callable[..., None], *given: object) -> None:
        """Go over to the event loop; on paho's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to hear it
            self._loop.call_soon_threadsafe(self._act, act, given)

    def _act(self, act: Callable[..., None], given: tuple[object, ...]) -> None:
        if not self._over:
            act(*given)

    def _connect(self) -> None:
        settings = self._settings
        if settings.version5:
            properties = _properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = settings.session_expiry
            properties.ReceiveMaximum = RECEIVE_MAX
            properties.MaximumPacketSize = PACKET_MAX
            self._client.connect(
                settings.host, settings.port, settings.keepalive, clean_start=False, properties=properties
            )
        else:
            self._client.connect(settings.host, settings.port, settings.keepalive)
        if self._over and (late := self._client.socket()) is not None:
            late.close()

    async def _apart(self, work: Callable[[], None]) -> None:
        """Do what blocks on a thread that nobody waits for at a stop: looking a name up may take minutes."""
        done: Future[None] = Future()
        done.set_running_or_notify_cancel()

        def act() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - it is raised where it is awaited
                done.set_exception(error)
            else:
                done.set_result(None)

        threading.Thread(target=act, name="broker connect", daemon=True).start()
        await asyncio.wrap_future(done)

    def _connected(self, flags: paho.ConnectFlags, code: Any) -> None:  # noqa: ANN401 - paho's ReasonCode
        if self._opened.done():
            return
        if code.is_failure:
            self._opened.set_exception(BrokerError(f"refused: {code}"))
        else:
            # Here and not where it is awaited: the first message may be behind this on the way to the loop.
            if flags.session_present and self._away > _QUEUED_AWAY:
                self._queued_until = self._loop.time() + _QUEUED_WINDOW
            self._opened.set_result(bool(flags.session_present))

    def _disconnected(self, code: Any) -> None:  # noqa: ANN401 - as above
        error = BrokerError(f"connection lost: {code}")
        if not self._opened.done():
            self._opened.set_exception(error)
        elif not self.closed.done():
            self.closed.set_exception(error)

    def _published(self, mid: int, code: Any) -> None:  # noqa: ANN401 - as above
        row, then = self._unacknowledged.pop(mid, (0, None))
        if then is None:
            return
        self._moved.set()
        if code.is_failure:
            log.warning("record refused by the broker", seq=row, detail=str(code))
        then(row)

    def _subscribed(self, codes: list[Any]) -> None:
        if any(code.is_failure for code in codes):
            log.error("broker refused a subscription; requests cannot come in", detail=str(codes[0]))

    def _came(self, message: paho.MQTTMessage) -> None:
        properties = message.properties
        self._on_message(
            Incoming(
                topic=message.topic,
                payload=bytes(message.payload),
                retained=message.retain,
                duplicate=message.dup,
                response_topic=getattr(properties, "ResponseTopic", None),
                correlation=getattr(properties, "CorrelationData", None),
                expiry=getattr(properties, "MessageExpiryInterval", None),
                queued=self._loop.time() < self._queued_until,
                ack=lambda: self._acknowledge(message.mid, message.qos),
                qos=message.qos,
            )
        )

    def _acknowledge(self, mid: int, qos: int) -> None:
        if not self._over:
            self._client.ack(mid, qos)


def _properties(packet: int) -> Properties:
    return Properties(packet)  # type: ignore[no-untyped-call]  # paho leaves its constructor untyped


def _no_delay(_client: paho.Client, _userdata: object, connection: Any) -> None:  # noqa: ANN401 - a socket or paho's wrapper
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _tls_context(settings: BrokerSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=None if settings.ca_file is None else str(settings.ca_file))
    if settings.cert_file is not None:
        context.load_cert_chain(settings.cert_file, settings.key_file)
    return context
