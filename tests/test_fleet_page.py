# SPDX-License-Identifier: Apache-2.0
"""What docs/fleet.md works out is what the program's own numbers come to."""

import re
from pathlib import Path

import pytest

from atrund.broker import dialling
from atrund.config.mqtt import Mqtt
from atrund.doors.mqtt import SUBSCRIPTIONS

ROOT = Path(__file__).parent.parent
NODES = 100_000
MONTH = 30 * 86400
PAGE = re.sub(r"\s+", " ", (ROOT / "docs" / "fleet.md").read_text(encoding="utf-8"))
MQTT = Mqtt()
SUBSCRIBED = len(SUBSCRIPTIONS) + 1
"""The node's own status as well."""
COMMANDS = NODES / 3600
METRICS = NODES / MQTT.metrics


def measured(pattern: str) -> list[int]:
    """The figures that the page has from a measurement, which nothing here can know."""
    found = re.search(pattern, PAGE)
    assert found is not None, pattern
    return [int(digits.replace(",", "")) for digits in found.groups()]


(OCTETS,) = measured(r"every \d+ s, (\d+) octets")
UP, DOWN, PING, TOLD = measured(r"5, TLS, client certificate \| ([\d,]+) \+ ([\d,]+) \| (\d+) \| (\d+)")


@pytest.mark.parametrize(
    "words",
    [
        f"keep-alive of {MQTT.keepalive:.0f} s | {NODES / MQTT.keepalive:.0f} a second",
        f"every {MQTT.metrics:.0f} s, {OCTETS} octets | {METRICS:.0f} messages a second,",
        f"messages a second, {METRICS * OCTETS / 1000:.0f} kB/s",
        f"{COMMANDS:.0f} commands, {4 * COMMANDS:.0f} messages a second",
        f"there are {METRICS + 2 * COMMANDS:.0f} messages a second to read",
        f"after {1.5 * MQTT.keepalive:.0f} s at most",
        f"`mqtt.session_expiry`, {MQTT.session_expiry / 3600:.0f} hours,",
        f"with {SUBSCRIBED} subscriptions: {SUBSCRIBED * NODES:,} for the fleet",
        f"up to `mqtt.spread`, {MQTT.spread:.0f} s",
        f"{NODES:,} / {MQTT.spread:.0f} s = {NODES / MQTT.spread:,.0f} connections a second at first",
        f"{NODES:,} / {MQTT.reconnect_max:.0f} s = {NODES / MQTT.reconnect_max:,.0f} a second",
        f"for {dialling.LATER_PAUSE:.0f} s at first, then up to a minute",
        f"altogether, up to {dialling.LONGEST_PAUSE / 60:.0f} minutes",
        f"{MONTH / MQTT.keepalive:,.0f} pings | {MONTH / MQTT.keepalive * PING / 1e6:.2f}",
        f"{MONTH / MQTT.metrics:,.0f} `metrics` | {MONTH / MQTT.metrics * TOLD / 1e6:.2f}",
        f"idle, in all | {MONTH / MQTT.keepalive * PING / 1e6 + MONTH / MQTT.metrics * TOLD / 1e6:.2f}",
        f"a reconnection every hour, 720 | +{720 * (UP + DOWN) / 1e6:.2f}",
        f"costs as much as {(UP + DOWN) / PING:.0f} pings",
    ],
)
def test_the_arithmetic(words: str) -> None:
    assert words in PAGE


def test_the_pauses_are_those_that_the_page_tells() -> None:
    """Drawn from 0 to the number that is named, in the order that is named."""
    drawn: list[float] = []

    def uniform(low: float, high: float) -> float:
        drawn.append(high)
        return low

    calls = dialling.Dialling(1, spread=MQTT.spread, longest=MQTT.reconnect_max, uniform=uniform)
    calls.begin(0)
    rounds = []
    for _ in range(6):
        calls.failed(0, dialling.Failure.AWAY, 0)
        rounds.append(drawn[-1])
    assert rounds == [5, 10, 20, 40, 60, 60]
    assert "from 0 to 5, 10, 20, 40, 60 s" in PAGE


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((\.\.?/[^)#]+|[a-z-]+\.md)", PAGE))))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / "docs" / link).exists()
