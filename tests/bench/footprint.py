# SPDX-License-Identifier: Apache-2.0
"""What the daemon costs when nothing happens: memory, time to ready, wake-ups."""

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.bench.figures import Aims, Spread, table, title
from tests.bench.stage import Daemon, Python, Stage, pythons

STARTS: Final = 5
SETTLE: Final = 1.0
"""Seconds after all doors are open until memory is read: the ledger has written, the mirror is out."""
QUIET: Final = 60.0
"""Seconds for which wake-ups are counted at least: a search of the SMS store, each minute by default, is among them."""
START_UP: Final = 40.0
"""Seconds until what is done once after a start is done: the first readings, the look at who else is at the port."""

RSS_AIM_MIB: Final = 36.0
READY_AIM: Final = 0.8
WAKE_UPS_AIM: Final = {True: 1.5, False: 0.2}


@dataclass(slots=True)
class _Takes:
    ready: list[float] = field(default_factory=list)
    set_up: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)
    pss: list[float] = field(default_factory=list)
    private: list[float] = field(default_factory=list)

    def weigh(self, pid: int) -> None:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
        found = {name: int(kib) / 1024 for name, kib in re.findall(r"^(\w+): +(\d+) kB$", rollup, re.MULTILINE)}
        self.rss.append(found["Rss"])
        self.pss.append(found["Pss"])
        self.private.append(found["Private_Clean"] + found["Private_Dirty"])


def measure_starts(stage: Stage, aims: Aims) -> None:
    """Start the daemon with all doors open again and again, alone, on each Python in turn, the bare relay beside it."""
    ours: dict[str, _Takes] = {}
    bare: dict[str, _Takes] = {}
    found = pythons()
    daemons = {python.name: Daemon(stage, f"start{n}", python, mqtt=True) for n, python in enumerate(found)}
    for number in range(STARTS + 1):
        for python in found:
            # The first start makes the byte code and the ledger, and is not counted.
            counted = (ours, bare) if number else ({}, {})
            _start_relay(stage, python, counted[1].setdefault(python.name, _Takes()))
            _start_daemon(daemons[python.name], counted[0].setdefault(python.name, _Takes()))
    title(f"start with the module there, {STARTS} times, s")
    rows = []
    for name, takes in ours.items():
        ready, set_up, relay = Spread.of(takes.ready), Spread.of(takes.set_up), Spread.of(bare[name].ready)
        ratio = f"{ready.median / relay.median:.1f}"
        rows.append((name, _s(ready.median), _s(ready.p95), _s(set_up.median), _s(relay.median), ratio))
        aims.at_most(f"ready, {name}", ready.median, READY_AIM, " s")
    table(("", "ready", "p95", "module set up", "bare relay", "ready / relay"), rows)
    title("memory when idle, all doors open, MiB (medians)")
    weights: list[tuple[str, ...]] = []
    for name, takes in ours.items():
        rss, relay = Spread.of(takes.rss), Spread.of(bare[name].rss)
        others = (Spread.of(values).median for values in (takes.pss, takes.private, bare[name].rss, bare[name].pss))
        weights.append(
            (name, *(f"{mib:.1f}" for mib in (rss.median, rss.p95, *others)), f"{rss.median / relay.median:.2f}")
        )
        if name.startswith("Debian"):
            aims.at_most(f"resident memory, {name}", rss.median, RSS_AIM_MIB, " MiB")
    table(("", "Rss", "p95", "Pss", "private", "relay Rss", "relay Pss", "Rss / relay"), weights)
    if not any(name.startswith("Debian") for name in ours):
        aims.unknown("resident memory", "there is no python in /usr/bin of the version that the packages are for")


class Idle:
    """Daemons left alone while something else is measured, and a bare relay; `report` says how often they woke up."""

    def __init__(self, stage: Stage) -> None:
        python = pythons()[0]
        self._daemons = {mqtt: Daemon(stage, f"idle{mqtt:d}", python, mqtt=mqtt) for mqtt in (True, False)}
        for daemon in self._daemons.values():
            daemon.start()
        self._relay, _ = stage.start_relay("tcp", stage.terminal())
        self._started = time.monotonic()
        self._pids = {
            "with MQTT": self._daemons[True].pid,
            "without MQTT": self._daemons[False].pid,
            "bare asyncio relay": self._relay.pid,
        }

    def report(self, aims: Aims) -> None:
        time.sleep(max(0.0, START_UP - (time.monotonic() - self._started)))
        counts = {name: _switches(pid) for name, pid in self._pids.items()}
        begun = time.monotonic()
        time.sleep(QUIET)
        seconds = time.monotonic() - begun
        rates = {}
        for name, pid in self._pids.items():
            now, before = _switches(pid), counts[name]
            rates[name] = sum(count - before.get(thread, 0) for thread, count in now.items()) / seconds
        title(f"wake-ups a second when idle, over {seconds:.0f} s, all threads")
        table(("", "a second"), [(name, f"{rate:.2f}") for name, rate in rates.items()])
        for mqtt, name in ((True, "with MQTT"), (False, "without MQTT")):
            aims.at_most(f"wake-ups a second, {name}", rates[name], WAKE_UPS_AIM[mqtt])


def _start_relay(stage: Stage, python: Python, takes: _Takes) -> None:
    program, ready = stage.start_relay("tcp", stage.terminal(), python=python)
    takes.ready.append(ready)
    takes.weigh(program.pid)
    stage.drop(program)


def _start_daemon(daemon: Daemon, takes: _Takes) -> None:
    ready, set_up = daemon.start()
    takes.ready.append(ready)
    takes.set_up.append(set_up)
    time.sleep(SETTLE)
    takes.weigh(daemon.pid)
    daemon.stop()


def _switches(pid: int) -> dict[str, int]:
    """How often each thread went to sleep: it wakes up as often."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = (task / "status").read_text("ascii", "replace")
        found[task.name] = int(status.partition("voluntary_ctxt_switches:")[2].split(maxsplit=1)[0])
    return found


def _s(seconds: float) -> str:
    return f"{seconds:.3f}"
