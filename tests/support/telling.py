# SPDX-License-Identifier: Apache-2.0
"""The whole daemon under virtual time with MQTT switched on, and a broker that writes down what it is told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from atrund import making
from atrund.config.mqtt import Mqtt
from atrund.config.values import Config
from atrund.records import to_json
from tests.support import contract
from tests.support.keeping import no_threads
from tests.support.virtual import AtOnce, House, config, running

BASE = "atrund/node/"


@dataclass
class Broker:
    """In the broker's place. What is published is held to the contract."""

    base: str
    retained: dict[str, str] = field(default_factory=dict)
    """What is retained at the broker."""
    published: list[tuple[float, str, dict[str, Any], bool, int]] = field(default_factory=list)
    """When, where, what, whether retained, with which QoS."""
    clearing: dict[str, Callable[[], None]] = field(default_factory=dict)
    connected: bool = False
    connects: int = 0
    on_connected: Callable[[], None] = lambda: None

    async def run(self) -> None:
        await asyncio.get_running_loop().create_future()

    async def say_goodbye(self, _reason: str) -> None:
        self.connected = False

    def follow(self, _settings: object) -> None:
        pass

    def report(self) -> dict[str, object]:
        return {"connected": self.connected}

    def connect(self) -> None:
        """Have it that there is a connection."""
        self.connected = True
        self.connects += 1
        for topic, then in tuple(self.clearing.items()):
            del self.clearing[topic]
            self.retained.pop(topic, None)
            then()
        self.on_connected()

    def publish(self, topic: str, payload: Mapping[str, Any], _extra: Mapping[str, str], *, qos: int = 1) -> None:
        self._note(topic, dict(payload), qos=qos)

    def tell(self, topic: str, payload: Mapping[str, Any]) -> None:
        self._note(self.base + topic, dict(payload), retained=True)
        self.retained[self.base + topic] = to_json(payload)

    def retain(self, topic: str, text: str) -> None:
        self.clearing.pop(topic, None)
        self._note(topic, {}, retained=True)
        self.retained[topic] = text

    def clear(self, topic: str, then: Callable[[], None]) -> None:
        self.clearing[topic] = then
        if self.connected:
            del self.clearing[topic]
            self.retained.pop(topic, None)
            then()

    def of(self, topic: str) -> list[dict[str, Any]]:
        """What was published on a topic below the node's, in order."""
        return [payload for _, there, payload, _, _ in self.published if there == self.base + topic]

    def times(self, topic: str) -> list[float]:
        """When."""
        return [moment for moment, there, *_ in self.published if there == self.base + topic]

    def _note(self, topic: str, payload: dict[str, Any], *, retained: bool = False, qos: int = 1) -> None:
        if topic.startswith(self.base):
            contract.check(topic.removeprefix(self.base), to_json(payload).encode())
        self.published.append((asyncio.get_running_loop().time(), topic, payload, retained, qos))


@contextlib.asynccontextmanager
async def telling(
    monkeypatch: pytest.MonkeyPatch,
    mqtt: Mqtt | None = None,
    *,
    disk: AtOnce | None = None,
    **sections: object,
) -> AsyncIterator[tuple[House, Broker]]:
    """Run the daemon, with a broker to which there is no connection yet."""
    no_threads()
    monkeypatch.setattr(making, "Broker", lambda _settings, *, base, **_rest: Broker(base))
    given = config(mqtt=mqtt or Mqtt(enabled=True), **sections)
    async with running(given, disk=disk) as house:
        broker: Any = house.daemon.broker
        assert isinstance(broker, Broker)
        yield house, broker


def reload(house: House, **options: object) -> Config:
    """Have other options of MQTT followed, as a reload does; returns the configuration."""
    before = house.daemon.config
    values: dict[str, Any] = options
    after = replace(before, mqtt=replace(before.mqtt, **values))
    house.daemon.follow(after)
    return after
