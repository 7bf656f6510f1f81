# SPDX-License-Identifier: Apache-2.0
"""A program: the least that brings a pseudo-terminal to a TCP port or to a broker; what our doors are compared with.

`tcp TERMINAL` prints its port and passes bytes both ways on asyncio, with no logic. `mqtt TERMINAL PORT BASE QOS` does
with paho what the MQTT door is for, one request after the other: no record, no mirror, no rules. Both say READY to
whoever started them, as a service does.
"""

import asyncio
import os
import socket
import sys
import tty
from typing import Any, Final

import sdnotify

TOPIC_REQUEST: Final = "at/request/bench{}"
"""One for each QoS, which names the asker."""
TOPIC_RESPONSE: Final = "at/response"


class _Relay(asyncio.Protocol):
    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        asyncio.get_running_loop().add_reader(self._terminal, self._readable)

    def data_received(self, data: bytes) -> None:
        os.write(self._terminal, data)

    def _readable(self) -> None:
        assert self._transport is not None
        self._transport.write(os.read(self._terminal, 4096))


async def _serve_tcp(terminal: int) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: _Relay(terminal), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    _say_ready()
    await server.serve_forever()


def _serve_mqtt(terminal: int, port: int, base: str, qos: int) -> None:
    from paho.mqtt import client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    def serve(client: paho.Client, _: object, message: paho.MQTTMessage) -> None:
        os.write(terminal, message.payload + b"\r")
        answer = b""
        while not answer.endswith(b"\r\nOK\r\n"):
            answer += os.read(terminal, 4096)
        client.publish(base + TOPIC_RESPONSE, answer, qos=qos)

    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_message = serve
    client.on_subscribe = lambda *_: _say_ready()
    client.on_socket_open = no_delay
    client.connect("127.0.0.1", port)
    client.subscribe(base + TOPIC_REQUEST.format(qos), qos=qos)
    client.loop_forever()


def no_delay(_client: object, _userdata: object, connection: Any) -> None:  # noqa: ANN401 - as paho hands it over
    """Send each packet at once; for paho's `on_socket_open`."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _say_ready() -> None:
    if os.environ.get("NOTIFY_SOCKET"):
        sdnotify.SystemdNotifier().notify("READY=1")


def main() -> None:
    terminal = os.open(sys.argv[2], os.O_RDWR | os.O_NOCTTY)
    tty.setraw(terminal)
    if sys.argv[1] == "tcp":
        asyncio.run(_serve_tcp(terminal))
    else:
        _serve_mqtt(terminal, int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))


if __name__ == "__main__":
    main()
