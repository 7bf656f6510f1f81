# SPDX-License-Identifier: Apache-2.0
"""What a session goes by, and whether a login or a token is right (TCP-3, TCP-13)."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from atrund.atrun.packing import Packets
from atrund.atrun.session import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRules:
    """What a session goes by; times in seconds, 0 for none. `users` are pairs of name and password.

    `step_login`: name and password are asked for, one after the other (TCP-3). `dialled`: we called, so that there is
    no login; the far end's first line is to be the `token`, if there is one (TCP-13). `packets`: those of TCP-8, 9.
    """

    users: tuple[tuple[str, str], ...] = field(repr=False)
    login_timeout: float
    idle_timeout: float
    timeout: float
    sequence: bool
    instance: int = 1
    step_login: bool = False
    dialled: bool = False
    token: str = field(default="", repr=False)
    packets: Packets = field(default_factory=Packets)

    @property
    def beginning(self) -> Event:
        """How a session begins under these rules."""
        if not self.dialled:
            return Event.CONNECTED
        return Event.CALLED if self.token else Event.CALLED_TRUSTED


def login_fits(users: Sequence[tuple[str, str]], name: str, password: str) -> bool:
    """Compare with every pair in constant time, so that neither a name's nor a password's beginning can be felt out.

    `name` and `password` are the octets as they came, each a character.
    """
    given = f"{name}\0{password}".encode("latin-1")  # which are UTF-8 as the file is
    fits = False
    for user, secret in users:
        fits |= hmac.compare_digest(f"{user}\0{secret}".encode(), given)
    return fits


def token_fits(token: str, line: str) -> bool:
    """Compare a line with the token in constant time; an empty token fits nothing."""
    return hmac.compare_digest(token.encode(), line.encode("latin-1")) and token != ""
