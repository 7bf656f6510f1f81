# SPDX-License-Identifier: Apache-2.0
"""A program: the real daemon, which waits a hundredth of the time before it dials the broker again.

In front of the daemon's own command, as a player's `wrap`: for tests in which the connection is lost all the time.
"""

import sys
from typing import Final

SHARE: Final = 0.01


def main() -> None:
    """Run the daemon."""
    del sys.argv[: sys.argv.index("atrund")]
    from atrund.broker.dialling import Dialling
    from atrund.program import main as atrund

    usual = Dialling.next

    def soon(dialling: Dialling, now: float) -> tuple[int, float]:
        which, pause = usual(dialling, now)
        return which, pause * SHARE

    setattr(Dialling, "next", soon)  # noqa: B010 - to a type checker it is not the same method
    sys.exit(atrund())


if __name__ == "__main__":
    main()
