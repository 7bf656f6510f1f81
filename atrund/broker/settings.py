# SPDX-License-Identifier: Apache-2.0
"""What goes in and out of a connection to a broker: where it is, what comes from it, how it fails."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from atrund.broker.dialling import Failure

Then = Callable[[int, str | None], None]
"""Takes the row that the broker acknowledged, and why it refused it, None where it did not."""


@dataclass(frozen=True, slots=True)
class Place:
    """A broker: where it is, and what TLS says to it. The certificate is for `server_name`, "" for the host."""

    host: str
    port: int
    server_name: str = ""
    alpn: str = ""
    """The application protocol that is asked for (RFC 7301), "" for none."""


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Where the broker is and how it is spoken to; `fallbacks` are others in order of preference. Times in seconds."""

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
    server_name: str = ""
    alpn: str = ""
    fallbacks: tuple[Place, ...] = ()
    return_after: float = 0.0
    """How long a lesser broker is kept before the better ones are looked at, 0 for as long as it lasts."""
    spread: float = 0.0
    reconnect_max: float = 60.0

    @property
    def name(self) -> str:
        """What the broker is called in the log and in notes."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def each(self) -> "tuple[BrokerSettings, ...]":
        """Return the settings for each broker, the preferred one first."""
        others = (
            replace(self, host=place.host, port=place.port, server_name=place.server_name, alpn=place.alpn)
            for place in self.fallbacks
        )
        return (self, *others)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the broker said at the connection (MQTT 5.0 3.2.2.3); MQTT 3.1.1 says nothing."""

    window: int
    """Messages that may be unacknowledged."""
    packet_max: int | None = None
    """Octets of a packet that it takes."""
    retains: bool = True
    session_expiry: float | None = None
    """Seconds for which it keeps the session, where it chose another span than was asked for."""


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
    """The broker can't be had, or ended the connection; the text says why and, where that is known, what to do."""

    def __init__(self, text: str, failure: Failure = Failure.AWAY) -> None:
        super().__init__(text)
        self.failure = failure
