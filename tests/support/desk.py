# SPDX-License-Identifier: Apache-2.0
"""The MQTT door in virtual time, with no broker: messages are handed in, and its answers are read from the outbox."""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from atrund.broker import Incoming
from atrund.config.values import Sms
from atrund.doors.mqtt import MqttDoor, MqttRules
from atrund.mirror import Mirror
from tests.support.virtual import AtOnce, House, config, running
from tests.support.waiting import ready, until

BASE = "atrund/node/"
RULES = MqttRules(remote_at=True, run_queued=False, reply_prefixes=("answers/",))


@dataclass
class Past:
    """Stands for the broker where something is published past the outbox."""

    published: list[tuple[str, Mapping[str, Any], Mapping[str, str]]] = field(default_factory=list)

    def publish(self, topic: str, payload: Mapping[str, Any], extra: Mapping[str, str]) -> None:
        self.published.append((topic, payload, extra))


@dataclass
class Desk:
    """The door, and a broker's side of it."""

    house: House
    door: MqttDoor
    past: Past
    acknowledged: list[Incoming] = field(default_factory=list)

    def bring(
        self,
        payload: str | bytes,
        who: str = "",
        on: str = "at/request",
        **fields: Any,  # noqa: ANN401 - as Incoming has
    ) -> Incoming:
        """Hand a message in, on a topic below the node's."""
        topic = BASE + on + (f"/{who}" if who else "")
        content = payload if isinstance(payload, bytes) else payload.encode()
        message = Incoming(topic, content, False, False, None, None, None, False, lambda: None)
        message = replace(message, **fields)
        message = replace(message, ack=lambda: self.acknowledged.append(message))
        self.door.receive(message)
        return message

    async def ask(self, payload: str | bytes | Mapping[str, object], **fields: Any) -> dict[str, Any]:  # noqa: ANN401
        """Hand a message in and return its answer."""
        before = len(self.answers)
        self.bring(json.dumps(payload) if isinstance(payload, Mapping) else payload, **fields)
        await until(lambda: len(self.answers) > before)
        return self.answers[before]

    @property
    def answers(self) -> list[dict[str, Any]]:
        return [json.loads(text) for _, text, _ in self.outbox(BASE + "at/response")]

    def outbox(self, topic: str) -> list[tuple[str, str, dict[str, str]]]:
        rows = self.house.disk.rows("SELECT topic, payload, extra FROM outbox WHERE topic = ? ORDER BY seq", topic)
        return [(name, text, json.loads(extra)) for name, text, extra in rows]

    def ran(self, line: str) -> int:
        return self.house.wire.seen.count(line)


@contextlib.asynccontextmanager
async def desk(rules: MqttRules = RULES, disk: AtOnce | None = None, *, take_up: bool = True) -> AsyncIterator[Desk]:
    async with running(config(sms=Sms()), disk=disk) as house:
        past = Past()
        mirror = Mirror(clock=house.clock, session="s", base=BASE)
        daemon = house.daemon
        door = MqttDoor(rules, runner=daemon.runner, ledger=daemon._ledger, mirror=mirror, clock=house.clock)
        door.broker = past  # type: ignore[assignment]  # the one method that the door calls
        if take_up:
            await door.take_up()
        await ready(house)
        yield Desk(house, door, past)
