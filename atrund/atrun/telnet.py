# SPDX-License-Identifier: Apache-2.0
"""Telnet's own bytes in a stream of typed ones: taken out, and refused where they ask for something (RFC 854)."""

from typing import Final

IAC: Final = 255
_DONT, _DO, _WONT, _WILL, _SB, _SE = 254, 253, 252, 251, 250, 240


class Telnet:
    """Incremental filter; state is kept across reads, and nothing is buffered.

    An offer or wish that is repeated is not declined again: a peer that insists cannot keep up an endless exchange.
    """

    def __init__(self) -> None:
        self.spoken = False
        """Whether the peer is known to speak it; one who does not may mean every octet as it is."""
        self._within = _TEXT
        self._verb = 0
        self._declined: set[tuple[int, int]] = set()

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return what was typed, and what is to be answered: every offer and wish is declined, once."""
        if self._within == _TEXT and IAC not in data:
            return data, b""
        typed, answer = bytearray(), bytearray()
        for octet in data:
            if self._within == _TEXT:
                if octet == IAC:
                    self._within = _COMMAND
                else:
                    typed.append(octet)
            elif self._within == _COMMAND:
                self._command(octet, typed)
            elif self._within == _OPTION:
                if self._verb in {_DO, _WILL} and (self._verb, octet) not in self._declined:
                    self._declined.add((self._verb, octet))
                    answer += bytes((IAC, _WONT if self._verb == _DO else _DONT, octet))
                self._within = _TEXT
            elif self._within == _SUBNEGOTIATION:
                self._within = _SUBNEGOTIATION_IAC if octet == IAC else _SUBNEGOTIATION
            else:
                self._within = _TEXT if octet == _SE else _SUBNEGOTIATION
        return bytes(typed), bytes(answer)

    def _command(self, octet: int, typed: bytearray) -> None:
        self._within = _TEXT
        if octet == IAC:  # a doubled IAC is the byte itself
            typed.append(octet)
            return
        self.spoken = True
        if octet == _SB:
            self._within = _SUBNEGOTIATION
        elif octet in {_DO, _DONT, _WILL, _WONT}:
            self._within = _OPTION
            self._verb = octet


_TEXT, _COMMAND, _OPTION, _SUBNEGOTIATION, _SUBNEGOTIATION_IAC = range(5)
