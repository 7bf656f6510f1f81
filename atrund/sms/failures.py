# SPDX-License-Identifier: Apache-2.0
"""What a +CMS ERROR means for a message that was to be sent: is it worth another try, and what has to happen first."""

import enum
from typing import Final


class Failure(enum.Enum):
    """Why a message could not be sent."""

    PERMANENT = "permanent"
    """No later try mends it: the number, the subscription, the message itself."""
    SIM = "the SIM is not ready"
    NETWORK = "there is no network"
    CONFIGURATION = "the service centre's number is not set (AT+CSCA)"
    STORAGE = "the store is full"
    TEMPORARY = "temporary"


def failure_of(code: int | None) -> Failure:
    """Return the class of a +CMS ERROR (3GPP TS 27.005 3.2.5); None, a failure without a code, is temporary."""
    if code is None:
        return Failure.TEMPORARY
    return _CLASSES.get(code, Failure.TEMPORARY)


RP_CAUSES: Final = frozenset({1, 8, 10, 21, 28, 29, 30, 50, 69, 81, 95, 96, 97, 98, 99, 111})
"""Causes 1 to 127 (TS 24.011 8.2.5.4): unassigned number, barred, rejected, subscriber or facility unknown, …

What a service centre says, 128 to 255 (TP-FCS, TS 23.040 9.2.3.22), is temporary: an answer is soon too old anyway.
"""

_CLASSES: Final = {
    **dict.fromkeys(RP_CAUSES, Failure.PERMANENT),
    **dict.fromkeys(range(310, 319), Failure.SIM),
    **dict.fromkeys(range(320, 323), Failure.STORAGE),
    330: Failure.CONFIGURATION,
    331: Failure.NETWORK,
}
