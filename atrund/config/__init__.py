# SPDX-License-Identifier: Apache-2.0
"""The configuration: one TOML file into frozen values. An error names its key, what was wrong, what would be right."""

import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from atrund.config.checks import mistakes as _between
from atrund.config.checks import warnings
from atrund.config.files import Table, read_files
from atrund.config.mqtt import Mqtt
from atrund.config.reader import ConfigError, Mistake, Place, keys, read_table
from atrund.config.values import (
    Config,
    FirewallRule,
    Local,
    Log,
    Module,
    Policy,
    Privacy,
    Queue,
    SerialPort,
    Sms,
    SmsCode,
    SmsRate,
    Tcp,
    TcpBearer,
    TcpClient,
    TcpClientTls,
    TcpTls,
    TcpUser,
)

__all__ = [
    "Config",
    "ConfigError",
    "FirewallRule",
    "Local",
    "Log",
    "Mistake",
    "Module",
    "Mqtt",
    "Policy",
    "Privacy",
    "Queue",
    "SerialPort",
    "Sms",
    "SmsCode",
    "SmsRate",
    "Tcp",
    "TcpBearer",
    "TcpClient",
    "TcpClientTls",
    "TcpTls",
    "TcpUser",
    "keys",
    "load",
    "own_machine_id",
    "report",
    "warnings",
]

NODE_MAX = 64
"""Characters of a node's name, which is a level of every topic."""

# Chosen once at random; it must never change, for it goes into every default node name.
APP_ID = bytes.fromhex("6f2d1c7e5b8a4e0fa3d94c17e2b06958")


def load(
    path: Path, *, hostname: str, machine_id: str | None, environ: Mapping[str, str] = os.environ, name: str = ""
) -> Config:
    """Reads the file, those of `conf.d` beside it and the secrets they name. Raises `ConfigError` with every mistake.

    `hostname` and `machine_id` (content of /etc/machine-id, None if there is none) make the default node name.
    `name` is that of one daemon of several on a machine: its defaults of `node`, `state_dir` and `local.socket` end
    with it. Relative paths of secret files are looked for in `$CREDENTIALS_DIRECTORY` first, then beside the main file.
    """
    table = read_files(path)
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    beside = path.absolute().parent
    folders = (Path(credentials), beside) if credentials else (beside,)
    every = tuple(keys(Config))
    config, mistakes = read_table(Config, table.values, Place("", folders), every)
    wrong = {mistake.key.partition(".")[0].partition("[")[0] for mistake in mistakes}
    mistakes += _between(config, frozenset({"sms", "tcp", "mqtt", "module", "recovery", "policy"} - wrong))
    if name:
        config = _of_several(config, table, name)
    node = config.node or _default_node(hostname, machine_id, name)
    if not config.node and config.mqtt.enabled and _app_specific(machine_id) is None and "node" not in wrong:
        mistakes.append(Mistake("node", "has no default, for this machine has no machine id", "a name of its own"))
    if mistakes:
        raise ConfigError(path, tuple(replace(mistake, file=table.file_of(mistake.key)) for mistake in mistakes))
    client_id = config.mqtt.client_id or _plain(f"{config.mqtt.prefix}-{node}")
    return replace(config, node=node, mqtt=replace(config.mqtt, client_id=client_id))


def report(error: ConfigError) -> str:
    """What `atrund --check` prints: a line for each mistake, and their number."""
    count = len(error.mistakes)
    return f"{error}\n{count} mistake{'s' if count > 1 else ''}"


def own_machine_id() -> str | None:
    """Return what /etc/machine-id holds (machine-id(5)), None where there is none."""
    try:
        return Path("/etc/machine-id").read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None


def _of_several(config: Config, table: Table, name: str) -> Config:
    if "state_dir" not in table.values:
        config = replace(config, state_dir=config.state_dir.with_name(f"{config.state_dir.name}-{name}"))
    local = table.values.get("local")
    if config.local.socket is not None and not (isinstance(local, dict) and "socket" in local):
        socket = config.local.socket.with_stem(f"{config.local.socket.stem}-{name}")
        config = replace(config, local=replace(config.local, socket=socket))
    return config


def _default_node(hostname: str, machine_id: str | None, name: str) -> str:
    """`<hostname>-<8 hex>`, with the name of one of several behind it; no hex where there is no machine id."""
    behind = f"-{name}" if name else ""
    own = _app_specific(machine_id)
    if own is not None:
        behind = f"-{own[:4].hex()}{behind}"
    return (_plain(hostname)[: NODE_MAX - len(behind)] or "atrund") + behind


def _app_specific(machine_id: str | None) -> bytes | None:
    """The machine id made atrund's own, or None if it is none (machine-id(5)).

    As sd_id128_get_machine_app_specific(3) does: HMAC-SHA256 of the application's id, keyed with the machine's, cut to
    16 bytes and marked as a version 4 UUID.
    """
    text = (machine_id or "").strip()
    if not re.fullmatch(r"[0-9a-f]{32}", text):
        return None
    digest = bytearray(hmac.new(bytes.fromhex(text), APP_ID, hashlib.sha256).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x40
    digest[8] = digest[8] & 0x3F | 0x80
    return bytes(digest)


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)
