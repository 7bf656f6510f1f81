# SPDX-License-Identifier: Apache-2.0
"""The retained messages: said at each connection anew, and taken away from each broker that may have them."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

import structlog

from atrund.broker.settings import Then

log = structlog.get_logger()


class Publish(Protocol):
    """Publishes a retained message, where there is a connection."""

    def __call__(self, topic: str, text: str, *, then: Then) -> None:
        """`then` is told what the broker said of it."""


class Retained:
    """As many as there are kinds of states."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._states: dict[str, str] = {}
        self._going: dict[str, tuple[set[str], Callable[[], None]]] = {}
        """What is to go, at which brokers yet, and who is told when it is gone."""
        self._refused: set[tuple[str, str]] = set()
        """Where and what was refused, for it is said once."""

    def put(self, topic: str, text: str, broker: str) -> None:
        """Say it now, if there is a connection to `broker`, and at each connection from now on."""
        self._going.pop(topic, None)
        self._states[topic] = text
        self._say(topic, broker)

    def take(self, topic: str, brokers: Iterable[str], then: Callable[[], None], broker: str) -> None:
        """Take it away from all of the brokers, now or when there is a connection; `then` is told when all did it."""
        self._states.pop(topic, None)
        self._going[topic] = set(brokers), then
        self._take(topic, broker)

    def born(self, broker: str) -> None:
        """Say and take away all behind a new connection."""
        for topic in tuple(self._states):
            self._say(topic, broker)
        for topic in tuple(self._going):
            self._take(topic, broker)

    def _say(self, topic: str, broker: str) -> None:
        self._publish(topic, self._states[topic], then=partial(self._said, topic, broker))

    def _said(self, topic: str, broker: str, _row: int, refused: str | None) -> None:
        if refused is not None and (topic, broker) not in self._refused:
            self._refused.add((topic, broker))
            log.warning("retained message refused by the broker", topic=topic, host=broker, detail=refused)

    def _take(self, topic: str, broker: str) -> None:
        if broker in self._going[topic][0]:
            self._publish(topic, "", then=partial(self._taken, topic, broker))

    def _taken(self, topic: str, broker: str, row: int, refused: str | None) -> None:
        if refused is not None:
            self._said(topic, broker, row, refused)
            return
        left, then = self._going.get(topic, (set(), None))
        left.discard(broker)
        if then is not None and not left:
            del self._going[topic]
            then()
