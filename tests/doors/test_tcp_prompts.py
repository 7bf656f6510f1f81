# SPDX-License-Identifier: Apache-2.0
"""Prompts at the TCP door, in virtual time: what is typed there goes to the module, and nothing else does (REQ-6)."""

import asyncio
import random

import pytest

from atrund.at.feed import WAITING_MAX
from atrund.config.values import Recovery
from atrund.sim.commands import HANDLERS
from atrund.sim.faults import Plant
from atrund.sim.steps import Prompt
from tests.support.calling import Caller, calling, door
from tests.support.virtual import House
from tests.support.waiting import until

pytestmark = pytest.mark.looptime

TO = 'AT+CMGS="+393461234567"'
FILE = random.Random(1).randbytes(60_000)  # noqa: S311 - no secret


async def prompted(caller: Caller, typed: bytes, prompt: bytes = b"\r\n> ") -> None:
    await caller.ask(typed, prompt)


async def to_a_text(caller: Caller) -> None:
    await caller.ask(b"AT+CMGF=1\r")
    await prompted(caller, f"{TO}\r".encode())


async def is_free(house: House) -> None:
    """The module takes commands again, and no prompt stands there."""
    async with calling(house) as caller:
        assert await caller.ask(b"AT+GMI\r") == b"AT+GMI\r\r\nTelit\r\n\r\nOK\r\n"


async def test_a_text() -> None:
    async with door() as house, calling(house) as caller:
        await to_a_text(caller)
        assert await caller.ask(b"hello\x1a") == b"hello\r\n+CMGS: 0\r\n\r\nOK\r\n"
        assert house.sent == [("+393461234567", "hello")]
        assert house.outcomes[-1] == (TO, "ok", None)
        assert not any("hello" in line for line in house.disk.store.connection.iterdump())


async def test_without_echo_nothing_is_echoed() -> None:
    async with door() as house, calling(house) as caller:
        await caller.ask(b"ATE0\r")
        await to_a_text(caller)
        assert await caller.ask(b"hello\x1a") == b"\r\n+CMGS: 0\r\n\r\nOK\r\n"


async def test_a_text_of_two_lines_typed_by_hand() -> None:
    """LE910Cx AT commands, +CMGS: the prompt comes again behind each CR."""
    async with door() as house, calling(house) as caller:
        house.module.quirks.set("prompt_again", value=True)
        await to_a_text(caller)
        for octet in b"on\x08ne\rtwo":
            caller.writer.write(bytes([octet]))
            await asyncio.sleep(0.1)
        shown = await caller.ask(b"\x1a")
        assert shown == b"on\x08 \x08ne\r\r\n> two\r\n+CMGS: 0\r\n\r\nOK\r\n"
        assert house.sent == [("+393461234567", "one\rtwo")]


async def test_a_text_of_three_lines_that_was_pasted() -> None:
    async with door() as house, calling(house) as caller:
        house.module.quirks.set("prompt_again", value=True)
        await to_a_text(caller)
        shown = await caller.ask(b"one\rtwo\rthree\x1a")
        assert shown == b"one\rtwo\rthree" + b"\r\n> " * 2 + b"\r\n+CMGS: 0\r\n\r\nOK\r\n"
        assert house.sent == [("+393461234567", "one\rtwo\rthree")]


async def test_a_prompt_that_is_shown_twice() -> None:
    async with door() as house, calling(house) as caller:
        house.module.quirks.set("cmgs_prompt", "twice")
        await to_a_text(caller)
        assert b"+CMGS: 0\r\n" in await caller.ask(b"hello\x1a")
        assert house.sent == [("+393461234567", "hello")]


async def test_a_text_that_is_given_up() -> None:
    async with door() as house, calling(house) as caller:
        await to_a_text(caller)
        assert await caller.ask(b"hello\x1b", b"ERROR\r\n") == b"hello\r\nERROR\r\n"
        assert house.sent == []
        assert house.outcomes[-1] == (TO, "error", None)
        assert await caller.ask(b"AT\r") == b"AT\r\r\nOK\r\n"


async def test_a_file_of_60_kilobytes() -> None:
    """Any octets, telnet's own among them, as from a client that does not speak it."""
    async with door() as house, calling(house) as caller:
        await prompted(caller, b'AT#WSCRIPT="a.py",60000\r', b"\r\n>>>")
        assert await caller.ask(FILE) == b"\r\nOK\r\n"
        assert house.module.scripts["a.py"] == FILE
        assert all(len(piece) <= 4096 for piece in house.wire.written)


async def test_a_client_that_speaks_telnet_doubles_its_octet_255() -> None:
    async with door() as house, calling(house) as caller:
        caller.writer.write(b"\xff\xfd\x01")
        await prompted(caller, b'AT#WSCRIPT="a",3\r', b"\r\n>>>")
        assert await caller.ask(b"a\xff\xffb") == b"\r\nOK\r\n"
        assert house.module.scripts["a"] == b"a\xffb"


async def test_a_counted_prompt_that_looks_like_a_text() -> None:
    async with door() as house, calling(house) as caller:
        house.module.quirks.set("data_prompts", value=True)
        await prompted(caller, b"AT#SSENDEXT=1,4\r")
        assert await caller.ask(b"\x1a\x1b\r\x00") == b"\x1a\x1b\r\x00\r\nOK\r\n"
        assert [upload.data for upload in house.module.uploads] == [b"\x1a\x1b\r\x00"]


async def test_what_is_behind_the_data_is_a_command_and_judged() -> None:
    async with door(sequence=True) as house, calling(house) as caller:
        await prompted(caller, b'AT#WSCRIPT="a",3\r', b"\r\n>>>")
        typed = b"abcAT+CFUN=4\rAT+GMI\r"
        assert (await caller.ask(typed, b"Telit\r\n\r\nOK\r\n")).count(b"ERROR") == 1
        assert "AT+CFUN=4" not in house.wire.seen
        assert house.outcomes[-2:] == [("AT+CFUN=4", "rejected", "policy"), ("AT+GMI", "ok", None)]


async def test_what_is_behind_the_data_is_ignored_while_the_command_runs() -> None:
    """TCP-5, sequence off."""
    async with door() as house, calling(house) as caller:
        await prompted(caller, b'AT#WSCRIPT="a",3\r', b"\r\n>>>")
        assert await caller.ask(b"abcAT+GMI\r") == b"\r\nOK\r\n"
        assert await caller.ask(b"AT\r") == b"AT\r\r\nOK\r\n"
        assert "AT+GMI" not in [line for line, _, _ in house.outcomes]


async def test_data_are_neither_queued_nor_behind_what_is() -> None:
    """TCP-5: also when so much is queued that nothing else is read."""
    async with door(sequence=True) as house, calling(house) as caller:
        await prompted(caller, b'AT#WSCRIPT="a",3\r' + b"AT\r" * 70, b"\r\n>>>")
        caller.writer.write(b"abc")
        await until(lambda: house.module.scripts)
        assert house.module.scripts == {"a": b"abc"}


async def test_two_prompts_in_a_line() -> None:
    async with door() as house, calling(house) as caller:
        await prompted(caller, b'AT+GMI;#WSCRIPT="a",2;+CSQ;#WSCRIPT="b",3;+GMM\r', b"\r\n>>>")
        answer = await caller.ask(b"ab", b"\r\n>>>")
        assert answer.startswith(b"\r\n+CSQ: ")
        assert (await caller.ask(b"cde")).endswith(b"\r\n\r\nOK\r\n")
        assert house.module.scripts == {"a": b"ab", "b": b"cde"}


async def test_the_first_error_ends_the_line() -> None:
    async with door() as house, calling(house) as caller:
        await prompted(caller, b'AT#WSCRIPT="a",2;+CMGR=99;#WSCRIPT="b",3\r', b"\r\n>>>")
        await caller.ask(b"ab", b"\r\n+CMS ERROR: 321\r\n")
        assert list(house.module.scripts) == ["a"]


@pytest.mark.parametrize("size", ["0", "03", "+3", "0x3", "", "1048577", "99999999999"])
async def test_a_size_that_may_be_meant_in_two_ways_is_refused(size: str) -> None:
    """What the module took less of would be commands that nobody judged."""
    async with door() as house, calling(house) as caller:
        await caller.ask(f'AT#WSCRIPT="a",{size}\r'.encode(), b"ERROR\r\n")
        assert house.outcomes[-1][1:] == ("rejected", "prompt_unsupported")
        assert not any("#WSCRIPT" in line for line in house.wire.seen)


async def test_a_prompt_that_no_rule_of_ours_ends_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HANDLERS, "#UNHEARD", lambda _port, _command: iter((Prompt(),)))
    async with door() as house, calling(house) as caller:
        assert await caller.ask(b"AT#UNHEARD=1\r", b"ERROR\r\n") == b"AT#UNHEARD=1\r\r\nERROR\r\n"
        assert house.outcomes[-1] == ("AT#UNHEARD=1", "error", "prompt_unsupported")


async def test_a_client_that_goes_leaves_no_text_prompt() -> None:
    async with door() as house:
        async with calling(house) as caller:
            await to_a_text(caller)
            caller.writer.write(b"hello")
            await asyncio.sleep(1)
        await until(lambda: house.outcomes[-1][0] == TO)
        assert house.outcomes[-1] == (TO, "cancelled", None)
        assert b"\x1b" in house.wire.written
        await is_free(house)
        assert house.sent == []


async def test_a_client_that_goes_leaves_no_counted_prompt() -> None:
    """Nothing else makes the module take commands again; and ESC is data there."""
    async with door() as house:
        async with calling(house) as caller:
            await prompted(caller, b'AT#WSCRIPT="a.py",60000\r', b"\r\n>>>")
            house.wire.written.clear()
            caller.writer.write(FILE[:30_000])
            await asyncio.sleep(1)
        await is_free(house)
        assert house.module.scripts["a.py"] == FILE[:30_000] + bytes(30_000)
        written = b"".join(house.wire.written)
        assert written.startswith(FILE[:30_000] + bytes(30_000))


async def test_an_idle_client_at_a_prompt_is_sent_away() -> None:
    """TCP-7; any octet begins the time anew."""
    async with door(idle_timeout=100.0) as house:
        async with calling(house) as caller:
            await to_a_text(caller)
            loop = asyncio.get_running_loop()
            await asyncio.sleep(90)
            caller.writer.write(b"x")
            begun = loop.time()
            assert await caller.rest() == b"x"
            assert loop.time() - begun == pytest.approx(100, abs=0.5)
        assert house.told[-1] == ("disconnected", "idle")
        assert house.outcomes[-1] == (TO, "cancelled", "idle")
        await is_free(house)


@pytest.mark.parametrize(
    ("line", "prompt"), [(TO, b"\r\n> "), ('AT#WSCRIPT="a",60000', b"\r\n>>>")], ids=["text", "counted"]
)
async def test_data_that_never_end_are_left_at_the_deadline(line: str, prompt: bytes) -> None:
    """REQ-7. It is not the module that is late, so it is not rebooted for that."""
    strict = Recovery(reboot="always", timeout_action="reboot")
    async with door(recovery=strict, timeout=60.0, idle_timeout=0.0) as house, calling(house) as caller:
        await caller.ask(b"AT+CMGF=1\r")
        begun = asyncio.get_running_loop().time()
        await prompted(caller, f"{line}\r".encode(), prompt)
        caller.writer.write(b"x")
        assert (await caller.ask(b"", b"ERROR\r\n")).endswith(b"\r\nERROR\r\n")
        assert asyncio.get_running_loop().time() - begun == pytest.approx(60, abs=1)
        assert house.outcomes[-1] == (line, "timeout", None)
        assert await caller.ask(b"AT\r") == b"AT\r\r\nOK\r\n"
        assert house.sent == []
        assert "AT#REBOOT" not in house.wire.seen


async def test_a_module_that_wants_no_more_data() -> None:
    async with door() as house, calling(house) as caller:
        house.module.quirks.set("counted_timeout", 5)
        await prompted(caller, b'AT#WSCRIPT="a",10\r', b"\r\n>>>")
        assert await caller.ask(b"abc", b"ERROR\r\n") == b"\r\nERROR\r\n"
        assert await caller.ask(b"AT\r") == b"AT\r\r\nOK\r\n"


async def test_a_module_that_is_unplugged_at_its_prompt() -> None:
    async with door() as house, calling(house) as caller:
        await to_a_text(caller)
        house.wire.lose()
        await caller.ask(b"hello\x1a", b"ERROR\r\n")
        assert house.outcomes[-1] == (TO, "lost", "port_down")


async def test_a_slow_port_makes_the_client_wait() -> None:
    async with door() as house, calling(house) as caller:
        await prompted(caller, b'AT#WSCRIPT="a.py",60000\r', b"\r\n>>>")
        end = house.wire.end
        assert end is not None
        end.unsent = 1 << 16
        caller.writer.write(FILE)
        await asyncio.sleep(5)
        assert house.daemon.tcp is not None
        session = house.daemon.tcp.session
        assert session is not None
        assert session._run is not None
        assert session._run.feed is not None
        assert WAITING_MAX <= len(session._run.feed._waiting) <= 2 * WAITING_MAX
        end.unsent = 0
        assert await caller.ask(b"") == b"\r\nOK\r\n"
        assert house.module.scripts["a.py"] == FILE


async def test_a_peer_that_said_no_more_before_the_prompt_gives_the_command_up() -> None:
    async with door(idle_timeout=0.0) as house:
        async with calling(house) as caller:
            caller.writer.write(b"AT+CMGS=20\r")
            caller.writer.write_eof()
            async with asyncio.timeout(10):
                assert await caller.rest() == b"AT+CMGS=20\r\r\n> "
        await is_free(house)
        assert house.sent == []
        assert ("AT+CMGS=20", "cancelled", None) in house.outcomes


async def test_a_session_that_is_to_end_is_not_asked_for_data() -> None:
    """Whoever is shut out while the module comes to its prompt, or at it, waits for no answer: it waits for him."""
    async with door(sessions=2, idle_timeout=0.0) as house, calling(house) as other:
        await other.ask(b"AT\r")
        assert house.daemon.tcp is not None
        async with calling(house) as caller:
            await to_a_text(caller)
            house.daemon.tcp.sessions[1].finish()
            async with asyncio.timeout(10):
                await caller.rest()
        async with calling(house) as caller:
            house.module.faults.plant(TO, Plant(seconds=3.0))
            caller.writer.write(f"{TO}\r".encode())
            await asyncio.sleep(1)
            house.daemon.tcp.sessions[1].finish()
            async with asyncio.timeout(10):
                await caller.rest()
        await is_free(house)
        assert house.sent == []
