# SPDX-License-Identifier: Apache-2.0
"""A connection of ours to a broker, used once; what of atrunctl knows paho.

Rules of this file: paho's callbacks note what came and no more; nothing runs on a thread of its own; a message is
acknowledged when the loop goes on, so that what was not dealt with comes again, or to another of the same share.
"""

import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from atrund.ctl.terminal import printable
from atrund.tls import explain

CONNECT_WAIT: Final = 20.0
"""Seconds for the connection, TLS and the broker's word included, and for its word on a subscription."""
KEEPALIVE: Final = 30
"""Seconds after which a broker that is gone is noticed, or half as many more."""
WINDOW: Final = 20
"""Messages of ours without acknowledgement: what mosquitto takes by default."""
PACKET_MAX: Final = 524_288
"""Octets of a packet that the broker may send (MQTT 5): twice what is looked at of an answer."""
BATCH: Final = 64
"""Packets that are read before what they say is dealt with."""
FILTERS_MAX: Final = 50
"""Topics of one subscription packet, which brokers limit."""


@dataclass(frozen=True, slots=True)
class Where:
    """Where the broker is and how it is spoken to."""

    host: str
    port: int
    version5: bool
    client_id: str
    user: str = ""
    password: str = field(default="", repr=False)
    context: "ssl.SSLContext | None" = None
    keep: int = 0
    """Seconds for which the broker keeps what comes while we are away (3.1.1: for as long as it likes)."""

    def __str__(self) -> str:
        return f"{printable(self.host)} port {self.port}"


@dataclass(frozen=True, slots=True)
class Message:
    """What came in."""

    topic: str
    payload: bytes
    retained: bool


@dataclass(frozen=True, slots=True)
class Taken:
    """The broker has what was published under this tag."""

    tag: str


@dataclass(frozen=True, slots=True)
class Unheard:
    """The broker has it, and nobody subscribes to that topic (MQTT 5 3.4.2.1, reason code 0x10)."""

    tag: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The broker did not take what was published under this tag."""

    tag: str
    why: str


Happening = Message | Taken | Unheard | Refused


class LinkError(Exception):
    """There is no connection, or none any more; the text says why and is fit for a terminal."""


class TakenOver(LinkError):
    """Another client of this name has connected: whoever comes back ends that one's connection, and so on."""


class Link:
    """One connection. Raises `LinkError` from everything that speaks to the broker."""

    def __init__(self, where: Where) -> None:
        """Connect; returns when the broker has let us in."""
        self._where = where
        self._happened: list[Happening] = []
        self._to_acknowledge: list[paho.MQTTMessage] = []
        self._tags: dict[int, str] = {}
        self._codes: dict[int, Sequence[ReasonCode]] = {}
        self._window = WINDOW
        self._packet_max = 268_435_455  # MQTT 5 2.1.4: no packet is longer
        self._welcome: ReasonCode | None = None
        self._farewell = ""
        self._is_taken_over = False
        self._client = self._make_client()
        self._connect()

    @property
    def room(self) -> int:
        """How many messages may be published now."""
        return self._window - len(self._tags)

    def subscribe(self, topics: Sequence[str], *, qos: int, retained: bool) -> list[str]:
        """Subscribe, with or without what is retained now (MQTT 5; 3.1.1 has no choice); return what was refused.

        What the subscription brings is returned by the next `loop`.
        """
        handling = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE if retained else SubscribeOptions.RETAIN_DO_NOT_SEND
        refused = []
        for first in range(0, len(topics), FILTERS_MAX):
            some = topics[first : first + FILTERS_MAX]
            if self._where.version5:
                options = SubscribeOptions(qos=qos, retainAsPublished=False, retainHandling=handling)
                _, mid = self._client.subscribe([(topic, options) for topic in some])
            else:
                _, mid = self._client.subscribe([(topic, qos) for topic in some])
            if mid is None:
                raise LinkError("the connection was lost")
            self._loop_until(lambda mid=mid: mid in self._codes, "about a subscription")  # type: ignore[misc]
            codes = self._codes.pop(mid)
            refused += [topic for topic, code in zip(some, codes, strict=False) if code.is_failure]
        return refused

    def publish(
        self, topic: str, payload: bytes, *, tag: str, expiry: int | None = None, reply_to: str | None = None
    ) -> None:
        """Publish with QoS 1; `loop` returns what became of it.

        In MQTT 5 `expiry` (seconds) and `reply_to` go beside it, as Message Expiry and Response Topic.
        """
        properties = None
        if self._where.version5:
            properties = _properties(PacketTypes.PUBLISH)
            properties.ContentType = "application/json"
            if expiry is not None:
                properties.MessageExpiryInterval = expiry
            if reply_to is not None:
                properties.ResponseTopic = reply_to
        if len(payload) + len(topic) + _HEAD > self._packet_max:
            self._happened.append(Refused(tag, f"the broker takes packets of at most {self._packet_max} octets"))
            return
        told = self._client.publish(topic, payload, qos=1, properties=properties)
        if told.rc != paho.MQTT_ERR_SUCCESS:
            raise LinkError(self._farewell or "the connection was lost")
        self._tags[told.mid] = tag

    def loop(self, seconds: float) -> list[Happening]:
        """Wait at most so long for something to happen, and return it in order; what it was last time is done with."""
        for message in self._to_acknowledge:
            self._client.ack(message.mid, message.qos)
        self._to_acknowledge.clear()
        if not self._happened:
            self._step(seconds)
        while self._happened and len(self._happened) < BATCH:
            before = len(self._happened)
            self._check(self._client.loop_read())
            if len(self._happened) == before:
                break
        happened, self._happened = self._happened, []
        return happened

    def close(self) -> None:
        """Leave in order, with what was dealt with acknowledged."""
        for message in self._to_acknowledge:
            self._client.ack(message.mid, message.qos)
        self._client.disconnect()
        if (left := self._client.socket()) is not None:
            left.close()
        self._unhook()

    def _unhook(self) -> None:
        """Leave no cycle behind, so that paho closes what else it has open as soon as this is dropped."""
        client = self._client
        client.on_connect = client.on_disconnect = client.on_subscribe = client.on_publish = client.on_message = None

    def _make_client(self) -> paho.Client:
        where = self._where
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=where.client_id,
            clean_session=None if where.version5 else not where.keep,
            protocol=paho.MQTTv5 if where.version5 else paho.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = CONNECT_WAIT
        if where.user:
            client.username_pw_set(where.user, where.password or None)
        if where.context is not None:
            client.tls_set_context(where.context)
        client.on_socket_open = _no_delay
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_subscribe = self._subscribed
        client.on_publish = self._published
        client.on_message = self._came
        return client

    def _connect(self) -> None:
        where = self._where
        properties = None
        if where.version5:
            properties = _properties(PacketTypes.CONNECT)
            properties.MaximumPacketSize = PACKET_MAX
            properties.SessionExpiryInterval = where.keep
        try:
            clean: paho.CleanStartOption = not where.keep if where.version5 else paho.MQTT_CLEAN_START_FIRST_ONLY
            self._client.connect(where.host, where.port, KEEPALIVE, clean_start=clean, properties=properties)
        except ssl.SSLError as error:
            raise LinkError(f"no connection to {where}: {printable(explain(error))}") from None
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error) or "no answer"
            raise LinkError(f"no connection to {where}: {printable(why)}") from None
        try:
            self._loop_until(lambda: self._welcome is not None, "to the connection")
        except LinkError as error:
            if self._welcome is None:
                self.close()
                raise LinkError(f"no connection to {where}: {error}") from None
        if self._welcome is not None and self._welcome.is_failure:
            self.close()
            raise LinkError(f"the broker at {where} lets this user not in: {printable(str(self._welcome))}")

    def _loop_until(self, look: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + CONNECT_WAIT
        while not look():
            if (left := end - time.monotonic()) <= 0:
                raise LinkError(f"the broker says nothing {what} within {CONNECT_WAIT:g} s")
            self._step(min(left, 1.0))

    def _step(self, seconds: float) -> None:
        self._check(self._client.loop(seconds))

    def _check(self, code: int) -> None:
        if code == paho.MQTT_ERR_SUCCESS:
            return
        if code == paho.MQTT_ERR_CONN_REFUSED and self._welcome is not None:
            return  # its reason says more
        self._unhook()
        if self._is_taken_over:
            raise TakenOver("another client of this name has connected: the same user, or the same --client-id")
        raise LinkError(self._farewell or f"the connection was lost: {paho.error_string(code)}")

    def _connected(self, _client: object, _data: object, _flags: object, code: ReasonCode, given: Any) -> None:  # noqa: ANN401 - paho's properties
        self._welcome = code
        self._window = min(WINDOW, getattr(given, "ReceiveMaximum", WINDOW))
        self._packet_max = getattr(given, "MaximumPacketSize", self._packet_max)

    def _disconnected(self, _client: object, _data: object, _flags: object, code: ReasonCode, _given: object) -> None:
        self._is_taken_over = code.value == _TAKEN_OVER
        self._farewell = f"the connection was lost: {printable(str(code))}"

    def _subscribed(
        self, _client: object, _data: object, mid: int, codes: Sequence[ReasonCode], _given: object
    ) -> None:
        self._codes[mid] = codes

    def _published(self, _client: object, _data: object, mid: int, code: ReasonCode, _given: object) -> None:
        tag = self._tags.pop(mid, None)
        if tag is None:
            return
        if code.is_failure:
            self._happened.append(Refused(tag, str(code)))
        else:
            self._happened.append(Unheard(tag) if code.value == _NOBODY else Taken(tag))

    def _came(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        self._happened.append(Message(message.topic, bytes(message.payload), message.retain))
        self._to_acknowledge.append(message)


_NOBODY: Final = 0x10
_TAKEN_OVER: Final = 0x8E
_HEAD: Final = 64
"""Octets of a packet around topic and payload, and some to spare."""


def _properties(packet: int) -> Properties:
    return Properties(packet)  # type: ignore[no-untyped-call]  # paho leaves its constructor untyped


def _no_delay(_client: object, _data: object, connection: Any) -> None:  # noqa: ANN401 - a socket or paho's wrapper
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
