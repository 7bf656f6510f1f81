# SPDX-License-Identifier: Apache-2.0
"""A program: the real daemon, which kills itself with -9 at a step of the request that is to be its last.

In front of the daemon's own command (a player's `wrap`). ATRUND_DIES is a JSON array: the request's mark, the kind of
step, which of its kind, and whether the daemon dies behind it instead of before. A step is a packet that comes or goes,
a transaction, and what goes to the module or comes from it, all from the packet on that holds the mark.
"""

import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from paho.mqtt.packettypes import PacketTypes

PACKETS: Final = {PacketTypes.PUBLISH: "PUBLISH", PacketTypes.PUBACK: "PUBACK"}


class Steps:
    """Counts and kills."""

    def __init__(self, mark: str, kind: str, which: int, after: bool) -> None:  # noqa: FBT001 - read from JSON
        self._mark = mark.encode()
        self._last = kind, which
        self._after = after
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._begun = False

    def begin(self, packet: bytes) -> None:
        """Begin to count if this packet holds the mark."""
        self._begun = self._begun or self._mark in packet

    def take(self, kind: str, act: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever the hooked function returns
        if not self._begun:
            return act()
        with self._lock:
            step = kind, self._taken[kind]
            self._taken[kind] += 1
        if step == self._last and not self._after:
            self._die()
        result = act()
        if step == self._last:
            self._die()
        return result

    @staticmethod
    def _die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()


def hook(owner: Any, method: str, steps: Steps, kind: Callable[..., str]) -> None:  # noqa: ANN401 - a class of any kind
    """Have each call of a method be a step; `kind` is given what the method is."""
    plain = getattr(owner, method)

    def hooked(self: Any, *given: Any) -> Any:  # noqa: ANN401 - as above
        return steps.take(kind(self, *given), lambda: plain(self, *given))

    setattr(owner, method, hooked)


def main() -> None:
    """Run the daemon."""
    del sys.argv[: sys.argv.index("atrund")]
    from atrund.broker import lean  # noqa: F401 - before anything of paho
    from atrund.ledger.writer import Store
    from atrund.module import port
    from atrund.program import main as atrund

    steps = Steps(*json.loads(os.environ["ATRUND_DIES"]))
    from paho.mqtt import client as paho

    def came(client: Any) -> str:  # noqa: ANN401 - paho's client
        packet = client._in_packet
        steps.begin(bytes(packet["packet"]))
        return f"{PACKETS.get(packet['command'] >> 4, 'other')} comes"

    hook(paho.Client, "_packet_handle", steps, came)
    hook(paho.Client, "_sock_send", steps, lambda _, packet: f"{PACKETS.get(packet[0] >> 4, 'other')} goes")
    hook(Store, "apply", steps, lambda *_: "transaction")
    hook(port._SerialPort, "write", steps, lambda *_: "to the module")
    hook(port._SerialPort, "data_received", steps, lambda *_: "from the module")
    sys.exit(atrund())


if __name__ == "__main__":
    main()
