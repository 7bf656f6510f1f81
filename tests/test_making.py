# SPDX-License-Identifier: Apache-2.0
"""What the configuration file says is what the settings and the doors have."""

from ipaddress import IPv4Address, ip_address

import pytest

from atrund import making
from atrund.atrun import stored
from atrund.atrun.family.forms import Delays
from atrund.atrun.request import Door
from atrund.atrun.rules import Hazards, Verb
from atrund.atrun.secrets import Secret
from atrund.atrun.settings import Login, Rule, Settings
from atrund.config.values import Config, DoorRules, FirewallRule, LocalRules, Policy, Sms, Tcp, TcpUser
from tests.support.asking import OUTER

PASSWORD = "planted-secret-1"


def test_an_empty_file_gives_the_defaults_save_where_the_file_has_others() -> None:
    made = making.file_settings(Config())
    differing = {key for key in stored.KEYS if made.value(key) != Settings().value(key)}
    assert differing == {"tcp.socket.1.idle_timeout"}, "a door is left for a while unless a command says otherwise"
    assert stored.from_rows(stored.to_rows(made), Settings()) == (made, ())


def test_every_value_of_the_file_that_commands_can_set_too() -> None:
    given = Config(
        sms=Sms(
            enabled=True, numbers=("+39*", "123"), passwords=(Secret(PASSWORD),), instance=1, urc=False, timeout=120.0
        ),
        tcp=Tcp(
            enabled=True,
            port=4000,
            instance=3,
            urc=False,
            step_login=True,
            firewall=(
                FirewallRule(ip_address("2001:db8::"), ip_address("ffff:ffff::")),
                FirewallRule(ip_address("10.0.0.0"), ip_address("255.0.0.0")),
            ),
            users=(TcpUser("operator", Secret("geheim")),),
            idle_timeout=77.0,
            timeout=60.0,
            sequence=True,
        ),
    )
    settings = making.file_settings(given)
    sms, tcp = settings.sms, settings.tcp
    assert (sms.enabled, sms.instance, sms.urc, sms.timeout) == (True, 1, False, 120.0)
    assert sms.whitelist[:3] == ("+39*", "123", Secret(PASSWORD))
    assert sms.whitelist[3:] == (None,) * 5
    assert (tcp.enabled, tcp.port, tcp.instance, tcp.urc, tcp.step_login) == (True, 4000, 3, False, True)
    assert tcp.rules == (Rule(IPv4Address("10.0.0.0"), IPv4Address("255.0.0.0")),), "IPv6 is the file's alone"
    assert tcp.logins == (Login("operator", Secret("geheim")),)
    assert (tcp.timeout, tcp.sequence, tcp.own_socket.idle_timeout) == (60.0, True, 77.0)
    assert PASSWORD not in repr(settings)
    assert stored.from_rows(stored.to_rows(settings), Settings()) == (settings, ())


DOORS = (*OUTER, Door.MONITOR)


@pytest.mark.parametrize("door", DOORS)
def test_each_door_has_the_policy_that_the_file_gives_it(door: Door) -> None:
    rules = {Door.SMS: "sms", Door.TCP: "tcp", Door.MQTT: "mqtt", Door.LOCAL: "local", Door.MONITOR: "monitor"}
    strict = LocalRules(default="deny", hazards="allow") if door is Door.LOCAL else DoorRules("deny", (), "allow")
    policies = making.policies(Policy(remote_admin=("sms",), **{rules[door]: strict}))  # type: ignore[arg-type]
    assert set(policies) == set(DOORS)
    assert (policies[door].default, policies[door].hazards) == (Verb.DENY, Hazards.ALLOW)
    assert policies[door].remote_admin == (door is Door.SMS)
    for other in set(DOORS) - {door}:
        assert policies[other].default is Verb.ALLOW
        assert policies[other].hazards is (Hazards.CONFIRM if other is Door.LOCAL else Hazards.REFUSE)


def test_a_delay_follows_the_file_unless_a_command_made_it_another() -> None:
    before, after = Config(sms=Sms(delay=1.0)), Config(sms=Sms(delay=2.0), tcp=Tcp(delay=3.0))
    assert making.delays(before) == Delays(tcp=0.0, sms=1.0)
    assert making.delays(after, making.delays(before), before) == Delays(tcp=3.0, sms=2.0)
    assert making.delays(after, Delays(tcp=9.0, sms=1.0), before) == Delays(tcp=9.0, sms=2.0)
