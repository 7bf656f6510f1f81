# SPDX-License-Identifier: Apache-2.0
"""What a door is told of a command that was left, or that says what it has to say only later."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from atrund.atrun.request import Door, End, Outcome, Reason, Request
from atrund.config.values import Module, Sms
from atrund.module.channel import STANDING
from atrund.sim.faults import Plant
from atrund.sim.module import SimModule
from atrund.sim.state import Options
from atrund.sim.steps import Prompt, Step, Wait
from tests.support.marked import Askers, Marked, RecordingWire, until
from tests.support.virtual import PORT, House, VirtualClock, config, running

pytestmark = pytest.mark.looptime

HIT = 1
NEXT = 2


@contextlib.asynccontextmanager
async def asked(
    steps: Callable[[], Iterator[Step]] | None = None,
) -> AsyncIterator[tuple[House, RecordingWire, Askers]]:
    """A running daemon whose module answers the question HIT by these steps."""
    clock = VirtualClock()
    module = SimModule(Options(), clock.now)
    module.faults = marked = Marked()
    wire = RecordingWire(module)
    if steps is not None:
        marked.instead[HIT] = steps
    given = config(module=Module(port=PORT, telemetry=0), sms=Sms())
    async with running(given, module=module, wire=wire, clock=clock, until=None) as house:
        await until(lambda: house.daemon.keepers[0].channel is not None)
        await asyncio.sleep(1)
        wire.written.clear()
        yield house, wire, Askers(house, marked)


async def outcome_of(askers: Askers, door: Door, number: int, timeout: float = 60.0) -> Outcome:
    outcome = await askers.ask(door, number, timeout=timeout).outcome
    assert outcome is not None
    return outcome


@pytest.mark.parametrize("door", Door)
async def test_data_mode_is_an_error_with_its_reason_and_the_next_one_is_served(door: Door) -> None:
    def steps() -> Iterator[Step]:
        yield b"\r\nCONNECT\r\n"
        yield Wait(3600, escape=b"+++")

    async with asked(steps) as (_, wire, askers):
        outcome = await outcome_of(askers, door, HIT)
        assert (outcome.end, outcome.reason, outcome.final) == (End.ERROR, Reason.DATA_MODE, None)
        assert "data connection" in outcome.detail
        assert (await outcome_of(askers, Door.TCP, NEXT)).end is End.OK
        assert wire.written[1] == b"+++"


async def test_a_counted_prompt_of_no_known_size_is_an_error_with_its_reason() -> None:
    def steps() -> Iterator[Step]:
        yield Prompt(count=20)

    async with asked(steps) as (_, wire, askers):
        begin = asyncio.get_running_loop().time()
        outcome = await outcome_of(askers, Door.SMS, HIT, 300.0)
        assert asyncio.get_running_loop().time() - begin == pytest.approx(STANDING, abs=1)
        assert (outcome.end, outcome.reason) == (End.ERROR, Reason.PROMPT_UNSUPPORTED)
        assert "asked for data" in outcome.detail
        await askers.usable(60)
        assert b"\x1b" not in b"".join(wire.written[:3]), "ESC would be one of the bytes"


async def test_a_text_prompt_is_an_error_with_its_reason() -> None:
    def steps() -> Iterator[Step]:
        yield Prompt()

    async with asked(steps) as (_, wire, askers):
        outcome = await outcome_of(askers, Door.LOCAL, HIT)
        assert (outcome.end, outcome.reason) == (End.ERROR, Reason.PROMPT_UNSUPPORTED)
        assert wire.written[1] == b"\x1b"


@pytest.mark.parametrize("door", Door)
async def test_the_networks_answer_is_part_of_the_commands(door: Door) -> None:
    """OK comes at once, what was asked for a while later: the port is free meanwhile, and the answer whole."""
    line, reply = 'AT+CUSD=1,"*100#"', '+CUSD: 0,"12 EUR",15'
    async with asked() as (house, wire, askers):
        askers.marked.plant("+CUSD", Plant(left=None, final="OK"))
        request = Request(rid="u", door=door, peer="peer", line=line, key="u", timeout=60.0)
        run = house.daemon.runner.start(request)
        await asyncio.sleep(3)
        assert (await outcome_of(askers, Door.TCP, NEXT)).end is End.OK
        assert not run.outcome.done()
        wire.inject(f"\r\n{reply}\r\n".encode())
        outcome = await run.outcome
        assert outcome is not None
        assert (outcome.end, outcome.final, outcome.lines) == (End.OK, "OK", (reply,))


async def test_who_does_not_wait_for_the_networks_answer_was_answered_all_the_same() -> None:
    async with asked() as (house, _, askers):
        askers.marked.plant("+CUSD", Plant(left=None, final="OK"))
        request = Request(rid="u", door=Door.TCP, peer="peer", line='AT+CUSD=1,"*100#"', timeout=60.0)
        run = house.daemon.runner.start(request)
        await asyncio.sleep(3)
        run.give_up()
        outcome = await run.outcome
        assert outcome is not None
        assert (outcome.end, outcome.lines) == (End.OK, ())
