# SPDX-License-Identifier: Apache-2.0
import asyncio
import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.at.exchange import Ended, Prompted, Why
from atrund.at.feed import Feed
from atrund.at.reader import PromptKind
from atrund.at.syntax import parse
from atrund.at.times import USUAL
from atrund.module.channel import QUIET, STANDING, Channel
from atrund.module.feeding import PIECE
from atrund.module.turn import ANSWER_MAX, Answer, LinkLostError, TimedOutError, Turn, UnfedError
from atrund.module.turns import QueueFullError, WaitedTooLongError

pytestmark = pytest.mark.looptime


class BarePort:
    """A port with a script: each write goes to `answer`, and what that returns comes back at once."""

    answer: Callable[[bytes], bytes]

    def __init__(self) -> None:
        self.unsent = 0
        self.written: list[bytes] = []
        self.times: list[float] = []
        self.closed = False
        self.answer = answers_all
        self.receiver: Channel | None = None

    def write(self, data: bytes) -> None:
        assert not self.closed
        loop = asyncio.get_running_loop()
        self.written.append(data)
        self.times.append(loop.time())
        if back := self.answer(data):
            loop.call_soon(self.say, back)

    def say(self, data: bytes) -> None:
        if not self.closed and self.receiver is not None:
            self.receiver.received(data)

    async def drop_dtr(self) -> None:
        self.written.append(b"<DTR>")
        if back := self.answer(b"<DTR>"):
            self.say(back)

    def close(self) -> None:
        self.closed = True


def answers_all(data: bytes) -> bytes:
    """A module that is in step."""
    line = data.decode("latin-1").strip("\r\x1b")
    if line.endswith("?"):
        return f"\r\n{line[2:-1]}: 1\r\n\r\nOK\r\n".encode()
    return b"\r\nOK\r\n" if line.startswith("AT") else b""


class Bench:
    def __init__(self, *, max_wait: float = 600.0, depth: int = 32) -> None:
        self.codes: list[tuple[str, ...]] = []
        self.losses: list[str] = []
        self.in_step_again = 0
        self.port = BarePort()
        self.channel = Channel(
            unsolicited=self.codes.append,
            on_lost=self.losses.append,
            on_in_step=self.told_in_step,
            max_wait=max_wait,
            depth=depth,
        )
        self.port.receiver = self.channel
        self.channel.attach(self.port)
        self.channel.confirm()

    def told_in_step(self) -> None:
        self.in_step_again += 1

    async def run(self, line: str, timeout: float = 5.0) -> Ended:
        async with self.channel.turn("tcp") as turn:
            return await turn.run(parse(line), timeout=timeout, say=lambda _: None)

    def lose(self, why: str = "unplugged") -> None:
        self.port.closed = True
        self.channel.lost(why)

    async def ask(self, line: str, timeout: float = 5.0, data: bytes | None = None, asker: str = "tcp") -> Answer:
        async with self.channel.turn(asker) as turn:
            return await turn.ask(line, timeout, data)

    async def in_step(self) -> bool:
        """Whether the next one gets its own answer and nothing else."""
        return (await self.ask("AT+PROBE?", asker="probe")).lines == ("+PROBE: 1",)


async def ticks() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


# Answers.


async def test_an_answer_is_gathered_with_its_final() -> None:
    bench = Bench()
    bench.port.answer = lambda _: b'\r\n+COPS: 0,0,"vodafone IT"\r\n\r\nOK\r\n'
    answer = await bench.ask("at+cops?")
    assert bench.port.written == [b"AT+COPS?\r"]
    assert answer.lines == ('+COPS: 0,0,"vodafone IT"',)
    assert answer.final.ok
    assert answer.value("+COPS") == ("0", "0", '"vodafone IT"')
    assert answer.value("+CREG") is None


@pytest.mark.parametrize("final", ["ERROR", "+CME ERROR: 10", "+CMS ERROR: 321", "ABORTED"])
async def test_an_error_is_an_answer(final: str) -> None:
    bench = Bench()
    bench.port.answer = lambda _: f"\r\n{final}\r\n".encode()
    answer = await bench.ask("AT+CPIN?")
    assert (answer.final.text, answer.final.ok, answer.lines) == (final, False, ())


async def test_a_line_without_parameters_has_no_value() -> None:
    bench = Bench()
    bench.port.answer = lambda _: b"\r\n#SMSATRUN:\r\n\r\nOK\r\n"
    assert (await bench.ask("AT#SMSATRUN?")).value("#SMSATRUN") is None


async def test_lines_come_as_they_are_said() -> None:
    bench = Bench()
    bench.port.answer = lambda _: b""
    said: list[object] = []
    async with bench.channel.turn("tcp") as turn:
        task = asyncio.create_task(turn.run(parse("AT#CSURV"), timeout=60, say=said.append))
        await ticks()
        for number in range(3):
            bench.port.say(f"\r\nrow {number}\r\n".encode())
            await ticks()
            assert len(said) == number + 1
        bench.port.say(b"\r\nOK\r\n")
        ended = await task
    assert isinstance(ended, Ended)
    assert ended.final.ok


async def test_a_whole_answer_has_a_cap() -> None:
    bench = Bench()
    bench.port.answer = lambda _: (b"\r\n" + b"x" * 1000 + b"\r\n") * 1000 + b"\r\nOK\r\n"
    answer = await bench.ask("AT#CSURV")
    assert sum(len(line) for line in answer.lines) <= ANSWER_MAX
    assert len(answer.lines) == ANSWER_MAX // 1000
    assert answer.final.ok


@pytest.mark.parametrize("piece", [1, 2, 3, 7])
async def test_how_the_bytes_are_cut_changes_nothing(piece: int) -> None:
    bench = Bench()
    bench.port.answer = lambda _: b""
    task = asyncio.create_task(bench.ask("AT+CSQ"))
    await ticks()
    text = b"\r\n+CREG: 2\r\n\r\n+CSQ: 14,99\r\n\r\nOK\r\n\r\nRING\r\n"
    for begin in range(0, len(text), piece):
        bench.port.say(text[begin : begin + piece])
        await ticks()
    assert (await task).lines == ("+CSQ: 14,99",)
    assert bench.codes == [("+CREG: 2",), ("RING",)]


# Turns and gaps.


async def test_requests_take_their_turns_one_line_at_a_time() -> None:
    bench = Bench()
    bench.port.answer = lambda _: b""
    first = asyncio.create_task(bench.ask("AT+CSQ", asker="tcp"))
    second = asyncio.create_task(bench.ask("AT+COPS?", asker="sms"))
    await ticks()
    assert bench.port.written == [b"AT+CSQ\r"]
    assert bench.channel.depths == {"sms": 1}
    bench.port.say(b"\r\n+CSQ: 1,1\r\n\r\nOK\r\n")
    await first
    await asyncio.sleep(0.02)
    assert bench.port.written == [b"AT+CSQ\r", b"AT+COPS?\r"]
    bench.port.say(b"\r\n+COPS: 0\r\n\r\nOK\r\n")
    assert (await second).lines == ("+COPS: 0",)


async def test_there_is_a_gap_of_20_ms_behind_each_final_result() -> None:
    bench = Bench()
    for _ in range(3):
        await bench.ask("AT+CSQ")
    gaps = [later - earlier for earlier, later in zip(bench.port.times, bench.port.times[1:], strict=False)]
    assert gaps == pytest.approx([0.02, 0.02])


async def test_the_gap_holds_behind_a_deadline_too() -> None:
    bench = Bench()
    bench.port.answer = lambda _: b""
    async with bench.channel.turn("daemon") as turn:
        for _ in range(2):
            with pytest.raises(TimedOutError):
                await turn.ask("AT", 2.0)
    assert bench.port.times == pytest.approx([0.0, 2.02], abs=1e-4)


async def test_too_many_and_too_long_waits_are_refused() -> None:
    bench = Bench(max_wait=10, depth=1)
    bench.port.answer = lambda _: b""
    first = asyncio.create_task(bench.ask("AT+CSQ", timeout=60))
    await ticks()
    second = asyncio.create_task(bench.ask("AT+CSQ"))
    await ticks()
    with pytest.raises(QueueFullError):
        await bench.ask("AT+CSQ")
    with pytest.raises(WaitedTooLongError):
        await second
    bench.port.say(b"\r\nOK\r\n")
    await first


# Unsolicited lines.


async def test_codes_before_inside_and_behind_an_answer_come_out_once() -> None:
    bench = Bench()
    bench.port.say(b"\r\n+CREG: 1\r\n")
    bench.port.answer = lambda _: b'\r\n+CMTI: "SM",1\r\n\r\n+CSQ: 14,99\r\n\r\nRING\r\n\r\nOK\r\n\r\n#QSS: 1\r\n'
    answer = await bench.ask("AT+CSQ")
    assert answer.lines == ("+CSQ: 14,99",)
    await ticks()
    assert bench.codes == [("+CREG: 1",), ('+CMTI: "SM",1',), ("RING",), ("#QSS: 1",)]


async def test_two_lines_of_a_code_stay_together_wherever_it_comes() -> None:
    bench = Bench()
    code = b"\r\n+CMT: ,24\r\n07911326040000F0\r\n"
    bench.port.say(code)
    bench.port.answer = lambda _: code + b"\r\n+CSQ: 14,99\r\n" + code + b"\r\nOK\r\n" + code
    assert (await bench.ask("AT+CSQ")).lines == ("+CSQ: 14,99",)
    await ticks()
    assert bench.codes == [("+CMT: ,24", "07911326040000F0")] * 4


# Prompts.


async def test_data_goes_out_50_ms_behind_the_prompt_that_was_expected() -> None:
    bench = Bench()
    bench.port.answer = lambda data: b"\r\n> " if data.startswith(b"AT") else b"\r\n+CMGS: 7\r\n\r\nOK\r\n"
    answer = await bench.ask("AT+CMGS=20", data=b"00A1")
    assert bench.port.written == [b"AT+CMGS=20\r", b"00A1\x1a"]
    assert bench.port.times[1] - bench.port.times[0] == pytest.approx(0.05)
    assert answer.value("+CMGS") == ("7",)


async def test_an_unexpected_prompt_is_left_by_esc_and_is_no_success() -> None:
    bench = Bench()
    bench.port.answer = lambda data: {b"\x1b": b"\r\nOK\r\n"}.get(data, b"\r\n> ")
    async with bench.channel.turn("tcp") as turn:
        ended = await turn.run(parse("AT#UNKNOWN=1"), timeout=5, say=lambda _: None)
    assert ended.left
    assert not ended.final.ok
    assert bench.port.written == [b"AT#UNKNOWN=1\r", b"\x1b"]
    bench.port.answer = answers_all
    assert await bench.in_step()


async def test_data_is_kept_back_when_the_command_ended_behind_its_prompt() -> None:
    """Else the data would be typed as a command line."""
    bench = Bench()
    bench.port.answer = lambda data: (
        b"\r\n> \r\n+CMS ERROR: 500\r\n" if data.startswith(b"AT+CMGS") else answers_all(data)
    )
    answer = await bench.ask("AT+CMGS=20", data=b"00A1")
    assert answer.final.text == "+CMS ERROR: 500"
    assert bench.port.written == [b"AT+CMGS=20\r"]
    assert await bench.in_step()


async def test_a_command_that_needs_no_data_after_all_ends() -> None:
    bench = Bench()
    bench.port.answer = lambda _: b"\r\n+CMS ERROR: 304\r\n"
    assert (await bench.ask("AT+CMGS=20", data=b"00")).final.code == 304
    assert bench.port.written == [b"AT+CMGS=20\r"]


# Deadlines.


async def test_the_deadline_runs_from_the_first_byte_and_not_from_the_wait() -> None:
    bench = Bench()
    bench.port.answer = lambda _: b""
    first = asyncio.create_task(bench.ask("AT+CSQ", timeout=60))
    await ticks()
    second = asyncio.create_task(bench.ask("AT+COPS?", timeout=1, asker="sms"))
    await asyncio.sleep(30)
    bench.port.say(b"\r\nOK\r\n")
    await first
    await asyncio.sleep(0.9)
    bench.port.say(b"\r\n+COPS: 0\r\n\r\nOK\r\n")
    assert (await second).final.ok


async def test_after_a_deadline_the_port_comes_back_in_step_as_req_7_says() -> None:
    bench = Bench()
    bench.port.answer = lambda data: b"" if data == b"AT+CSQ\r" else answers_all(data)
    with pytest.raises(TimedOutError, match="no final result within 1 s"):
        await bench.ask("AT+CSQ", timeout=1)
    assert await bench.in_step()
    assert bench.port.written == [b"AT+CSQ\r", b"\x1b", b"AT\r", b"AT+CMEE?\r", b"AT+CMGF?\r", b"AT+PROBE?\r"]


async def test_300_ms_of_silence_come_before_the_esc() -> None:
    bench = Bench()
    bench.port.answer = lambda data: b"" if data == b"AT+CSQ\r" else answers_all(data)
    loop = asyncio.get_running_loop()
    for tenth in range(55):
        loop.call_later(1 + tenth / 10, bench.port.say, b"\r\n+CREG: 1\r\n")
    with pytest.raises(TimedOutError):
        await bench.ask("AT+CSQ", timeout=1)
    assert await bench.in_step()
    last_word = 1 + 5.4
    assert bench.port.times[1] == pytest.approx(last_word + 0.3, abs=1e-3)


async def test_an_abortable_command_gets_one_cr_and_others_are_waited_for() -> None:
    for line, first in ((b"AT+COPS=?\r", b"\r"), (b"AT+CSQ\r", b"\x1b")):
        bench = Bench()
        bench.port.answer = lambda data, line=line: b"" if data == line else answers_all(data)  # type: ignore[misc]
        with pytest.raises(TimedOutError):
            await bench.ask(line.decode().strip(), timeout=1)
        assert await bench.in_step()
        assert bench.port.written[1] == first


async def test_a_prompt_at_the_deadline_is_left_by_esc() -> None:
    bench = Bench()
    bench.port.answer = lambda data: {b"\x1b": b"\r\nOK\r\n", b"AT+CMGS=20\r": b"\r\n> "}.get(data, b"")
    with pytest.raises(TimedOutError):
        await bench.ask("AT+CMGS=20", timeout=0.04, data=b"00")
    bench.port.answer = lambda data: b"\r\nOK\r\n" if data == b"\x1b" else answers_all(data)
    assert await bench.in_step()
    assert bench.port.written[1] == b"\x1b"


@given(st.floats(0.5, 22), st.sampled_from([b"\r\n+CSQ: 9,9\r\n\r\nOK\r\n", b"\r\nOK\r\n", b"\r\n+CME ERROR: 30\r\n"]))
async def test_a_late_answer_never_reaches_the_next_asker(late: float, answer: bytes) -> None:
    """The module works on the command all the while, and ignores what is typed, until it answers it."""
    bench = Bench()
    busy = True

    def script(data: bytes) -> bytes:
        return b"" if busy else answers_all(data)

    def finish() -> None:
        nonlocal busy
        busy = False
        bench.port.say(answer)

    bench.port.answer = script
    asyncio.get_running_loop().call_later(1 + late, finish)
    with pytest.raises(TimedOutError):
        await bench.ask("AT+CSQ", timeout=1)
    assert await bench.in_step()
    assert bench.losses == []


@given(st.integers(0, 3), st.floats(0.01, 4.9))
async def test_late_answers_to_the_way_back_are_told_apart_too(behind: int, late: float) -> None:
    """Each answer comes late by some time, as through a slow multiplexer: question and answer are out of step."""
    bench = Bench()

    def script(data: bytes) -> bytes:
        nonlocal behind
        if data == b"AT+CSQ\r":
            return b""
        if behind and data.startswith(b"AT"):
            behind -= 1
            asyncio.get_running_loop().call_later(late, bench.port.say, answers_all(data))
            return b""
        return answers_all(data)

    bench.port.answer = script
    with pytest.raises(TimedOutError):
        await bench.ask("AT+CSQ", timeout=1)
    assert await bench.in_step()


async def test_what_an_earlier_exchange_left_in_the_same_turn_is_not_the_next_ones() -> None:
    bench = Bench()
    bench.port.answer = lambda _: b""
    loop = asyncio.get_running_loop()
    async with bench.channel.turn("daemon") as turn:
        loop.call_later(2.0, bench.port.say, b"\r\n+CSQ: 1,1\r\n\r\nOK\r\n")
        with pytest.raises(TimedOutError):
            await turn.ask("AT+CSQ", 2.0)
        bench.port.answer = answers_all
        assert (await turn.ask("AT+CMEE?")).lines == ("+CMEE: 1",)


async def test_a_port_that_stays_stuck_is_lost_and_everybody_is_told() -> None:
    bench = Bench()
    bench.port.answer = lambda _: b""
    with pytest.raises(TimedOutError):
        await bench.ask("AT+CSQ", timeout=1)
    with pytest.raises(LinkLostError, match="does not answer any more"):
        await bench.ask("AT+COPS?")
    assert bench.losses == ["the module does not answer any more"]
    assert bench.port.closed


async def test_a_slow_command_is_waited_for_as_long_as_it_may_take() -> None:
    """REQ-7: what no character aborts is waited for; the next holder waits meanwhile."""
    bench = Bench()
    bench.port.answer = lambda data: b"" if data == b"AT+CGACT=1,1\r" else answers_all(data)
    asyncio.get_running_loop().call_later(149, bench.port.say, b"\r\nOK\r\n")
    with pytest.raises(TimedOutError):
        await bench.ask("AT+CGACT=1,1", timeout=10)
    assert await bench.in_step()
    assert bench.port.written[1] == b"\x1b"
    assert bench.port.times[1] == pytest.approx(149.3, abs=1e-3)
    assert bench.losses == []


@pytest.mark.parametrize(
    ("line", "timeout", "patience"),
    [
        ("AT+CGACT=1,1", 10, 150),
        ("AT+CGACT=1,1", 149, 154),
        ("AT+CGACT=1,1;+CGACT=1,2", 10, 190),
        ("AT+CSQ", 1, 6),
        ("AT+CSQ", 200, 205),
        ("AT+COPS=?", 10, 15),
    ],
)
async def test_how_long_a_command_is_waited_for_has_a_bound(line: str, timeout: float, patience: float) -> None:
    bench = Bench()
    bench.port.answer = lambda data: b"" if data == line.encode() + b"\r" else answers_all(data)
    with pytest.raises(TimedOutError):
        await bench.ask(line, timeout=timeout)
    assert await bench.in_step()
    escaped = bench.port.times[bench.port.written.index(b"\x1b")]
    assert escaped == pytest.approx(patience, abs=0.5)


async def test_the_owner_is_told_that_the_port_is_in_step_again() -> None:
    bench = Bench()
    bench.port.answer = lambda data: b"" if data == b"AT+CSQ\r" else answers_all(data)
    with pytest.raises(TimedOutError):
        await bench.ask("AT+CSQ", timeout=1)
    assert bench.in_step_again == 0
    assert await bench.in_step()
    assert bench.in_step_again == 1
    await bench.ask("AT+COPS?")
    assert bench.in_step_again == 1


# A prompt that was there before the command.


@pytest.mark.parametrize("stands", [b"\r\n> ", b"\r\n> \r\n> ", b"\r\n> \r\n+CREG: 1\r\n"])
async def test_a_text_prompt_that_stands_there_is_left_before_the_command_goes_out(stands: bytes) -> None:
    """Else the command would be the text of a message."""
    bench = Bench()
    bench.port.say(stands)
    await asyncio.sleep(5)
    assert await bench.in_step()
    assert bench.port.written == [b"\x1b", b"AT\r", b"AT+CMEE?\r", b"AT+CMGF?\r", b"AT+PROBE?\r"]


async def test_a_counted_prompt_that_stands_there_is_not_left_by_esc() -> None:
    bench = Bench()
    bench.port.say(b"\r\n>>>")
    await asyncio.sleep(5)
    assert await bench.in_step()
    assert bench.port.written == [b"AT\r", b"AT+CMEE?\r", b"AT+CMGF?\r", b"AT+PROBE?\r"]


async def test_a_prompt_that_comes_on_the_way_back_in_step_is_left_anew() -> None:
    bench = Bench()
    prompts = [b"\r\nOK\r\n\r\n> "]

    def script(data: bytes) -> bytes:
        return prompts.pop() if data == b"AT\r" and prompts else answers_all(data)

    bench.port.answer = script
    bench.port.say(b"\r\nOK\r\n")
    assert await bench.in_step()
    assert bench.port.written[:4] == [b"\x1b", b"AT\r", b"\x1b", b"AT\r"]


@pytest.mark.parametrize("stray", [b"\r\n>>>", b"\r\n> ", b"\r\nOK\r\n", b"\r\nCONNECT\r\n"])
@pytest.mark.parametrize("after", [0.0, 0.1, 0.31, 0.34, 1.5, 2.6])
async def test_who_goes_away_on_the_way_back_in_step_leaves_the_rest_of_it_to_the_next(
    stray: bytes, after: float
) -> None:
    """The next command would else be the data of the prompt that stood there."""
    bench = Bench()
    silent = True
    bench.port.answer = lambda data: b"" if silent else answers_all(data)
    bench.port.say(stray)
    task = asyncio.create_task(bench.ask("AT+CSQ"))
    await asyncio.sleep(after)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    silent = False
    assert await bench.in_step()
    written = [data for data in bench.port.written if data.startswith(b"AT+")]
    assert written[-3:] == [b"AT+CMEE?\r", b"AT+CMGF?\r", b"AT+PROBE?\r"]


# Counted prompts that nobody can answer.


async def test_a_counted_prompt_is_filled_50_ms_behind_it() -> None:
    bench = Bench()
    bench.port.answer = lambda data: b"\r\n>>>" if data.startswith(b"AT") else b"\r\nOK\r\n"
    ended = await bench.run('AT#WSCRIPT="a.py",7')
    assert (ended.why, ended.filled, ended.final.ok) == (Why.COUNT, 7, False)
    assert bench.port.written == [b'AT#WSCRIPT="a.py",7\r', bytes(7)]
    assert bench.port.times[1] == pytest.approx(0.05)
    bench.port.answer = answers_all
    assert await bench.in_step()
    assert b"\x1b" not in bench.port.written


async def test_a_counted_prompt_whose_command_ended_is_not_filled() -> None:
    bench = Bench()
    bench.port.answer = lambda data: b"\r\n>>>" if data.startswith(b"AT#") else answers_all(data)
    asyncio.get_running_loop().call_later(0.02, bench.port.say, b"\r\nERROR\r\n")
    assert (await bench.run('AT#WSCRIPT="a.py",7')).left
    assert bytes(7) not in bench.port.written
    assert await bench.in_step()


async def test_at_a_counted_prompt_without_a_size_nothing_is_sent_until_the_module_gives_it_up() -> None:
    bench = Bench()
    bench.port.answer = lambda data: b"\r\n>>>" if data.startswith(b"AT#") else answers_all(data)
    asyncio.get_running_loop().call_later(10, bench.port.say, b"\r\nERROR\r\n")
    ended = await bench.run("AT#UNKNOWN=1", timeout=300)
    assert (ended.why, ended.filled, bench.port.written) == (Why.COUNT, 0, [b"AT#UNKNOWN=1\r"])
    assert await bench.in_step()


async def test_a_counted_prompt_that_stays_is_answered_after_a_while_and_never_sent_esc() -> None:
    bench = Bench()
    missing = 12

    def script(data: bytes) -> bytes:
        """The module takes the first bytes for its data."""
        nonlocal missing
        if data.startswith(b"AT#"):
            return b"\r\n>>>"
        if missing <= 0:
            return answers_all(data)
        missing -= len(data)
        return b"" if missing > 0 else b"\r\nOK\r\n"

    bench.port.answer = script
    ended = await bench.run("AT#UNKNOWN=1", timeout=300)
    assert ended.why is Why.COUNT
    assert asyncio.get_running_loop().time() == pytest.approx(QUIET + STANDING)
    assert await bench.in_step()
    assert b"\x1b" not in bench.port.written
    assert bench.losses == []


# Prompts that somebody types at.


class Typist:
    """Gives data when a prompt comes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.prompts: list[Prompted] = []
        self.feed = Feed(self.asked)

    def asked(self, prompt: Prompted) -> None:
        self.prompts.append(prompt)
        if not prompt.again:
            self.data = self.feed.give(self.data).rest

    async def run(self, bench: Bench, line: str, timeout: float = 60.0) -> Ended:
        async with bench.channel.turn("tcp") as turn:
            return await turn.run(parse(line), timeout=timeout, say=lambda _: None, feed=self.feed)


async def test_what_is_typed_goes_out_50_ms_behind_the_prompt() -> None:
    bench = Bench()
    bench.port.answer = lambda data: b"\r\n> " if data.startswith(b"AT") else b"\r\n> \r\n+CMGS: 1\r\n\r\nOK\r\n"
    typist = Typist(b"one\rtwo\x1aAT\r")
    ended = await typist.run(bench, 'AT+CMGS="1"')
    assert (ended.why, ended.final.ok) == (None, True)
    assert bench.port.written == [b'AT+CMGS="1"\r', b"one\rtwo\x1a"]
    assert bench.port.times[1] == pytest.approx(0.05)
    assert typist.data == b"AT\r"
    assert typist.prompts == [Prompted(PromptKind.TEXT), Prompted(PromptKind.TEXT, again=True)]
    assert not typist.feed.is_open


async def test_what_is_typed_at_a_prompt_whose_command_ended_goes_nowhere() -> None:
    bench = Bench()
    bench.port.answer = lambda data: b"\r\n>>>" if data.startswith(b"AT#") else answers_all(data)
    bench.port.unsent = PIECE
    asyncio.get_running_loop().call_later(1, bench.port.say, b"\r\nERROR\r\n")
    typist = Typist(b"x" * 100)
    ended = await typist.run(bench, 'AT#WSCRIPT="a",100')
    assert (ended.why, ended.final.ok) == (None, False)
    bench.port.unsent = 0
    assert await bench.in_step()
    assert not any(b"x" in data for data in bench.port.written)
    asyncio.get_running_loop().call_later(0.04, bench.port.say, b"\r\nERROR\r\n")
    assert not (await typist.run(bench, 'AT#WSCRIPT="a",100')).final.ok
    assert len(typist.prompts) == 1, "it ended before it could be shown"


async def test_data_that_do_not_end_in_time_are_no_fault_of_the_modules() -> None:
    bench = Bench()
    missing = 100

    def script(data: bytes) -> bytes:
        nonlocal missing
        if data.startswith(b"AT#"):
            return b"\r\n>>>"
        if missing <= 0:
            return answers_all(data)
        missing -= len(data)
        return b"" if missing > 0 else b"\r\nOK\r\n"

    bench.port.answer = script
    with pytest.raises(UnfedError, match="did not end within 60 s"):
        await Typist(b"x" * 40).run(bench, 'AT#WSCRIPT="a",100')
    assert await bench.in_step()
    assert bench.port.written[1:3] == [b"x" * 40, bytes(60)]


async def test_filling_a_prompt_goes_on_when_its_asker_goes_away() -> None:
    """Nobody else can give the rest, and the module takes nothing else before it has them."""
    bench = Bench()
    size = missing = 3 * PIECE

    def script(data: bytes) -> bytes:
        nonlocal missing
        if data.startswith(b"AT#"):
            return b"\r\n>>>"
        if missing <= 0:
            return answers_all(data)
        missing -= len(data)
        bench.port.unsent = PIECE
        return b"" if missing > 0 else b"\r\nOK\r\n"

    bench.port.answer = script
    task = asyncio.create_task(bench.run(f'AT#WSCRIPT="a",{size}', timeout=300))
    await asyncio.sleep(1)
    assert missing == 2 * PIECE
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(3):
        bench.port.unsent = 0
        await asyncio.sleep(1)
    bench.port.unsent = 0
    assert await bench.in_step()
    assert missing == 0
    assert bench.port.written[1:4] == [bytes(PIECE)] * 3


# Data mode.


def in_data_mode(bench: Bench, after: bytes, *, ends: bytes = b"+++") -> None:
    """Let the module be in data mode behind a command, until it is told to leave it."""
    online = False
    plain = bench.port.answer

    def script(data: bytes) -> bytes:
        nonlocal online
        if data == after:
            online = True
            return b"\r\nCONNECT\r\n"
        if not online:
            return plain(data)
        if data == ends:
            online = False
            return b"\r\nNO CARRIER\r\n" if ends == b"+++" else b"\r\nOK\r\n"
        return b""

    bench.port.answer = script


async def test_a_connect_is_an_error_and_the_port_comes_back() -> None:
    """MOD-6: silence, the escape sequence, silence."""
    bench = Bench()
    in_data_mode(bench, b"ATD123\r")
    ended = await bench.run("ATD123", timeout=60)
    assert (ended.why, ended.final.ok) == (Why.DATA_MODE, False)
    bench.port.say(b'\r\n+CMTI: "SM",1\r\n\r\nOK\r\n')
    assert await bench.in_step()
    await ticks()
    assert bench.codes == []
    assert bench.port.written[:3] == [b"ATD123\r", b"+++", b"\x1b"]
    assert bench.port.times[1] >= 1.0
    assert bench.port.times[2] >= bench.port.times[1] + 1.0


@pytest.mark.parametrize(("ends", "last"), [(b"ATH\r", b"ATH\r"), (b"<DTR>", b"<DTR>")])
async def test_a_data_mode_that_the_escape_sequence_does_not_end(ends: bytes, last: bytes) -> None:
    bench = Bench()
    in_data_mode(bench, b"ATD123\r", ends=ends)
    assert (await bench.run("ATD123", timeout=60)).left
    assert await bench.in_step()
    begin = [b"ATD123\r", b"+++", b"ATH\r", b"<DTR>"]
    assert bench.port.written[: begin.index(last) + 2] == [*begin[: begin.index(last) + 1], b"\x1b"]


async def test_a_data_mode_that_nothing_ends_is_a_lost_port() -> None:
    bench = Bench()
    in_data_mode(bench, b"ATD123\r", ends=b"never")
    assert (await bench.run("ATD123", timeout=60)).left
    with pytest.raises(LinkLostError, match="does not answer any more"):
        await bench.ask("AT+COPS?")


async def test_lost_in_data_mode() -> None:
    bench = Bench()
    in_data_mode(bench, b"ATD123\r", ends=b"never")
    assert (await bench.run("ATD123", timeout=60)).left
    asyncio.get_running_loop().call_later(3, bench.lose)
    with pytest.raises(LinkLostError, match="unplugged"):
        await bench.ask("AT+COPS?")


async def test_a_connect_out_of_nowhere_is_believed_when_the_command_does_not_end() -> None:
    bench = Bench()
    in_data_mode(bench, b"AT+CSQ\r")
    ended = await bench.run("AT+CSQ", timeout=60)
    assert ended.why is Why.DATA_MODE
    assert asyncio.get_running_loop().time() == pytest.approx(USUAL, abs=0.1)
    assert bench.codes == [("CONNECT",)]
    assert await bench.in_step()
    assert bench.port.written[:3] == [b"AT+CSQ\r", b"+++", b"\x1b"]


async def test_a_connect_that_the_answer_follows_means_nothing() -> None:
    bench = Bench()
    bench.port.answer = lambda _: b"\r\nCONNECT\r\n"
    asyncio.get_running_loop().call_later(2, bench.port.say, b"\r\n+CSQ: 1,1\r\n")
    asyncio.get_running_loop().call_later(20, bench.port.say, b"\r\nOK\r\n")
    assert (await bench.ask("AT+CSQ", timeout=60)).lines == ("+CSQ: 1,1",)
    bench.port.answer = answers_all
    assert await bench.in_step()
    assert b"+++" not in bench.port.written


async def test_a_connect_at_the_deadline_is_left_as_well() -> None:
    bench = Bench()
    in_data_mode(bench, b"AT+CSQ\r")
    assert (await bench.run("AT+CSQ", timeout=1)).why is Why.DATA_MODE
    assert await bench.in_step()
    assert b"+++" in bench.port.written


@pytest.mark.parametrize("line", ["ATD123", "AT+CSQ"])
async def test_who_has_more_to_do_in_a_turn_has_the_port_in_step_again(line: str) -> None:
    bench = Bench()
    in_data_mode(bench, line.encode() + b"\r")
    async with bench.channel.turn("daemon") as turn:
        with pytest.raises(TimedOutError, match="data connection"):
            await turn.ask(line)
        assert (await turn.ask("AT+PROBE?")).lines == ("+PROBE: 1",)


async def test_after_a_connect_out_of_nowhere_no_command_is_sent_before_data_mode_is_left() -> None:
    """Else it would go to whoever is at the other end."""
    bench = Bench()
    bench.port.say(b"\r\nCONNECT\r\n")
    assert await bench.in_step()
    assert bench.port.written[0] == b"+++"
    assert bench.port.written[-1] == b"AT+PROBE?\r"
    written = len(bench.port.written)
    assert await bench.in_step()
    assert len(bench.port.written) == written + 1


async def test_a_peer_can_say_any_number_of_results() -> None:
    bench = Bench()
    in_data_mode(bench, b"ATD123\r")
    assert (await bench.run("ATD123", timeout=60)).left
    bench.port.say(b"\r\nOK\r\n" * 1000)
    assert await bench.in_step()
    await ticks()
    assert bench.codes == []


# Late lines.

USSD = 'AT+CUSD=1,"*100#"'


async def late(bench: Bench, timeout: float = 300, asker: str = "tcp", line: str = USSD) -> list[str]:
    said: list[str] = []
    async with bench.channel.turn(asker) as turn:
        await turn.run(parse(line), timeout=5, say=lambda one: said.append(one.text))
    await turn.late(timeout)
    return said


async def test_a_late_line_is_its_askers_and_nobody_elses() -> None:
    bench = Bench()
    asking = asyncio.create_task(late(bench))
    await asyncio.sleep(1)
    bench.port.answer = lambda _: b'\r\n+CUSD: 0,"12 EUR",15\r\n\r\n+CUSD: 1\r\n\r\nOK\r\n'
    assert (await bench.ask("AT+CUSD?")).lines == ("+CUSD: 1",)
    assert await asking == ['+CUSD: 0,"12 EUR",15']
    await ticks()
    assert bench.codes == []
    bench.port.say(b'\r\n+CUSD: 0,"again",15\r\n')
    await ticks()
    assert bench.codes == [('+CUSD: 0,"again",15',)]
    assert len(bench.channel.late) == 0


@pytest.mark.parametrize("timeout", [-1.0, 3.0, 300.0])
async def test_a_late_line_that_does_not_come_is_waited_for_no_longer_than_its_window(timeout: float) -> None:
    bench = Bench()
    assert await late(bench, timeout) == []
    assert asyncio.get_running_loop().time() == pytest.approx(min(max(timeout, 0), 120.0), abs=0.1)
    await ticks()
    assert len(bench.channel.late) == 0
    bench.port.say(b"\r\n+CUSD: 5\r\n")
    await ticks()
    assert bench.codes == [("+CUSD: 5",)]


async def test_a_line_before_the_result_is_unsolicited() -> None:
    bench = Bench()
    bench.port.answer = lambda _: b"\r\n+CUSD: 2\r\n\r\nOK\r\n"
    assert await late(bench, 1) == []
    assert bench.codes == [("+CUSD: 2",)]


async def test_a_command_that_failed_has_nothing_to_say_later() -> None:
    bench = Bench()
    bench.port.answer = lambda _: b"\r\n+CME ERROR: 30\r\n"
    assert await late(bench) == []
    assert asyncio.get_running_loop().time() < 1


async def test_who_asks_the_same_anew_gets_what_comes() -> None:
    bench = Bench()
    first = asyncio.create_task(late(bench))
    await asyncio.sleep(1)
    second = asyncio.create_task(late(bench, asker="sms"))
    await asyncio.sleep(1)
    bench.port.say(b'\r\n+CUSD: 0,"12 EUR",15\r\n')
    assert (await first, await second) == ([], ['+CUSD: 0,"12 EUR",15'])


async def test_a_late_line_that_nobody_waits_for_any_more_ends_with_its_window_or_the_port() -> None:
    bench = Bench()
    async with bench.channel.turn("tcp") as turn:
        await turn.run(parse(USSD), timeout=5, say=lambda _: None)
    await asyncio.sleep(119)
    assert len(bench.channel.late) == 1
    await asyncio.sleep(2)
    assert len(bench.channel.late) == 0
    asking = asyncio.create_task(late(bench))
    await asyncio.sleep(1)
    bench.lose()
    assert await asking == []


# Cancellation.


@pytest.mark.parametrize("line", ["AT+CSQ", "AT+COPS=?"])
@pytest.mark.parametrize("moment", ["written", "half an answer", "with the final", "gap"])
async def test_a_cancelled_command_leaves_the_next_asker_in_step(line: str, moment: str) -> None:
    bench = Bench()
    if moment == "gap":
        await bench.ask("AT")
    bench.port.answer = lambda _: b""
    task = asyncio.create_task(bench.ask(line))
    await ticks()
    if moment == "half an answer":
        bench.port.say(b"\r\n+CSQ: 1")
        await ticks()
    if moment == "with the final":
        bench.port.say(b"\r\nOK\r\n")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    bench.port.answer = answers_all
    assert await bench.in_step()
    assert bench.losses == []
    if moment == "gap":
        assert [data for data in bench.port.written if data == line.encode() + b"\r"] == []


async def test_cancelled_between_prompt_and_data_the_prompt_is_left() -> None:
    bench = Bench()
    bench.port.answer = lambda data: b"\r\n> " if data.startswith(b"AT+CMGS") else b""
    task = asyncio.create_task(bench.ask("AT+CMGS=20", data=b"00"))
    await asyncio.sleep(0.03)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    bench.port.answer = lambda data: b"\r\nOK\r\n" if data == b"\x1b" else answers_all(data)
    assert await bench.in_step()
    assert b"00\x1a" not in bench.port.written
    assert bench.port.written[1] == b"\x1b"


# Loss.


def lose_at(bench: Bench, where: str) -> None:
    """Lose the port when this is written, or, for `wait`, from outside."""
    plain = bench.port.answer

    def script(data: bytes) -> bytes:
        if data.decode("latin-1").startswith(where):
            asyncio.get_running_loop().call_soon(bench.lose)
            return b""
        return plain(data)

    bench.port.answer = script


async def test_lost_while_a_command_runs() -> None:
    bench = Bench()
    lose_at(bench, "AT+CSQ")
    with pytest.raises(LinkLostError, match="unplugged"):
        await bench.ask("AT+CSQ")
    with pytest.raises(LinkLostError):
        await bench.ask("AT")
    assert bench.losses == ["unplugged"]


async def test_lost_while_others_wait_for_their_turn() -> None:
    bench = Bench()
    bench.port.answer = lambda _: b""
    tasks = [asyncio.create_task(bench.ask("AT+CSQ", asker=asker)) for asker in ("tcp", "sms", "mqtt")]
    await ticks()
    bench.lose()
    for task in tasks:
        with pytest.raises(LinkLostError):
            await task


async def test_lost_between_two_exchanges_of_a_turn() -> None:
    bench = Bench()
    async with bench.channel.turn("sms") as turn:
        await turn.ask("AT")
        bench.lose()
        with pytest.raises(LinkLostError):
            await turn.ask("AT")


async def test_lost_in_the_gap() -> None:
    bench = Bench()
    await bench.ask("AT")
    asyncio.get_running_loop().call_later(0.01, bench.lose)
    with pytest.raises(LinkLostError):
        await bench.ask("AT")
    assert bench.port.written == [b"AT\r"]


async def test_lost_between_prompt_and_data() -> None:
    bench = Bench()
    bench.port.answer = lambda _: b"\r\n> "
    asyncio.get_running_loop().call_later(0.03, bench.lose)
    with pytest.raises(LinkLostError):
        await bench.ask("AT+CMGS=20", data=b"00")
    assert bench.port.written == [b"AT+CMGS=20\r"]


@pytest.mark.parametrize("where", ["\x1b", "AT\r", "AT+CMEE?", "AT+CMGF?"])
async def test_lost_on_the_way_back_in_step(where: str) -> None:
    bench = Bench()
    bench.port.answer = lambda data: b"" if data == b"AT+CSQ\r" else answers_all(data)
    lose_at(bench, where)
    with pytest.raises(TimedOutError):
        await bench.ask("AT+CSQ", timeout=1)
    with pytest.raises(LinkLostError, match="unplugged"):
        await bench.ask("AT+COPS?")
    assert bench.losses == ["unplugged"]


async def test_lost_while_a_silence_is_awaited() -> None:
    bench = Bench()
    bench.port.answer = lambda _: b""
    with pytest.raises(TimedOutError):
        await bench.ask("AT+CSQ", timeout=1)
    asyncio.get_running_loop().call_later(2.5, bench.lose)
    with pytest.raises(LinkLostError, match="unplugged"):
        await bench.ask("AT+COPS?")


async def test_closed_it_tells_everybody_and_closes_the_port() -> None:
    bench = Bench()
    bench.port.answer = lambda _: b""
    task = asyncio.create_task(bench.ask("AT+CSQ"))
    await ticks()
    bench.channel.close()
    with pytest.raises(LinkLostError, match="the port was closed"):
        await task
    assert bench.port.closed
    bench.channel.close()
    bench.channel.lost("again")
    assert bench.losses == ["the port was closed"]


async def test_closed_on_the_way_back_in_step_nothing_is_left_running() -> None:
    bench = Bench()
    bench.port.answer = lambda _: b""
    with pytest.raises(TimedOutError):
        await bench.ask("AT+CSQ", timeout=1)
    await asyncio.sleep(0.1)
    bench.channel.close()
    await asyncio.sleep(60)
    assert bench.port.written == [b"AT+CSQ\r"]
    assert {task.get_name() for task in asyncio.all_tasks()} & {"resynchronise"} == set()


# Anything at all.

PIECES = st.sampled_from(
    [
        *(
            b"\r\n",
            b"OK",
            b"\r\nOK\r\n",
            b"> ",
            b">>>",
            b"\r\n> ",
            b"+CMT: ,5\r\n",
            b"ERROR\r\n",
            b"+CMGL: 1,1\r\n",
            b"\x00",
        ),
        *(b'+CMGR: "REC READ"\r\n', b"CONNECT\r\n", b"+CSQ: \r\n", b"NO CARRIER\r\n", b"0\r", b"AT+CSQ\r"),
    ]
)


@given(st.lists(st.binary(max_size=20) | PIECES, max_size=30), st.sampled_from(["AT+CSQ", "AT+CMGL=4", "AT+CMGS=5"]))
async def test_no_bytes_raise_anything_but_its_own_errors_and_memory_has_caps(said: list[bytes], line: str) -> None:
    bench = Bench()
    bench.port.answer = lambda _: b""
    data = b"00" if "CMGS" in line else None
    task = asyncio.create_task(bench.ask(line, timeout=3, data=data))
    for number, piece in enumerate(said):
        asyncio.get_running_loop().call_later(number * 0.11, bench.port.say, piece)
    with contextlib.suppress(TimedOutError):
        await task
    await asyncio.sleep(len(said) * 0.11)
    bench.port.say(b"\r\n\r\n")  # the end of a half line, which would else be the beginning of the next answer
    await asyncio.sleep(1)
    bench.port.answer = lambda data: b"\r\nOK\r\n" if data == b"\x1b" else answers_all(data)
    assert await bench.in_step()
    assert bench.channel._happenings.qsize() <= 4
    assert len(bench.channel._reader._pending) <= 4096


async def test_a_flood_without_a_line_end_stays_within_its_caps() -> None:
    bench = Bench()
    for _ in range(1000):
        bench.port.say(b"x" * 1000)
    assert len(bench.channel._reader._pending) == 4096
    bench.port.say(b"\r\n")
    assert await bench.in_step()
    assert len(bench.codes) == 1


async def test_a_flood_while_nobody_listens_is_not_kept() -> None:
    bench = Bench()
    bench.port.answer = lambda _: b""
    with pytest.raises(TimedOutError):
        await bench.ask("AT+CSQ", timeout=1)
    await asyncio.sleep(0)
    for _ in range(1000):
        bench.port.say(b"\r\n+CSQ: 1,1\r\n" * 10)
        await asyncio.sleep(0)
    assert bench.channel._happenings.qsize() < 100
    bench.port.answer = answers_all
    assert await bench.in_step()


async def test_turns_are_had_by_several_exchanges_in_a_row() -> None:
    bench = Bench()

    async def two(turn: Turn) -> None:
        await turn.ask("AT+A?")
        await turn.ask("AT+B?")

    async def hold(asker: str) -> None:
        async with bench.channel.turn(asker) as turn:
            await two(turn)

    await asyncio.gather(hold("tcp"), hold("sms"))
    assert bench.port.written == [b"AT+A?\r", b"AT+B?\r"] * 2


async def test_a_final_while_nothing_runs_brings_the_port_in_step_before_the_next_command() -> None:
    """Somebody's answer was not its own then, and the next one might get what is still to come."""
    bench = Bench()
    assert (await bench.ask("AT+CGATT=1")).final.ok
    bench.port.say(b"\r\nOK\r\n")
    assert await bench.in_step()
    assert [written for written in bench.port.written if written.startswith(b"AT")] == [
        b"AT+CGATT=1\r",
        b"AT\r",
        b"AT+CMEE?\r",
        b"AT+CMGF?\r",
        b"AT+PROBE?\r",
    ]


async def test_a_read_does_not_take_the_late_ok_of_the_command_before() -> None:
    bench = Bench()
    bench.port.answer = lambda data: b"\r\nOK\r\n" + answers_all(data)
    assert (await bench.ask("AT+COPS?")).lines == ("+COPS: 1",)
