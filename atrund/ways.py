# SPDX-License-Identifier: Apache-2.0
"""What the way of every request needs, gathered where the daemon is built (REQ-1)."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atrund.atrun.request import Request
from atrund.confirmations import Confirmations
from atrund.ledger import Ledger
from atrund.mirror import Mirror
from atrund.module.channel import Channel
from atrund.own import Own

if TYPE_CHECKING:  # for the annotation alone
    from atrund.inbox import Recorder


async def nothing_comes() -> None:
    """Wait for nothing."""


@dataclass(frozen=True, slots=True)
class Ways:
    """What every walk needs. `idlest` and `first` give a port, while there is one: the one with the fewest who wait,
    and that of unsolicited codes. `overdue` is told of a request whose deadline passed on the module, and its port.
    """

    idlest: Callable[[], Channel | None]
    first: Callable[[], Channel | None]
    ledger: Ledger
    mirror: Mirror
    own: Own
    confirmations: Confirmations
    overdue: Callable[[Request, Channel], None] = lambda _request, _channel: None
    lent: Callable[[], str] = lambda: ""
    """To whom the ports are lent, "" while they are not."""
    mapped: Callable[[int], Callable[[], Channel | None] | None] = lambda _instance: None
    """What gives the port that an instance is mapped to; None for one that is mapped to none."""
    arrive: Callable[[], Awaitable[None]] = nothing_comes
    """Waits while the module is set up for the first time."""
    recorder: "Callable[[], Recorder | None]" = lambda: None
    """The SMS door's part in others' SMS commands, while it is on."""
