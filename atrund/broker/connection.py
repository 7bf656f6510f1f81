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
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from atrund.broker import refusals
from atrund.broker.apart import apart
from atrund.broker.client import PACKET_MAX, Client, packed, properties_of, publish_properties, topic_of
from atrund.broker.dialling import Failure
from atrund.broker.settings import BrokerError, BrokerSettings, Incoming, Limits, Then

log = structlog.get_logger()

WINDOW: Final = 20
"""Messages in flight: what mosquitto takes by default, and few enough to be sent again after a loss."""
QUEUE_MAX: Final = 200
"""Messages that wait in memory for a place in the window: the states of all kinds, and a burst past the outbox."""
UNHEARD_MAX: Final = 120.0
"""Seconds that what was sent may go unacknowledged by the other machine before the connection counts as lost: outages
of a cellular link are shorter, and the kernel alone would take a quarter of an hour (tcp(7), TCP_USER_TIMEOUT)."""
RECEIVE_MAX: Final = 100
"""Requests that the broker may send without an acknowledgement (MQTT 5): so many wait for the disk at once.

Not every broker keeps to it (mosquitto 2.0.11 sends a thousand behind the first acknowledgement), and MQTT 3.1.1 has no
such word: the rest is not read from the socket then.
"""
SUBSCRIBE_AGAIN: Final = 600.0
"""Seconds until what the broker refused is asked for again: a connection lasts for months, a full broker or a missing
right does not."""
UNSENT_MAX: Final = 20
"""Messages of QoS 0 that wait for the socket, as many as the window: behind a line that hangs the rest is dropped."""
PLACE_WAIT: Final = 1.0
"""Seconds for which one more waits unread: a disk that hangs is not to end the connection, which pings meanwhile."""
LEAVE_WAIT: Final = 1.0
"""Seconds for the last packet to go out at the end: behind a line that hangs it would be as long as the keep-alive."""
QUEUED_WINDOW: Final = 5.0
QUEUED_AWAY: Final = 60.0
"""Seconds of MQ-2: a request that came so soon after so long an absence was queued at the broker."""


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
        """`away` is for how many seconds there was no connection to this broker."""
        self.closed: asyncio.Future[None] = loop.create_future()
        self.limits = Limits(WINDOW)
        """What the broker takes; known once `open` has returned."""
        self.watching: bool | None = None
        """Whether the broker shows us what is watched; None while it did not say."""
        self._settings = settings
        self._loop = loop
        self._on_message = on_message
        self._away = away
        self._queued_until = 0.0
        self._opened: asyncio.Future[bool] = loop.create_future()
        self._unacknowledged: dict[int, tuple[int, Then | None]] = {}
        self._held: deque[Callable[[], tuple[int, int, Then | None]]] = deque()
        self._topics: tuple[str, ...] = ()
        self._deaf = False
        """Whether it was said that a subscription was refused."""
        self._watch = 0
        self._dropped = False
        self._socket: Any = None
        self._unsent: set[int] = set()
        self._moved = asyncio.Event()
        self._places = threading.Semaphore(RECEIVE_MAX)
        self._started = False
        self._over = False
        self._client = self._make_client(will)

    @property
    def in_flight(self) -> tuple[int, ...]:
        """The rows that were published and not acknowledged."""
        return tuple(row for row, _ in self._unacknowledged.values() if row)

    async def room(self, window: int) -> None:
        """Wait until fewer than `window` messages are unacknowledged, and fewer than the broker takes."""
        while len(self._unacknowledged) + len(self._held) >= min(window, self.limits.window):
            self._moved.clear()
            await self._moved.wait()

    async def open(self) -> bool:
        """Connect; returns whether the broker kept a session. Raises `BrokerError`."""
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                await apart(self._connect)
                self._client.loop_start()
                self._started = True
                return await self._opened
        except TimeoutError:
            raise BrokerError(f"no answer within {self._settings.connect_timeout:g} s") from None
        except (ssl.SSLError, ConnectionResetError) as error:
            if not self._settings.tls:
                raise BrokerError(str(error.strerror)) from error
            from atrund.broker.tls import failed  # noqa: PLC0415 - for those who speak TLS alone

            raise failed(error) from error
        except socket.gaierror as error:
            raise BrokerError(f"its name can't be looked up: {error.strerror}") from error
        except (OSError, ValueError) as error:
            raise BrokerError(getattr(error, "strerror", None) or str(error)) from error

    def subscribe(self, topics: tuple[str, ...]) -> None:
        """Subscribe with QoS 1, so that retained messages can be told and are not sent again (MQ-2)."""
        self._topics = topics
        if self._settings.version5:
            options = SubscribeOptions(
                qos=1, retainAsPublished=True, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND
            )
            self._client.subscribe([(topic, options) for topic in topics])
        else:
            self._client.subscribe([(topic, 1) for topic in topics])

    def watch(self, topic: str) -> None:
        """Have what others publish there handed in, what lies there retained first; with QoS 0."""
        if self._settings.version5:
            _, mid = self._client.subscribe(topic, options=SubscribeOptions(qos=0, noLocal=True))
        else:
            _, mid = self._client.subscribe(topic, 0)
        self._watch = mid or 0

    def publish(
        self,
        topic: str,
        payload: str,
        extra: Mapping[str, str],
        *,
        retain: bool,
        qos: int = 1,
        row: int = 0,
        then: Then | None = None,
    ) -> None:
        """Publish; `then` is called once the broker said what becomes of it, which it does with QoS 1 alone.

        `extra`: "correlation" is Correlation Data in hexadecimal, "expiry" the Message Expiry in seconds, and all else
        goes as User Properties; MQTT 3.1.1 has none of them. Raises `ValueError` for what this broker can't be sent.
        """
        properties = publish_properties(extra) if self._settings.version5 else None
        data = payload.encode()
        self._check_size(topic, data, properties)
        retain = retain and self.limits.retains
        if qos == 0:
            if len(self._unsent) < UNSENT_MAX:
                self._unsent.add(self._client.publish(topic, data, 0, retain, properties).mid)
        elif len(self._held) < QUEUE_MAX:
            self._held.append(lambda: (self._client.publish(topic, data, 1, retain, properties).mid, row, then))
            self._send_held()
        elif not self._dropped:
            self._dropped = True
            log.warning("messages dropped: too many wait for the broker", topic=topic)

    def _send_held(self) -> None:
        """Send what has a place in the window; paho goes by its own, whatever the broker said."""
        while self._held and len(self._unacknowledged) < self.limits.window:
            mid, row, then = self._held.popleft()()
            self._unacknowledged[mid] = row, then

    async def publish_acknowledged(self, topic: str, payload: str, *, retain: bool) -> None:
        """Publish and wait for the broker's acknowledgement. Raises `BrokerError` when the connection goes."""
        acknowledged: asyncio.Future[None] = self._loop.create_future()
        self.publish(topic, payload, {}, retain=retain, then=lambda _row, _refused: acknowledged.set_result(None))
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
            stopping = self._loop.run_in_executor(None, self._client.loop_stop)
            try:
                await asyncio.wait({stopping}, timeout=LEAVE_WAIT)
            finally:
                with contextlib.suppress(OSError):  # it is closed, as it should be
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # past TLS, whose own is not for two threads
            await stopping
        self._client.let_go()
        if self.closed.done() and not self.closed.cancelled():
            self.closed.exception()  # whoever waited has seen it

    def _make_client(self, will: tuple[str, str]) -> Client:
        settings = self._settings
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            clean_session=None if settings.version5 else False,
            protocol=paho.MQTTv5 if settings.version5 else paho.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.max_inflight_messages_set(WINDOW)
        # For each address of the name, and for TLS: one that nobody answers at is not to take the time of all others.
        client.connect_timeout = settings.connect_timeout / 2
        client.will_set(will[0], will[1].encode(), qos=1, retain=True)
        if settings.user:
            client.username_pw_set(settings.user, settings.password or None)
        client.on_socket_open = lambda _c, _u, connection: self._socket_is(connection)
        client.on_connect = lambda _c, _u, flags, code, given: self._hop(self._connected, flags, code, given)
        client.on_disconnect = lambda _c, _u, _f, code, given: self._hop(self._disconnected, code, given)
        client.on_publish = lambda _c, _u, mid, code, _p: self._hop(self._published, mid, code)
        client.on_message = lambda _c, _u, message: self._hop(self._came, message, self._has_place())
        client.on_subscribe = lambda _c, _u, mid, codes, _p: self._hop(self._subscribed, mid, codes)
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
        if settings.tls:
            from atrund.broker.tls import make_context  # noqa: PLC0415 - for those who speak TLS alone

            self._client.tls_set_context(make_context(settings))
        if settings.version5:
            properties = properties_of(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = settings.session_expiry
            properties.ReceiveMaximum = RECEIVE_MAX
            properties.MaximumPacketSize = PACKET_MAX
            self._client.connect(
                settings.host, settings.port, settings.keepalive, clean_start=False, properties=properties
            )
        else:
            self._client.connect(settings.host, settings.port, settings.keepalive)
        if self._over:  # nobody waits for it any more
            self._client.let_go()

    def _socket_is(self, connection: Any) -> None:  # noqa: ANN401 - a socket or paho's wrapper
        self._socket = connection
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(UNHEARD_MAX * 1000))

    def _connected(self, flags: paho.ConnectFlags, code: Any, given: Any) -> None:  # noqa: ANN401 - paho's
        if self._opened.done():
            return
        if code.is_failure:
            failure, why = _explain(code, given)
            self._opened.set_exception(BrokerError(f"refused: {why}", failure))
        elif getattr(given, "MaximumQoS", 1) == 0:
            _, why = refusals.explain(0x9B, "it has QoS 0 alone")
            self._opened.set_exception(BrokerError(why, Failure.HOPELESS))
        else:
            self.limits = Limits(
                max(1, min(WINDOW, getattr(given, "ReceiveMaximum", WINDOW))),
                getattr(given, "MaximumPacketSize", None),
                bool(getattr(given, "RetainAvailable", 1)),
                getattr(given, "SessionExpiryInterval", None),
            )
            # Here and not where it is awaited: the first message may be behind this on the way to the loop.
            if flags.session_present and self._away > QUEUED_AWAY:
                self._queued_until = self._loop.time() + QUEUED_WINDOW
            self._opened.set_result(bool(flags.session_present))

    def _disconnected(self, code: Any, given: Any) -> None:  # noqa: ANN401 - as above
        if self._opened.done() and self.closed.done():
            return
        error = self._why_lost(code, given)
        (self.closed if self._opened.done() else self._opened).set_exception(error)

    def _why_lost(self, code: Any, given: Any) -> BrokerError:  # noqa: ANN401 - as above
        if (ended_tls := getattr(self._socket, "failure", None)) is not None:
            from atrund.broker.tls import failed  # noqa: PLC0415 - for those who speak TLS alone

            return failed(ended_tls)
        if not self._opened.done():
            maybe = ["it wants another certificate of ours (mqtt.cert_file)"] if self._settings.tls else []
            maybe += ['it speaks no MQTT 5 (mqtt.protocol = "3.1.1")'] if self._settings.version5 else []
            right = f"; perhaps {', or '.join(maybe)}" if maybe else ""
            return BrokerError(f"it closed the connection without an answer{right}")
        failure, why = _explain(code, given)
        return BrokerError(f"connection lost: {why}", failure)

    def _published(self, mid: int, code: Any) -> None:  # noqa: ANN401 - as above
        self._unsent.discard(mid)
        row, then = self._unacknowledged.pop(mid, (0, None))
        self._send_held()
        self._moved.set()
        if then is not None:
            then(row, str(code) if code.is_failure else None)

    def _subscribed(self, mid: int, codes: list[Any]) -> None:
        refused = [str(code) for code in codes if code.is_failure]
        if mid == self._watch:
            self.watching = not refused
            if refused:
                log.info("own status can't be read; another device of this name shows by take-overs alone")
        elif refused:
            if not self._deaf:
                log.error("broker refused a subscription; requests cannot come in", detail=refused[0])
            self._deaf = True
            self._loop.call_later(SUBSCRIBE_AGAIN, self._act, self.subscribe, (self._topics,))
        elif any(code.value == 0 for code in codes):
            log.warning("broker delivers requests with QoS 0 alone; one that is lost on the way does not come again")

    def _check_size(self, topic: str, payload: bytes, properties: Properties | None) -> None:
        """Refuse what the broker would drop the connection over (MQTT 5.0 3.2.2.3.6)."""
        most = self.limits.packet_max
        if most is None:
            return
        body = 2 + len(topic.encode()) + 2 + len(payload) + (0 if properties is None else len(packed(properties)))
        size = 1 + max(1, (body.bit_length() + 6) // 7) + body
        if size > most:
            raise ValueError(f"{size} octets, and the broker takes {most}")

    def _has_place(self) -> bool:
        """Wait until one more may wait for the loop, and with QoS 1 for its acknowledgement; on paho's thread."""
        return not self._over and self._places.acquire(timeout=PLACE_WAIT)

    def _came(self, message: paho.MQTTMessage, has_place: bool) -> None:  # noqa: FBT001 - hopped over as it is
        topic, properties = topic_of(message), message.properties
        waits = has_place and message.qos > 0
        if has_place and not waits:
            self._places.release()
        if topic is None or not self._opened.done():  # it would come again, and nobody is to hear it
            self._acknowledge(message, waits)
            return
        self._on_message(
            Incoming(
                topic=topic,
                payload=bytes(message.payload),
                retained=message.retain,
                duplicate=message.dup,
                response_topic=getattr(properties, "ResponseTopic", None),
                correlation=getattr(properties, "CorrelationData", None),
                expiry=getattr(properties, "MessageExpiryInterval", None),
                queued=self._loop.time() < self._queued_until,
                ack=lambda: self._acknowledge(message, waits),
                qos=message.qos,
            )
        )

    def _acknowledge(self, message: paho.MQTTMessage, has_place: bool) -> None:  # noqa: FBT001 - as above
        if has_place:
            self._places.release()
        if not self._over:
            self._client.ack(message.mid, message.qos)


def _explain(code: Any, given: Any) -> tuple[Failure, str]:  # noqa: ANN401 - paho's ReasonCode and Properties
    said, server = getattr(given, "ReasonString", ""), getattr(given, "ServerReference", "")
    return refusals.explain(code.value, str(code), said, server)
