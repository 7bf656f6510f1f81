# SPDX-License-Identifier: Apache-2.0
"""What waits for the broker: the bytes that a command writes, memory with much spooled, and how fast it leaves."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from atrund.broker.connection import WINDOW
from atrund.ledger import outbox
from atrund.ledger.schema import open_file
from atrund.ledger.writer import Write
from tests.bench.figures import Spread, table, title
from tests.bench.roundtrips import Control, Mqtt
from tests.bench.stage import ROOT, BenchError, Daemon, Stage, deadline, find, pythons

ALONE: Final = 10
PAUSE: Final = 1.4
"""Commands one by one, and seconds between them: what belongs to one is written before the next comes."""
BURST: Final = 300
"""Commands one upon the other: what is written behind is written together."""
SPOOLED: Final = 100_000
RECORD: Final = (
    '{"v":1,"session":"0123456789abcdef0123456789abcdef","ts":"2026-11-22T08:40:00.000Z","clock":"ok","id":"%032x",'
    '"rid":"%032x","door":"tcp","peer":"10.0.0.1:50000","cmd":"AT+COPS?","state":"ok","final":"OK",'
    '"lines":["+COPS: 0,0,\\"vodafone IT\\",7"],"raw_b64":null,"queued_ms":3,"duration_ms":212,"truncated":false,'
    '"reason":null}'
)
"""A record of the mirror as most are."""
ROOM: Final = 'spool_records = 1000000\nspool_bytes = "1024MiB"'
PUBLISHED: Final = 20_000
LIVE: Final = 2000
SETTLE: Final = 1.0
LOOK_EVERY: Final = 0.25
WITHIN: Final = 300.0


def measure(stage: Stage) -> None:
    """Take and print the figures."""
    _measure_writes(stage)
    _measure_drain(stage)


def _measure_writes(stage: Stage) -> None:
    """One command at a time, then many, by the control socket and as an MQTT request; each daemon has one of them."""
    rows = []
    daemons = {
        (door, spool): Daemon(stage, f"{door}-{spool}", pythons()[0], mqtt=True, options=f'spool = "{spool}"')
        for door in ("local", "mqtt")
        for spool in ("disk", "memory")
    }
    asks = {}
    for (door, spool), daemon in daemons.items():
        daemon.start()
        asks[door, spool] = _asker(door, daemon)
        asks[door, spool]("AT+CSQ")
    time.sleep(2 * PAUSE)
    alone: dict[tuple[str, str], list[float]] = {key: [] for key in daemons}
    for _ in range(ALONE):
        before = {key: _written(daemon.pid) for key, daemon in daemons.items()}
        for ask in asks.values():
            ask("AT+CSQ")
        time.sleep(PAUSE)
        for key, daemon in daemons.items():
            alone[key].append(_written(daemon.pid) - before[key])
    for key, daemon in daemons.items():
        begun = _written(daemon.pid)
        for _ in range(BURST):
            asks[key]("AT+CSQ")
        time.sleep(PAUSE)
        door, spool = key
        burst = (_written(daemon.pid) - begun) / BURST
        rows.append((f"{door}, spool {spool}", f"{Spread.of(alone[key]).median:.0f}", f"{burst:.0f}"))
        daemon.stop()
    title("bytes that a command and its records write to the disk, in whole pages of the file system")
    table(("", "alone", f"{BURST} in a row"), rows)


def _asker(door: str, daemon: Daemon) -> Callable[[str], None]:
    if door == "mqtt":
        return Mqtt(daemon.stage.broker_port, daemon.base, 1).ask
    return Control(daemon.connect()).ask


def _measure_drain(stage: Stage) -> None:
    idle = Daemon(stage, "spool-idle", pythons()[0], mqtt=True, options=ROOM)
    idle.start()
    time.sleep(SETTLE)
    empty = _memory(idle.pid)
    live = _live(idle)
    idle.stop()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    full = Daemon(stage, "spooled", pythons()[0], mqtt=True, options=ROOM, broker_port=port)
    octets = _fill(stage.directory / "spooled-state")
    ready = full.begin()
    time.sleep(SETTLE)
    held, written = _memory(full.pid), _written(full.pid)
    file = stage.directory / "spool-broker.conf"
    file.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n")
    broker = stage.add("spool-broker", [find("mosquitto"), "-c", file])
    with deadline("the spool's end", WITHIN):
        while (first := full.waiting()) == SPOOLED:
            time.sleep(LOOK_EVERY / 10)
        begun, most = time.monotonic(), held
        while full.waiting():
            most = max(most, _memory(full.pid))
            time.sleep(LOOK_EVERY)
    rate = first / (time.monotonic() - begun)
    written = _written(full.pid) - written
    arguments = [str(port), "bench/record", str(PUBLISHED), str(octets), str(WINDOW)]
    python = pythons()[0]
    bare = stage.add("publisher", [python.path, Path(__file__).with_name("publisher.py"), *arguments], python.environ)
    peer = PUBLISHED / float(bare.ask())
    for program in (bare, broker):
        stage.drop(program)
    full.stop()
    title(f"{SPOOLED} records of {octets} bytes that wait on disk; QoS 1, {WINDOW} in flight")
    ours = ("the outbox, from the disk to the acknowledgement", f"{rate:.0f}", f"{rate / peer:.2f}")
    table(
        ("", "records/s", "ratio", "bytes written, each"),
        [
            (*ours, f"{written / SPOOLED:.0f}"),
            (f"{LIVE} commands of the control socket, with two each", f"{live:.0f}", f"{live / peer:.2f}", ""),
            ("paho alone, from memory", f"{peer:.0f}", "1", "0"),
        ],
    )
    table(
        ("memory, MiB", "Rss", "ratio"),
        [
            ("nothing waits", f"{empty:.1f}", "1"),
            (f"{SPOOLED} wait, broker away", f"{held:.1f}", f"{held / empty:.2f}"),
            ("while they leave, at most", f"{most:.1f}", f"{most / empty:.2f}"),
        ],
    )
    print(f'  ready with them after {ready:.1f} s; with spool = "memory" each takes {_in_memory():.0f} bytes of memory')


def _live(daemon: Daemon) -> float:
    """Records a second while commands are run one upon the other, until the last one is acknowledged."""
    ask = Control(daemon.connect()).ask
    begun = time.monotonic()
    for _ in range(LIVE):
        ask("AT+CSQ")
    with deadline("the end of the mirror", WITHIN):
        while daemon.waiting():
            time.sleep(LOOK_EVERY / 10)
    return 2 * LIVE / (time.monotonic() - begun)


def _fill(state: Path) -> int:
    """Put records into a ledger; returns the octets of one."""
    state.mkdir(mode=0o700)
    with closing(open_file(state / "ledger.db")) as ledger:
        ledger.execute("BEGIN")
        for number in range(SPOOLED):
            _record(number, memory=False)(ledger)
        outbox.give_back()(ledger)
        ledger.execute("COMMIT")
    return len(RECORD % (0, 0))


def _in_memory() -> float:
    """The bytes of memory that a record takes where the mirror is kept in memory alone."""
    program = f"from tests.bench import spool; print(spool.held({SPOOLED}))"
    command = [sys.executable, "-c", program]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)


def held(count: int) -> float:
    """Put records into memory alone, here; the bytes that each takes."""
    with closing(open_file(Path(":memory:"))) as ledger:
        before = _memory("self")
        for number in range(count):
            _record(number, memory=True)(ledger)
        return (_memory("self") - before) * 1024**2 / count


def _record(number: int, *, memory: bool) -> Write:
    record = RECORD % (number, number)
    topic = "atrund/spooled/event/response"
    return outbox.post(response=False, topic=topic, payload=record, records=10**6, octets=2**30, memory=memory)


def _memory(pid: int | str) -> float:
    """Resident memory in MiB."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text("ascii", "replace"), re.MULTILINE)
    if found is None:
        raise BenchError(f"no memory of process {pid}")
    return int(found[1]) / 1024


def _written(pid: int) -> int:
    """The bytes that a process caused to be written to a disk so far."""
    found = re.search(r"^write_bytes: (\d+)", Path(f"/proc/{pid}/io").read_text("ascii"), re.MULTILINE)
    return int(found[1]) if found else 0
