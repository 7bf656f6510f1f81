# SPDX-License-Identifier: Apache-2.0
"""What of a changed file counts while the daemon runs, and what waits for its next start.

Rules of this file: an option that isn't named here waits: what nobody made followable must not seem to be followed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypeVar

from atrund.config.values import Config

T = TypeVar("T")

FOLLOWED: Final = frozenset(
    """
    locked
    module.telemetry module.instance_ports
    sms.enabled sms.numbers sms.password_files sms.instance sms.urc sms.timeout sms.max_age sms.ucs2 sms.delay
    sms.answer_max_age sms.answers_per_hour sms.answers_per_day sms.delivery_reports sms.others sms.make_room sms.sweep
    sms.codes sms.seal_key_files sms.seal_max_age sms.digest_replay sms.rate.count sms.rate.per
    tcp.enabled tcp.port tcp.instance tcp.urc tcp.step_login tcp.firewall tcp.users tcp.login_timeout tcp.idle_timeout
    tcp.timeout tcp.sequence tcp.delay tcp.login_failures tcp.shut_out tcp.sessions
    tcp.replace
    tcp.client.enabled tcp.client.host tcp.client.port tcp.client.retries tcp.client.retry_delay tcp.client.redial
    tcp.client.token_file tcp.client.tls.enabled tcp.client.tls.ca tcp.client.tls.certificate tcp.client.tls.key
    tcp.client.tls.server_name
    tcp.tls.certificate tcp.tls.key tcp.tls.client_ca
    mqtt.remote_at mqtt.run_queued mqtt.reply_prefixes mqtt.urc mqtt.metrics
    mqtt.user mqtt.user_file mqtt.password_file mqtt.ca_file mqtt.cert_file mqtt.key_file mqtt.keepalive
    mqtt.connect_timeout
    mqtt.homeassistant.enabled mqtt.homeassistant.prefix
    policy.remote_admin policy.confirm_after policy.mask
    policy.sms.default policy.sms.rules policy.sms.hazards
    policy.tcp.default policy.tcp.rules policy.tcp.hazards
    policy.mqtt.default policy.mqtt.rules policy.mqtt.hazards
    policy.local.default policy.local.rules policy.local.hazards
    policy.monitor.default policy.monitor.rules policy.monitor.hazards
    privacy.numbers
    """.split()
)
"""Options that count from a reload on."""

WITH: Final[Mapping[str, frozenset[str]]] = {
    "module.instance_ports": frozenset({"module.port", "module.extra_ports"}),
    "tcp.tls.certificate": frozenset({"tcp.tls.enabled"}),
    "tcp.tls.key": frozenset({"tcp.tls.enabled"}),
    "tcp.tls.client_ca": frozenset({"tcp.tls.enabled"}),
    **dict.fromkeys(
        # What is meant for another broker is not to be shown to this one.
        "mqtt.user mqtt.user_file mqtt.password_file mqtt.ca_file mqtt.cert_file mqtt.key_file".split(),
        frozenset({"mqtt.host", "mqtt.port", "mqtt.fallbacks", "mqtt.tls"}),
    ),
}
"""Options that mean something only together with others, and so wait for the restart where these do."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a file read anew comes to: `config` is what counts now.

    `followed` and `waiting` are the keys whose values are others than before, `waiting` those of them that need a
    restart.
    """

    config: Config
    followed: tuple[str, ...]
    waiting: tuple[str, ...]


def follow(before: Config, after: Config) -> Change:
    """Weigh the file as it is now (`after`) against what counted until now."""
    old = dict(_values(before))
    other = [key for key, value in _values(after) if value != old[key]]
    waiting = tuple(key for key in other if key not in FOLLOWED or not WITH.get(key, frozenset()).isdisjoint(other))
    config = _with(after, {key: old[key] for key in waiting})
    return Change(config, tuple(key for key in other if key not in waiting), waiting)


def _values(one: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield each option's key and value, in the order of the file."""
    for name, key, below in _options(one):
        value = getattr(one, name)
        if below:
            yield from _values(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _with(one: T, given: Mapping[str, object], prefix: str = "") -> T:
    """Return the same with these values, by key."""
    changes: dict[str, object] = {}
    for name, key, below in _options(one):
        if below:
            changes[name] = _with(getattr(one, name), given, f"{prefix}{key}.")
        elif prefix + key in given:
            changes[name] = given[prefix + key]
    dataclass_: Any = one
    changed: T = replace(dataclass_, **changes)
    return changed


def _options(one: Any) -> Iterator[tuple[str, str, bool]]:  # noqa: ANN401 - any dataclass of options
    """Yield each field's name, its name in the file, and whether it is a table of its own."""
    for spec in fields(one):
        below = spec.metadata.get("section") is not None
        if below or "read" in spec.metadata:
            yield spec.name, spec.metadata.get("key") or spec.name, below
