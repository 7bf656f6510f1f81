# SPDX-License-Identifier: Apache-2.0
"""What of a changed configuration counts at once, and what waits for a restart."""

from dataclasses import replace
from pathlib import Path

import pytest

from atrund import config
from atrund.atrun.secrets import Secret
from atrund.config.following import FOLLOWED, WITH, follow
from atrund.config.mqtt import Mqtt
from atrund.config.values import Config, DoorRules, Module, Policy, Sms

BEFORE = Config(
    node="box",
    module=Module(port="/dev/a"),
    sms=Sms(passwords=(Secret("1234567890123456"),)),
    mqtt=Mqtt(host="a.example", password=Secret("a")),
)


def test_every_key_that_is_named_is_an_option() -> None:
    assert {*FOLLOWED, *WITH, *(key for keys in WITH.values() for key in keys)} <= set(config.keys(Config))


def test_the_same_file_changes_nothing() -> None:
    change = follow(BEFORE, replace(BEFORE, sms=replace(BEFORE.sms, passwords=(Secret("1234567890123456"),))))
    assert (change.config, change.followed, change.waiting) == (BEFORE, (), ())


def test_what_can_be_followed_is_and_what_cant_keeps_its_value_and_is_named_by_its_key_in_the_file() -> None:
    after = replace(
        BEFORE,
        locked=True,
        state_dir=Path("/elsewhere"),
        module=Module(port="/dev/b", telemetry=10.0),
        sms=replace(BEFORE.sms, passwords=(Secret("6543210987654321"),)),
        mqtt=Mqtt(host="b.example", password=Secret("b"), remote_at=True),
        policy=Policy(monitor=DoorRules(default="deny")),
    )
    change = follow(BEFORE, after)
    assert change.followed == (
        "locked",
        "module.telemetry",
        "sms.password_files",
        "mqtt.remote_at",
        "policy.monitor.default",
    )
    assert change.waiting == ("state_dir", "module.port", "mqtt.host", "mqtt.password_file")
    expected = replace(
        after,
        state_dir=BEFORE.state_dir,
        module=Module(port="/dev/a", telemetry=10.0),
        mqtt=Mqtt(host="a.example", password=Secret("a"), remote_at=True),
    )
    assert change.config == expected
    assert follow(change.config, after).waiting == change.waiting, "named again, as long as it waits"
    assert follow(change.config, after).followed == ()


@pytest.mark.parametrize(
    ("module", "followed", "waiting"),
    [
        (Module(port="/dev/a", instance_ports=(1,)), ("module.instance_ports",), ()),
        (
            Module(port="/dev/a", extra_ports=("/dev/b",), instance_ports=(1, 2)),
            (),
            ("module.extra_ports", "module.instance_ports"),
        ),
    ],
)
def test_instances_wait_with_their_ports(module: Module, followed: tuple[str, ...], waiting: tuple[str, ...]) -> None:
    change = follow(BEFORE, replace(BEFORE, module=module))
    assert (change.followed, change.waiting) == (followed, waiting)
    assert change.config.module.instance_ports == (() if waiting else (1,))
