# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF009 - option and section stand for dataclasses.field, which the rule knows and them not
"""The options of MQTT, as in `atrund.config.values`: times are seconds, sizes bytes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from atrund.atrun.secrets import Secret
from atrund.config import kinds
from atrund.config.reader import option, required, section
from atrund.records import PREFIX

Protocol = Literal["5", "3.1.1"]
Spool = Literal["disk", "memory"]

_DAY = 86400.0

topic_prefix = kinds.text(PREFIX, 'topic levels as "site/atrund", no + or #')
reply_prefix = kinds.text(r"(?!\$)[^+#\x00-\x20]+/", 'a topic prefix that ends with "/", no + or #')
_NAME = r"(?!.{256})([A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?"
_ADDRESS = r"[0-9A-Fa-f:.]{0,45}:[0-9A-Fa-f:.]{0,45}"
"""One of IPv6; one of IPv4 looks like a name."""
host_name = kinds.text(rf"{_NAME}|{_ADDRESS}(%[A-Za-z0-9._-]{{1,32}})?", "a host name or address")
server_name = kinds.text(rf"|{_NAME}|{_ADDRESS}", 'a host name or address, or "" for the host')
protocol_name = kinds.text(r"[!-~]{0,255}", 'an application protocol as "mqtt", at most 255 characters, or "" for none')


@dataclass(frozen=True, slots=True)
class Homeassistant:
    """Discovery by Home Assistant, whose own prefix is `prefix`."""

    enabled: bool = option(False, kinds.flag)
    prefix: str = option("homeassistant", topic_prefix)


@dataclass(frozen=True, slots=True)
class Fallback:
    """A broker that stands in for the first; whatever isn't here is the same for all of them."""

    host: str = required(host_name)
    port: int = required(kinds.integer(1, 65535, "a port"))
    server_name: str = option("", server_name)
    alpn: str = option("", protocol_name)


@dataclass(frozen=True, slots=True)
class Mqtt:
    """The MQTT door and the mirror. After loading, `client_id` is never empty."""

    enabled: bool = option(False, kinds.flag)
    host: str = option("localhost", host_name)
    port: int = option(1883, kinds.integer(1, 65535, "a port"))
    fallbacks: tuple[Fallback, ...] = option((), kinds.items(kinds.table(Fallback), at_most=4, what="brokers"))
    return_after: float = option(3600.0, kinds.duration(60, 7 * _DAY, zero=True))
    protocol: Protocol = option("5", kinds.choice("5", "3.1.1"))
    prefix: str = option("atrund", topic_prefix)
    client_id: str = option("", kinds.text(r"|[!-~]{1,128}", 'at most 128 printable ASCII characters, no blank, or ""'))
    user: str = option("", kinds.text(r"[^\x00-\x1f\x7f]{0,256}", "at most 256 characters"))
    user_from: Secret | None = option(None, kinds.secret(kinds.mqtt_user), key="user_file")
    password: Secret | None = option(None, kinds.secret(kinds.mqtt_password), key="password_file")
    tls: bool = option(False, kinds.flag)
    ca_file: Path | None = option(None, kinds.public_file)
    cert_file: Path | None = option(None, kinds.public_file)
    key_file: Path | None = option(None, kinds.private_file)
    server_name: str = option("", server_name)
    alpn: str = option("", protocol_name)
    insecure: bool = option(False, kinds.flag)
    remote_at: bool = option(False, kinds.flag)
    run_queued: bool = option(False, kinds.flag)
    reply_prefixes: tuple[str, ...] = option((), kinds.items(reply_prefix, at_most=16, what="prefixes"))
    urc: bool = option(False, kinds.flag)
    metrics: float = option(900.0, kinds.duration(10, _DAY, zero=True))
    keepalive: float = option(300.0, kinds.duration(10, 65535))
    session_expiry: float = option(_DAY, kinds.duration(0, 30 * _DAY))
    connect_timeout: float = option(20.0, kinds.duration(1, 300))
    spread: float = option(5.0, kinds.duration(0, 3600))
    reconnect_max: float = option(60.0, kinds.duration(5, 3600))
    spool: Spool = option("disk", kinds.choice("disk", "memory"))
    spool_records: int = option(20000, kinds.integer(100, 1000000))
    spool_bytes: int = option(32 * 1024**2, kinds.size(64 * 1024, 1024**3))
    homeassistant: Homeassistant = section(Homeassistant)
