# SPDX-License-Identifier: Apache-2.0
"""A request with the data for its prompt, in virtual time: it goes out behind the prompt, once, and leaves no trace."""

import asyncio
import base64
import contextlib
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from atrund.at.exchange import CTRL_Z, ESC, Prompted
from atrund.at.feed import Finish
from atrund.at.reader import PromptKind
from atrund.atrun.ask import BODY_MAX
from atrund.atrun.request import Door, Request
from atrund.ledger import tables
from atrund.run import Run
from atrund.sim.faults import Plant
from tests.support.desk import Desk, desk
from tests.support.virtual import AtOnce, crash
from tests.support.waiting import until

pytestmark = pytest.mark.looptime

TO = "+393461234567"
SMS = f'AT+CMGF=1;+CMGS="{TO}"'
FILE = random.Random(1).randbytes(BODY_MAX)  # noqa: S311 - no secret
FILE_64 = base64.b64encode(FILE).decode()


def traces(it: Desk, text: str) -> list[str]:
    """Where a text is found in what is kept: the ledger with its outbox and audit."""
    coded = base64.b64encode(text.encode()).decode()
    return [line for line in it.house.disk.store.connection.iterdump() if text in line or coded in line]


async def test_a_text_is_sent() -> None:
    async with desk() as it:
        answer = await it.ask({"id": "a", "cmd": SMS, "body": "hello from afar"})
        assert (answer["state"], answer["final"], answer["lines"]) == ("ok", "OK", ["+CMGS: 0"])
        assert it.house.sent == [(TO, "hello from afar")]


async def test_a_text_of_three_lines() -> None:
    """LE910Cx AT commands, +CMGS: the module asks anew behind each CR."""
    async with desk() as it:
        it.house.module.quirks.set("prompt_again", value=True)
        assert (await it.ask({"cmd": SMS, "body": "one\rtwo\rthree"}))["state"] == "ok"
        assert it.house.sent == [(TO, "one\rtwo\rthree")]


async def test_a_good_end_without_a_prompt_is_told() -> None:
    """The module's word is passed on, with the doubt that nothing was sent."""
    async with desk() as it:
        it.house.module.faults.plant("+CNMA", Plant(final="OK"))
        answer = await it.ask({"cmd": "AT+CNMA", "body": "hello"})
        assert (answer["state"], answer["final"]) == ("ok", "OK")
        assert answer["detail"] == "the module did not ask for the body"
        answer = await it.ask({"cmd": SMS, "body": "hello"})
        assert (answer["state"], answer["detail"]) == ("ok", None)


async def test_a_minute_later_nothing_is_left_in_any_file(tmp_path: Path) -> None:
    """POL-3: neither of a body nor of a secret in a line, while the daemon runs on; nor where a killed one starts."""
    disk = AtOnce(tmp_path / "ledger.db")
    seeks = (base64.b64encode(FILE[300:330]), b"48151623")

    def left() -> bool:
        return any(one in file.read_bytes() for file in tmp_path.iterdir() for one in seeks)

    async with desk(disk=disk) as it:
        line = f'AT#WSCRIPT="a",{len(FILE)}'
        assert (await it.ask({"cmd": line, "body_b64": FILE_64}))["state"] == "ok"
        assert (await it.ask({"cmd": 'AT+CPIN="48151623"'}))["state"] == "rejected"
        assert left(), "what a crash needs is on the disk before it is sent"
        await asyncio.sleep(70)
        assert not left()
        assert (await it.ask({"cmd": 'AT#WSCRIPT="b",3000', "body_b64": FILE_64[:4000]}))["state"] == "ok"
        (tmp_path / "killed").mkdir()
        for name in ("ledger.db", "ledger.db-wal"):
            (tmp_path / "killed" / name).write_bytes((tmp_path / name).read_bytes())
    assert seeks[0] in (tmp_path / "killed" / "ledger.db-wal").read_bytes()
    again = AtOnce(tmp_path / "killed" / "ledger.db")
    assert not any(seeks[0] in file.read_bytes() for file in (tmp_path / "killed").iterdir())
    again.close(1.0)


async def test_a_prompt_that_is_shown_twice_takes_one_body() -> None:
    async with desk() as it:
        it.house.module.quirks.set("cmgs_prompt", "twice")
        assert (await it.ask({"cmd": SMS, "body": "hello"}))["state"] == "ok"
        assert it.house.sent == [(TO, "hello")]
        assert sum(b"hello" in piece for piece in it.house.wire.written) == 1


async def test_an_empty_text() -> None:
    async with desk() as it:
        assert (await it.ask({"cmd": SMS, "body": ""}))["state"] == "ok"
        assert it.house.sent == [(TO, "")]


async def test_a_pdu() -> None:
    async with desk() as it:
        pdu = "0001000C91933964214365000005E8329BFD06"
        answer = await it.ask({"cmd": f"AT+CMGS={len(pdu) // 2 - 1}", "body": pdu})
        assert answer["state"] == "ok", answer
        assert it.house.sent[0][1] == "hello"


@pytest.mark.parametrize("size", [1, 4096, 4097, BODY_MAX])
async def test_a_file_of_any_octets(size: int) -> None:
    async with desk() as it:
        body = base64.b64encode(FILE[:size]).decode()
        answer = await it.ask({"cmd": f'AT#WSCRIPT="a.py",{size}', "body_b64": body})
        assert (answer["state"], answer["final"]) == ("ok", "OK")
        assert it.house.module.scripts["a.py"] == FILE[:size]
        assert all(len(piece) <= 4096 for piece in it.house.wire.written)


async def test_a_file_as_text_is_counted_in_octets() -> None:
    async with desk() as it:
        text = "# \u20ac\n"
        answer = await it.ask({"cmd": f'AT#WSCRIPT="a.py",{len(text.encode())}', "body": text})
        assert answer["state"] == "ok"
        assert it.house.module.scripts["a.py"] == text.encode()


async def test_a_body_goes_out_only_behind_the_prompt() -> None:
    """Sent without one it would be a command."""
    async with desk() as it:
        refused = await it.ask({"cmd": 'AT+CMGF=1;+CMGS="1",999', "body": "AT+CFUN=4"})
        assert (refused["state"], refused["final"][:10]) == ("error", "+CME ERROR")
        failed = await it.ask({"cmd": 'AT+XYZ;+CMGS="1"', "body": "AT+CFUN=4"})
        assert failed["state"] == "error"
        it.house.module.quirks.set("cmgs_prompt", "never")
        answer = await it.ask({"cmd": SMS, "body": "AT+CFUN=4", "timeout_ms": 5000})
        assert answer["state"] == "timeout"
        await asyncio.sleep(200)
        assert (await it.ask("AT+CSQ"))["state"] == "ok"
        assert not any(b"CFUN=4" in piece for piece in it.house.wire.written)


@pytest.mark.parametrize(
    ("asked", "reason", "told"),
    [
        ({"cmd": "AT+CSQ", "body": "x"}, "bad_request", "no command"),
        ({"cmd": SMS, "body": "a\x1ab"}, "bad_request", "Ctrl-Z"),
        ({"cmd": SMS, "body": "a\x1b"}, "bad_request", "ESC"),
        ({"cmd": SMS, "body": "\u20ac"}, "bad_request", "+CSCS"),
        ({"cmd": SMS, "body": "a", "body_b64": "YQ=="}, "bad_request", "not both"),
        ({"cmd": SMS, "body_b64": "YQ"}, "bad_request", "base64"),
        ({"cmd": f'{SMS};+CMGS="2"', "body": "x"}, "bad_request", "one body"),
        ({"cmd": 'AT#WSCRIPT="a",5', "body": "four"}, "bad_request", "announces 5"),
        ({"cmd": "AT+CMGS", "body": "x" * (BODY_MAX + 1)}, "too_long", f"at most {BODY_MAX}"),
        ({"cmd": SMS}, "prompt_unsupported", "body_b64"),
        ({"cmd": 'AT#WSCRIPT="a",5'}, "prompt_unsupported", "body_b64"),
    ],
)
async def test_what_does_not_fit_is_refused_and_nothing_is_sent(asked: dict[str, Any], reason: str, told: str) -> None:
    async with desk() as it:
        before = len(it.house.wire.written)
        answer = await it.ask({"id": "a", **asked})
        assert (answer["id"], answer["state"], answer["reason"]) == ("a", "rejected", reason)
        assert told in answer["detail"]
        assert len(it.house.wire.written) == before


async def test_a_body_is_part_of_what_is_asked() -> None:
    """MQ-2: the same id with another body is another request, by whichever key it comes."""
    async with desk() as it:
        first = await it.ask({"id": "a", "cmd": SMS, "body": "hello"})
        again = await it.ask({"id": "a", "cmd": SMS, "body": "hello"})
        coded = await it.ask({"id": "a", "cmd": SMS, "body_b64": base64.b64encode(b"hello").decode()})
        other = await it.ask({"id": "a", "cmd": SMS, "body": "hell"})
        none = await it.ask({"id": "a", "cmd": SMS})
        assert first["rid"] == again["rid"] == coded["rid"]
        assert {answer["state"] for answer in (first, again, coded)} == {"ok"}
        assert [(answer["state"], answer["reason"]) for answer in (other, none)] == [("rejected", "duplicate")] * 2
        assert "body" in other["detail"]
        assert it.house.sent == [(TO, "hello")]


async def test_a_body_leaves_no_trace(capsys: pytest.CaptureFixture[str]) -> None:
    """POL-3: it is kept until the outcome is recorded, and nowhere else ever."""
    async with desk() as it:
        it.house.module.faults.plant("AT#CGMI", Plant(seconds=10))
        it.bring('{"id":"long","cmd":"AT#CGMI"}')
        it.bring(json.dumps({"id": "a", "cmd": SMS, "body": "xyzzy"}))
        await asyncio.sleep(1)
        assert len(traces(it, "xyzzy")) == 1, "it waits with its request"
        await until(lambda: len(it.answers) == 2)
        assert it.house.sent == [(TO, "xyzzy")]
        assert traces(it, "xyzzy") == []
        assert (await it.ask({"cmd": "AT+CSQ", "body": "xyzzy"}))["reason"] == "bad_request"
        assert traces(it, "xyzzy") == []
    told = capsys.readouterr()
    assert "xyzzy" not in told.out + told.err


@pytest.mark.parametrize("size", [5, BODY_MAX])
async def test_a_body_that_waits_survives_a_crash(tmp_path: Path, size: int) -> None:
    """REQ-9: recorded, it is run with what came with it; sent, it is lost, and never sent again."""
    disk = AtOnce(tmp_path / "ledger.db")
    with contextlib.suppress(asyncio.CancelledError):
        async with desk(disk=disk) as it:
            it.house.module.faults.plant("+CMGS", Plant(seconds=10))
            body = base64.b64encode(FILE[:size]).decode()
            it.bring(json.dumps({"id": "sent", "cmd": SMS, "body": "hello"}))
            it.bring(json.dumps({"id": "recorded", "cmd": f'AT#WSCRIPT="a.py",{size}', "body_b64": body}))
            await asyncio.sleep(1)
            assert it.house.disk.rows("SELECT state FROM requests ORDER BY rowid") == [("sent",), ("recorded",)]
            await crash(it.house.daemon)
            disk.broken = ""
    after = AtOnce(tmp_path / "ledger.db")
    async with desk(disk=after) as it:
        await asyncio.sleep(60)
        assert {answer["id"]: answer["state"] for answer in it.answers} == {"sent": "lost", "recorded": "ok"}
        assert it.house.module.scripts["a.py"] == FILE[:size]
        assert it.house.sent == []
        assert it.house.disk.rows("SELECT rid FROM requests WHERE asked LIKE '%\"body\"%'") == []
        again = await it.ask({"id": "recorded", "cmd": f'AT#WSCRIPT="a.py",{size}', "body_b64": body}, duplicate=True)
        assert again["state"] == "ok"


async def test_a_body_that_the_port_does_not_take_in_time() -> None:
    """The prompt is filled up, and the port is free again."""
    async with desk() as it:
        assert it.house.wire.end is not None
        it.house.wire.end.unsent = 1 << 20
        line = f'AT#WSCRIPT="a.py",{BODY_MAX}'
        it.bring(json.dumps({"id": "a", "cmd": line, "body_b64": FILE_64, "timeout_ms": 5000}))
        await asyncio.sleep(6)
        assert [(answer["state"], answer["final"]) for answer in it.answers] == [("timeout", None)]
        assert it.house.wire.end is not None
        it.house.wire.end.unsent = 0
        assert (await it.ask("AT+CSQ"))["state"] == "ok"


async def test_each_instance_has_its_own_settings() -> None:
    """+CMGF=1 in one is no text mode in another, where `+CMGS` wants the length of a PDU."""
    async with desk() as it:
        assert (await it.ask({"cmd": "AT+CMGF=1", "instance": 2}))["state"] == "ok"
        assert (await it.ask({"cmd": f'AT+CMGS="{TO}"', "body": "two", "instance": 2}))["state"] == "ok"
        assert (await it.ask({"cmd": f'AT+CMGS="{TO}"', "body": "three", "instance": 3}))["state"] == "error"
        assert (await it.ask({"cmd": f'AT+CMGS="{TO}"', "body": "one"}))["state"] == "error"
        assert (await it.ask({"cmd": "AT", "instance": 4}))["reason"] == "bad_request"
        assert it.house.sent == [(TO, "two")]


def given(run: Run) -> bytes:
    run.open_feed()
    assert run.feed is not None
    return run.feed.take(1 << 20)


async def test_a_prompt_that_nobody_expected_gets_nothing() -> None:
    """One body is for one prompt. A second text prompt is left; what a second counted one waits for, nobody knows."""
    run = Run(Request(rid="r", door=Door.MQTT, peer="who", line="AT", body=b"abc"), None)
    run.open_feed()
    assert run.feed is not None
    run.feed.open(Prompted(PromptKind.TEXT), lambda: None)
    assert given(run) == b"abc" + CTRL_Z
    run.feed.ask_again(Prompted(PromptKind.TEXT, again=True))
    assert given(run) == b""
    run.feed.open(Prompted(PromptKind.TEXT), lambda: None)
    assert (given(run), run.feed.finish) == (b"", Finish.GIVEN_UP)
    run.feed.open(Prompted(PromptKind.COUNTED, 3), lambda: None)
    assert (given(run), run.feed.is_open) == (b"", True)


async def test_a_counted_prompt_gets_the_body_as_it_is() -> None:
    run = Run(Request(rid="r", door=Door.MQTT, peer="who", line="AT", body=CTRL_Z + ESC + b"\0"), None)
    run.open_feed()
    assert run.feed is not None
    run.feed.open(Prompted(PromptKind.COUNTED, 3), lambda: None)
    assert given(run) == CTRL_Z + ESC + b"\0"


def test_what_an_earlier_version_recorded_is_known() -> None:
    """MQ-2: a request that comes again behind an update is not run again for it."""
    request = Request(rid="r", door=Door.MQTT, peer="who", line="AT+CIMI")
    assert tables.content_digest(request) == hashlib.sha256(b"AT+CIMI\0None").hexdigest()[:32]
