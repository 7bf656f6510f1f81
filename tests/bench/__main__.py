# SPDX-License-Identifier: Apache-2.0
"""The figures, all taken in one run beside those of a peer (`python -m tests.bench`, or `make bench`).

Nothing here fails because something is slow: the aims are printed with whether they are met. The exit status is 1 only
where a measurement itself failed.
"""

import platform
import signal
import sys
import time
from types import FrameType

from tests.bench import codec, data, fleet, footprint, messages, roundtrips, sessions, spool, transparent
from tests.bench.figures import Aims, title
from tests.bench.stage import BenchError, Daemon, Stage, pythons


def main() -> int:
    """Take and print all figures."""
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, _leave)
    aims = Aims()
    print(f"Python {platform.python_version()}, {platform.machine()}; ratios count, the machine is whatever it is.")
    try:
        with Stage() as stage:
            footprint.measure_starts(stage, aims)
            idle = footprint.Idle(stage)
            plain = Daemon(stage, "plain", pythons()[0], mqtt=False)
            full = Daemon(stage, "full", pythons()[0], mqtt=True, answers=roundtrips.ROUNDS * roundtrips.MESSAGES)
            plain.start()
            full.start()
            roundtrips.measure(stage, plain, full, aims)
            sessions.measure(stage)
            messages.measure(stage, aims)
            transparent.measure(stage, aims)
            spool.measure(stage)
            fleet.measure(stage, aims)
            codec.measure()
            data.measure(stage)
            idle.report(aims)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    title("aims")
    print("\n".join(aims.lines))
    print(f"\n{time.monotonic() - begun:.0f} s in all")
    return 0


def _leave(_number: int, _frame: FrameType | None) -> None:
    """End as after Ctrl-C, so that what was started is stopped."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
