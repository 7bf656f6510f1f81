# SPDX-License-Identifier: Apache-2.0
"""Which services can't be on one instance together, whatever set them (CMD-2)."""

from typing import Any

import pytest

from atrund.atrun.family.services import clashes
from atrund.atrun.settings import Settings

SMS, MONITOR, TCP = {"sms.enabled": True}, {"monitor.enabled": True}, {"tcp.enabled": True}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, ""),
        (SMS | MONITOR | TCP, ""),
        (SMS | {"tcp.instance": 3}, ""),
        (SMS | TCP | {"tcp.instance": 3}, "instance 3 would be held by sms and tcp server"),
        (
            MONITOR | {"tcp.client.enabled": True, "sms.instance": 2},
            "instance 2 would be held by tcp client and monitor",
        ),
    ],
)
def test_who_would_hold_an_instance_twice(values: dict[str, Any], said: str) -> None:
    assert clashes(Settings().changed(values)) == said
