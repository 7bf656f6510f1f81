# SPDX-License-Identifier: Apache-2.0
"""The one place that knows paho: one connection to the broker, used once (MQ-1, MQ-2, MQ-6).

Rules of this file: paho's callbacks do one line each, on its thread, and everything else happens on the event loop;
what was received is acknowledged only on the connection on which it came.
"""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
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

log = structlog.get_logger()

WINDOW: Final = 20
"""Messages in flight: what mosquitto takes by default, and few enough to be sent again after a loss."""
RECEIVE_MAX: Final = 100
"""Requests that the broker may send without an acknowledgement (MQTT 5): so many wait for the disk at once.

Not every broker keeps to it (mosquitto 2.0.11 sends a thousand behind the first acknowledgement), and MQTT 3.1.1 has no
such word: the rest is not read from the socket then.
"""
PLACE_WAIT: Final = 1.0
"""Seconds for which one more waits unread: a disk that hangs is not to end the connection, which pings meanwhile."""
PACKET_MAX: Final = 131_072
"""Octets of a packet that the broker may send (MQTT 5): the largest request, with room for topic and properties."""
QUEUED_WINDOW: Final = 5.0
QUEUED_AWAY: Final = 60.0
"""Seconds of MQ-2: a request that came so soon after so long an absence was queued at the broker."""


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


class Connection:
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
        self._places = threading.Semaphore(RECEIVE_MAX)
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
        client.on_message = lambda _c, _u, message: self._hop(self._came, message, self._has_place(message))
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
            if flags.session_present and self._away > QUEUED_AWAY:
                self._queued_until = self._loop.time() + QUEUED_WINDOW
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

    def _has_place(self, message: paho.MQTTMessage) -> bool:
        """Wait until one more may wait for its acknowledgement; on paho's thread, which reads nothing meanwhile."""
        return message.qos > 0 and not self._over and self._places.acquire(timeout=PLACE_WAIT)

    def _came(self, message: paho.MQTTMessage, has_place: bool) -> None:  # noqa: FBT001 - hopped over as it is
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
                ack=lambda: self._acknowledge(message, has_place),
                qos=message.qos,
            )
        )

    def _acknowledge(self, message: paho.MQTTMessage, has_place: bool) -> None:  # noqa: FBT001 - as above
        if has_place:
            self._places.release()
        if not self._over:
            self._client.ack(message.mid, message.qos)


def _properties(packet: int) -> Properties:
    return Properties(packet)  # type: ignore[no-untyped-call]  # paho leaves its constructor untyped


def _no_delay(_client: paho.Client, _userdata: object, connection: Any) -> None:  # noqa: ANN401 - a socket or paho's wrapper
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _tls_context(settings: BrokerSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=None if settings.ca_file is None else str(settings.ca_file))
    if settings.cert_file is not None:
        context.load_cert_chain(settings.cert_file, settings.key_file)
    return context
