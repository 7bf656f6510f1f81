# SPDX-License-Identifier: Apache-2.0
"""A program: paho alone publishing records with QoS 1, so many in flight; what the outbox is compared with.

`publisher.py PORT TOPIC COUNT OCTETS WINDOW` prints the seconds that it took to have all of them acknowledged.
"""

import sys
import threading
import time

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.bench.relay import no_delay


def main() -> None:
    """Publish, each record when there is room for it."""
    port, count, octets, window = (int(sys.argv[n]) for n in (1, 3, 4, 5))
    topic, payload = sys.argv[2], b"x" * octets
    room = threading.Semaphore(window)
    connected = threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.max_inflight_messages_set(window)
    client.on_socket_open = no_delay
    client.on_connect = lambda *_: connected.set()
    client.on_publish = lambda *_: room.release()
    client.connect("127.0.0.1", port)
    client.loop_start()
    connected.wait(20)
    begun = time.perf_counter()
    for _ in range(count):
        room.acquire()
        client.publish(topic, payload, qos=1)
    for _ in range(window):
        room.acquire()
    print(time.perf_counter() - begun, flush=True)
    client.disconnect()
    client.loop_stop()


if __name__ == "__main__":
    main()
