# SPDX-License-Identifier: Apache-2.0
"""paho's client with a bound on what it keeps of a packet, and its messages and properties in shapes of ours.

MQTT 5 has a word for that (Maximum Packet Size), MQTT 3.1.1 has none, and who drops the connection over a request that
is too long gets it again on the next one. So it is read to its end; its beginning is kept, and refused as too long.
"""

import socket
from collections.abc import Mapping
from typing import Final, Self

from paho.mqtt import client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from atrund.broker.apart import call

PACKET_MAX: Final = 131_072
"""Octets of a packet that count: the largest request, with room for topic and properties."""


class Client(paho.Client):
    """One that no packet fills the memory of."""

    def let_go(self) -> None:
        """Close its sockets; those that its threads wake each other with are else open until somebody collects it."""
        self._reset_sockets()

    def _create_socket_connection(self) -> socket.socket:
        return call((self._host, self._port), self._connect_timeout)

    def _sock_recv(self, bufsize: int) -> bytes:
        """Receive; paho asks for as many octets as the packet has yet."""
        if bufsize > PACKET_MAX and not self._in_packet["packet"]:
            self._in_packet["packet"] = _Beginning()
        return super()._sock_recv(min(bufsize, PACKET_MAX))


def topic_of(message: paho.MQTTMessage) -> str | None:
    """Return its topic, None where that is no text: not every broker looks."""
    try:
        return message.topic
    except UnicodeDecodeError:
        return None


def properties_of(packet: int) -> Properties:
    """Return the properties of a packet of this type (MQTT 5.0 2.2.2), none yet."""
    return Properties(packet)  # type: ignore[no-untyped-call]  # paho leaves its constructor untyped


def publish_properties(extra: Mapping[str, str]) -> Properties:
    """Return those of a message, as `Connection.publish` takes them."""
    properties = properties_of(PacketTypes.PUBLISH)
    properties.ContentType = "application/json"
    named = dict(extra)
    if (correlation := named.pop("correlation", None)) is not None:
        properties.CorrelationData = bytes.fromhex(correlation)
    if (expiry := named.pop("expiry", None)) is not None:
        properties.MessageExpiryInterval = int(expiry)
    if named:
        properties.UserProperty = list(named.items())
    return properties


def packed(properties: Properties) -> bytes:
    """Return them as they are sent."""
    packed: bytes = properties.pack()  # type: ignore[no-untyped-call]  # as above
    return packed


class _Beginning(bytearray):
    """Takes what still has room, and lets go of the rest."""

    def __iadd__(self, more: bytes) -> Self:  # type: ignore[override, misc]  # paho adds nothing else
        self.extend(more[: max(0, PACKET_MAX - len(self))])
        return self
