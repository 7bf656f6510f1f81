# SPDX-License-Identifier: Apache-2.0
"""The configuration: one TOML file into frozen values. An error names its key, what was wrong, what would be right."""

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import tomli

from atrund.atrun.secrets import escape
from atrund.config.checks import mistakes as _between
from atrund.config.checks import warnings
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
    "report",
    "warnings",
]

CONFIG_FILE_MAX = 1024 * 1024  # bytes; the shipped file with all its comments is a fiftieth of it

# Chosen once at random; it must never change, for it goes into every default node name.
APP_ID = bytes.fromhex("6f2d1c7e5b8a4e0fa3d94c17e2b06958")


def load(path: Path, *, hostname: str, machine_id: str | None, environ: Mapping[str, str] = os.environ) -> Config:
    """Reads the file and the secrets it names. Raises `ConfigError` with every mistake found.

    `hostname` and `machine_id` (content of /etc/machine-id, None if there is none) make the default node name.
    Relative paths of secret files are looked for in `$CREDENTIALS_DIRECTORY` first, then beside the file.
    """
    raw = _parse(path)
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    beside = path.absolute().parent
    folders = (Path(credentials), beside) if credentials else (beside,)
    every = tuple(keys(Config))
    config, mistakes = read_table(Config, raw, Place("", folders), every)
    wrong = {mistake.key.partition(".")[0].partition("[")[0] for mistake in mistakes}
    mistakes += _between(config, frozenset({"sms", "tcp", "mqtt", "module", "recovery", "policy"} - wrong))
    node = config.node or _default_node(hostname, machine_id)
    if not config.node and config.mqtt.enabled and _app_specific(machine_id) is None and "node" not in wrong:
        mistakes.append(Mistake("node", "has no default, for this machine has no machine id", "a name of its own"))
    if mistakes:
        raise ConfigError(path, tuple(mistakes))
    client_id = config.mqtt.client_id or _plain(f"{config.mqtt.prefix}-{node}")
    return replace(config, node=node, mqtt=replace(config.mqtt, client_id=client_id))


def report(error: ConfigError) -> str:
    """What `atrund --check` prints: a line for each mistake, and their number."""
    count = len(error.mistakes)
    return f"{error}\n{count} mistake{'s' if count > 1 else ''}"


def _parse(path: Path) -> dict[str, object]:
    """The file as TOML has it."""
    try:
        # Not to wait for whoever might write into a pipe; what is no file would read as an empty one.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(path, (Mistake("", "is no regular file", "the path of a TOML file"),))
            content = file.read(CONFIG_FILE_MAX + 1)
    except OSError as error:
        right = "the path of a TOML file that can be read"
        raise ConfigError(path, (Mistake("", error.strerror or "can't be read", right),)) from None
    if len(content) > CONFIG_FILE_MAX:
        raise ConfigError(path, (Mistake("", "is too long", f"at most {CONFIG_FILE_MAX} bytes"),))
    try:
        return tomli.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(path, (Mistake(f"line {line}", "is not UTF-8", "save the file as UTF-8"),)) from None
    except RecursionError:
        raise ConfigError(path, (Mistake("", "is nested too deep", "plain tables, as in the example"),)) from None
    except ValueError as error:
        raise ConfigError(path, (_syntax(str(error)),)) from None


def _syntax(message: str) -> Mistake:
    """Put the place in front: tomli ends its messages with it, in parentheses."""
    found = re.fullmatch(r"(.*) \(at (line \d+, column \d+|end of document)\)", message, re.DOTALL)
    wrong, where = (found[1], found[2]) if found else (message, "")
    return Mistake(
        where, f"no TOML: {wrong[:1].lower()}{escape(wrong[1:100])}", "see https://toml.io for how it is written"
    )


def _default_node(hostname: str, machine_id: str | None) -> str:
    """`<hostname>-<8 hex>`; the host name alone where there is no machine id."""
    name = _plain(hostname)[:48] or "atrund"
    own = _app_specific(machine_id)
    return name if own is None else f"{name}-{own[:4].hex()}"


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
