# SPDX-License-Identifier: Apache-2.0
"""What a runner needs beside a port: settings, instances and confirmations of their own, over any ledger."""

from collections.abc import Callable, Mapping

from atrund.atrun.family.forms import Effect, Running
from atrund.atrun.policy import DEFAULTS, DoorPolicy
from atrund.atrun.request import Door, Request
from atrund.atrun.settings import Settings
from atrund.clock import Clock
from atrund.confirmations import Confirmations
from atrund.ledger import Ledger
from atrund.mirror import Mirror
from atrund.module.channel import Channel
from atrund.nvm import Nvm
from atrund.own import Own
from atrund.ways import Ways


class Recorded:
    """Services that only note what they are asked to do. `fails`: why they can't."""

    def __init__(self) -> None:
        self.asked: list[Effect] = []
        self.fails = ""
        self.now = Running()

    def running(self) -> Running:
        return self.now

    async def carry_out(self, effect: Effect, request: Request) -> str:
        del request
        self.asked.append(effect)
        return self.fails

    async def outcome(self, effect: Effect) -> str:
        del effect
        return ""


def ways(
    channel: Callable[[], Channel | None],
    *,
    ledger: Ledger,
    mirror: Mirror,
    clock: Clock,
    base: Settings = Settings(),  # noqa: B008 - a value
    policies: Mapping[Door, DoorPolicy] = DEFAULTS,
    services: Recorded | None = None,
    locked: bool = False,
    home: str = "SM",
    overdue: Callable[[Request, Channel], None] = lambda _request, _channel: None,
) -> Ways:
    """Ways to one port; settings are the base's until `own`'s NVM is loaded."""
    nvm = Nvm(base, ledger=ledger, clock=clock, locked=locked)
    noting = services or Recorded()
    own = Own(nvm, lambda: noting, policies=policies, home=lambda: home)
    confirmations = Confirmations(ledger=ledger, mirror=mirror, channel=channel)
    return Ways(channel, channel, ledger, mirror, own, confirmations, overdue)
