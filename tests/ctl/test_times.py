# SPDX-License-Identifier: Apache-2.0
"""Times that atrunctl shows: local with their offset, in UTC with `--utc`, wherever that stands; JSON stays in UTC."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atrund.control import DoneAnswer, encode
from atrund.ctl.fleet_watch import line_of
from atrund.ctl.main import build, main
from atrund.ctl.times import shown
from tests.ctl.server import Server

Capture = pytest.CaptureFixture[str]
Zone = Callable[[str], None]

ROME = "CET-1CEST,M3.5.0,M10.5.0/3"
KOLKATA = "IST-5:30"
NEWFOUNDLAND = "NST3:30NDT,M3.2.0,M11.1.0"
STAMP = "2026-11-22T22:40:00.123Z"

ROWS: dict[tuple[str, ...], dict[str, Any]] = {
    ("audit",): {"entries": [{"n": 1, "ts": STAMP, "door": "tcp", "peer": "x", "event": "connected"}], "more": False},
    ("sms", "log"): {"entries": [{"n": 1, "ts": STAMP, "peer": "+39", "verdict": "other", "fate": "kept"}]},
    ("nvm", "show"): {
        "settings": [{"key": "k", "value": 1, "from": "command", "door": "sms", "peer": "p", "ts": STAMP}]
    },
}
"""What the daemon answers to each command that shows times."""


@pytest.mark.parametrize(
    ("zone_name", "stamp", "local"),
    [
        (ROME, "2026-11-22T22:40:00.123Z", "2026-11-22 23:40:00.123+01:00"),
        (ROME, "2026-07-22T22:40:00.123Z", "2026-07-23 00:40:00.123+02:00"),
        # The hour that there is twice: the offset alone tells one from the other.
        (ROME, "2026-10-25T00:30:00.000Z", "2026-10-25 02:30:00.000+02:00"),
        (ROME, "2026-10-25T01:30:00.000Z", "2026-10-25 02:30:00.000+01:00"),
        # And the one that there is not.
        (ROME, "2026-03-29T00:59:59.999Z", "2026-03-29 01:59:59.999+01:00"),
        (ROME, "2026-03-29T01:00:00.000Z", "2026-03-29 03:00:00.000+02:00"),
        (KOLKATA, "2026-11-22T22:40:00.123Z", "2026-11-23 04:10:00.123+05:30"),
        (NEWFOUNDLAND, "2026-01-01T00:00:00.000Z", "2025-12-31 20:30:00.000-03:30"),
        (NEWFOUNDLAND, "2026-07-01T00:00:00.000Z", "2026-06-30 21:30:00.000-02:30"),
        ("UTC0", "2026-11-22T22:40:00.123Z", "2026-11-22 22:40:00.123+00:00"),
    ],
)
def test_the_offset_is_that_of_the_moment(zone: Zone, zone_name: str, stamp: str, local: str) -> None:
    zone(zone_name)
    assert shown(stamp, utc=False) == local
    assert shown(stamp, utc=True) == stamp.replace("T", " ")
    # What is shown is the same moment, and can be given to --since as it is.
    assert shown(local, utc=True) == stamp.replace("T", " ")


@pytest.mark.parametrize("utc", [False, True])
def test_what_is_no_time_is_shown_as_it_is(zone: Zone, *, utc: bool) -> None:
    zone(ROME)
    assert [shown(given, utc=utc) for given in ("noon", "", None, 7, "0001-01-01T00:00:00+14:00")] == [
        "noon", "-", "-", "7", "0001-01-01T00:00:00+14:00",
    ]  # fmt: skip


@pytest.mark.parametrize("words", ROWS)
def test_every_command_that_shows_times_takes_the_option_on_either_side(
    tmp_path: Path, capsys: Capture, zone: Zone, words: tuple[str, ...]
) -> None:
    zone(KOLKATA)

    def out(*arguments: str) -> str:
        server = Server(tmp_path / "socket", (encode(DoneAnswer(ROWS[words])),))
        try:
            assert main(["--socket", server.path, *arguments]) == 0
        finally:
            server.stop()
            Path(server.path).unlink()
        return capsys.readouterr().out

    assert "2026-11-23 04:10:00.123+05:30" in out(*words)
    assert "2026-11-22 22:40:00.123Z" in out(*words, "--utc")
    assert out("--utc", *words) == out(*words, "--utc")
    assert STAMP in out(*words, "--json"), "JSON is in UTC"
    assert out("--utc", *words, "--json") == out(*words, "--json")
    assert json.loads(out(*words, "--json"))


def test_a_watch_of_many_nodes_shows_the_time_of_here(zone: Zone) -> None:
    zone(NEWFOUNDLAND)
    record = {"ts": STAMP, "clock": "ok", "state": "online"}
    assert line_of("n", "status", record).startswith(" 19:10:00.123-03:30  n ")
    assert line_of("n", "status", record, utc=True).startswith(" 22:40:00.123Z  n ")
    assert line_of("n", "status", {**record, "ts": "noon"}).startswith(" noon  n ")
    unset = {**record, "clock": "unset"}
    assert line_of("n", "status", unset)[0] == "~"
    assert "-03:30  n " in line_of("n", "status", unset) or "-02:30  n " in line_of("n", "status", unset)
    assert line_of("n", "status", unset, utc=True).split()[0].endswith("Z")


def test_the_option_is_known_everywhere_and_off() -> None:
    assert build(["audit"]).parse_args(["audit"]).utc is False
    assert build(["at"]).parse_args(["--utc", "at", "AT"]).utc is True
    assert build(["fleet"]).parse_args(["fleet", "watch", "--broker", "mqtt://b", "--utc"]).utc is True
