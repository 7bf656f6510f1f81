# SPDX-License-Identifier: Apache-2.0
import asyncio
import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.at.exchange import Ended
from atrund.at.syntax import parse
from atrund.module.channel import ANSWER_MAX, Answer, Channel, LinkLostError, TimedOutError, Turn
from atrund.module.turns import QueueFullError, WaitedTooLongError

pytestmark = pytest.mark.looptime


class BarePort:
    """A port with a script: each write goes to `answer`, and what that returns comes back at once."""

    answer: Callable[[bytes], bytes]

    def __init__(self) -> None:
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
        self.port = BarePort()
        self.channel = Channel(
            unsolicited=self.codes.append, on_lost=self.losses.append, max_wait=max_wait, depth=depth
        )
        self.port.receiver = self.channel
        self.channel.attach(self.port)
        self.channel.confirm()

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
    assert bench.codes == [("+CREG: 1",), ('+CMTI: "SM",1',), ("RING",), ("#QSS: 1",)]


async def test_two_lines_of_a_code_stay_together_wherever_it_comes() -> None:
    bench = Bench()
    code = b"\r\n+CMT: ,24\r\n07911326040000F0\r\n"
    bench.port.say(code)
    bench.port.answer = lambda _: code + b"\r\n+CSQ: 14,99\r\n" + code + b"\r\nOK\r\n" + code
    assert (await bench.ask("AT+CSQ")).lines == ("+CSQ: 14,99",)
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
