# SPDX-License-Identifier: Apache-2.0
"""What an SMS proves beyond the vendor's white list and digest: a seal in front, or codes behind.

The formats are in docs/sms-security.md. Rules of this file: a seal decides alone, and one that fails is never tried as
a simple SMS. A code only takes away: its sender must be on the white list as well. Whether a counter is still to be had
is not known here.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from atrund.atrun import message
from atrund.atrun.codes import entry_of, split
from atrund.atrun.message import NO_COMMAND, AtRun, NotAtRun, command_in, text_of
from atrund.sms.pdu import Deliver
from atrund.sms.seal import Sealed, SealKey, parse_sealed


@dataclass(frozen=True, slots=True)
class BySeal:
    """A seal that was made with one of our keys."""

    key: SealKey
    sealed: Sealed

    @property
    def proves(self) -> bool:
        """Whoever has the key."""
        return True


@dataclass(frozen=True, slots=True)
class ByCodes:
    """A sender whose messages may carry a code, its entry, and the codes that this one carries: none, one or two."""

    entry: str
    codes: tuple[str, ...] = field(repr=False)

    @property
    def proves(self) -> bool:
        """Without a code nothing is proven."""
        return bool(self.codes)


def judge(
    deliver: Deliver,
    numbers: Sequence[str],
    passwords: Sequence[str],
    *,
    convert_ucs2: bool,
    keys: Sequence[SealKey],
    coded: Collection[str],
) -> AtRun | NotAtRun:
    """Return what an SMS is: `keys` are those of seals, `coded` the numbers with codes; the rest as `message.judge`.

    Codes are cut off the line of such a number and no other's, for `#123456` can be part of a command.
    """
    sealed = _sealed_in(deliver, convert_ucs2=convert_ucs2) if keys else None
    if sealed is not None:
        key = sealed.key_of(keys)
        if key is None:
            return NotAtRun("has a seal of no key here")
        command = command_in(sealed.text)
        return NO_COMMAND if command is None else AtRun(*command, proof=BySeal(key, sealed))
    found = message.judge(deliver, numbers, passwords, convert_ucs2=convert_ucs2)
    if isinstance(found, NotAtRun) or found.password is not None:
        return found
    entry = entry_of(deliver.originator.text, coded)
    if entry is None:
        return found
    line, codes = split(found.line)
    return replace(found, line=line, proof=ByCodes(entry, codes))


def _sealed_in(deliver: Deliver, *, convert_ucs2: bool) -> Sealed | None:
    data = deliver.user_data
    if data.header is not None or deliver.dcs.compressed:
        return None
    text = text_of(deliver, convert_ucs2=convert_ucs2)
    return None if text is None else parse_sealed(text)
