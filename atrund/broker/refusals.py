# SPDX-License-Identifier: Apache-2.0
"""What a broker's refusals mean, and what would be right: the reason codes of CONNACK and DISCONNECT (MQTT 5.0 2.4).

The five of MQTT 3.1.1 (3.2.2.3) come here as those of MQTT 5 that mean the same.
"""

from collections.abc import Mapping
from typing import Final

from atrund.broker.dialling import Failure

SAID_MAX: Final = 200
"""Characters of a broker's own words that are repeated."""

TAKEN_OVER: Final = 0x8E


def explain(code: int, name: str, said: str = "", server: str = "") -> tuple[Failure, str]:
    """Return what to make of a reason code, and its name with what would be right.

    `said` are the broker's own words (Reason String), `server` the one that it names instead of itself.
    """
    failure, right = _MEANS.get(code, (Failure.AWAY, ""))
    words = f' ("{_plain(said)}")' if said else ""
    if server:
        right = f"it names {_plain(server)}; {right}" if right else f"it names {_plain(server)}"
    return failure, f"{name}{words}; {right}" if right else f"{name}{words}"


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:SAID_MAX])


_ELSEWHERE: Final = "no broker is called that the configuration does not name: mqtt.host, mqtt.fallbacks"
_NO_ENTRY: Final = "its access control must let in this user, or this certificate, with this mqtt.client_id"
_MEANS: Final[Mapping[int, tuple[Failure, str]]] = {
    0x84: (Failure.HOPELESS, "the mqtt.protocol that it speaks"),
    0x85: (Failure.HOPELESS, "an mqtt.client_id that it takes"),
    0x86: (Failure.HOPELESS, "mqtt.user and mqtt.password_file as the broker has them"),
    0x87: (Failure.HOPELESS, _NO_ENTRY),
    0x88: (Failure.LATER, ""),
    0x89: (Failure.LATER, ""),
    0x8A: (Failure.HOPELESS, "its administrator has to lift the ban of this device"),
    0x8C: (Failure.HOPELESS, "a broker that takes a user and a password, or a certificate"),
    TAKEN_OVER: (Failure.TAKEN, "another connection came with the same mqtt.client_id"),
    0x90: (Failure.HOPELESS, "its access control must let this device write its own status: mqtt.prefix, node"),
    0x97: (Failure.LATER, "it, or this device's account, has reached a limit"),
    0x98: (Failure.LATER, "its administrator ended the connection"),
    0x9A: (Failure.HOPELESS, "a broker that keeps retained messages, as status is one"),
    0x9B: (Failure.HOPELESS, "a broker with QoS 1, for what is sent is kept until it is acknowledged"),
    0x9C: (Failure.LATER, _ELSEWHERE),
    0x9D: (Failure.HOPELESS, _ELSEWHERE),
    0x9F: (Failure.LATER, ""),
}
"""By reason code. Those that are not here pass by themselves, or are faults that no option mends."""
