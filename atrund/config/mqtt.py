# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF009 - option and section stand for dataclasses.field, which the rule knows and them not
"""The options of MQTT, as in `atrund.config.values`: times are seconds, sizes bytes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from atrund.atrun.secrets import Secret
from atrund.config import kinds
from atrund.config.reader import option

Protocol = Literal["5", "3.1.1"]

_DAY = 86400.0

topic_prefix = kinds.text(r"(?!\$)[^+#/\x00-\x20]+(/[^+#/\x00-\x20]+)*", 'topic levels as "site/atrund", no + or #')
reply_prefix = kinds.text(r"(?!\$)[^+#\x00-\x20]+/", 'a topic prefix that ends with "/", no + or #')
host_name = kinds.text(r"[A-Za-z0-9._:%-]{1,255}", "a host name or address")


@dataclass(frozen=True, slots=True)
class Mqtt:
    """The MQTT door and the mirror. After loading, `client_id` is never empty."""

    enabled: bool = option(False, kinds.flag)
    host: str = option("localhost", host_name)
    port: int = option(1883, kinds.integer(1, 65535, "a port"))
    protocol: Protocol = option("5", kinds.choice("5", "3.1.1"))
    prefix: str = option("atrund", topic_prefix)
    client_id: str = option("", kinds.text(r"|[!-~]{1,128}", 'at most 128 printable ASCII characters, no blank, or ""'))
    user: str = option("", kinds.text(r"[^\x00-\x1f\x7f]{0,256}", "at most 256 characters"))
    password: Secret | None = option(None, kinds.secret(kinds.mqtt_password), key="password_file")
    tls: bool = option(False, kinds.flag)
    ca_file: Path | None = option(None, kinds.public_file)
    cert_file: Path | None = option(None, kinds.public_file)
    key_file: Path | None = option(None, kinds.private_file)
    insecure: bool = option(False, kinds.flag)
    remote_at: bool = option(False, kinds.flag)
    run_queued: bool = option(False, kinds.flag)
    reply_prefixes: tuple[str, ...] = option((), kinds.items(reply_prefix, at_most=16, what="prefixes"))
    urc: bool = option(False, kinds.flag)
    keepalive: float = option(300.0, kinds.duration(10, 65535))
    session_expiry: float = option(_DAY, kinds.duration(0, 30 * _DAY))
    connect_timeout: float = option(20.0, kinds.duration(1, 300))
    spool_records: int = option(20000, kinds.integer(100, 1000000))
    spool_bytes: int = option(32 * 1024**2, kinds.size(64 * 1024, 1024**3))
