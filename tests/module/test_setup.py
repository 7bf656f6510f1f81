# SPDX-License-Identifier: Apache-2.0
import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from atrund.module.channel import Channel
from atrund.module.feeding import FILL_RATE, FLOOD, PIECE
from atrund.module.setup import (
    FILLED_TRIES,
    PIN_TRIES,
    SERVICES,
    WAKE_TIMEOUT,
    WAKE_TRIES,
    Condition,
    Identity,
    Sim,
    choose_memory,
    enter_pin,
    in_place,
    look,
    pin_fingerprint,
    set_up,
    switch_off_services,
    wake,
)
from atrund.module.turn import TimedOutError, Turn
from atrund.sim import state
from atrund.sim.faults import Plant
from atrund.sim.mangle import How, Mangle
from atrund.sim.module import SimModule
from atrund.sim.state import Options
from tests.support.keeping import FORBIDDEN, no_threads
from tests.support.virtual import PORT, Wire

pytestmark = pytest.mark.looptime


class Bench:
    def __init__(self, **options: object) -> None:
        self.module = SimModule(Options(**options))  # type: ignore[arg-type]
        self.wire = Wire(self.module)

    @property
    def seen(self) -> list[str]:
        return self.wire.seen

    def answers(self, command: str, *lines: str, final: str = "OK", times: int | None = None) -> None:
        self.module.faults.plant(command, Plant(times, lines=lines, final=final))

    @contextlib.asynccontextmanager
    async def turn(self, *, awake: bool = True) -> AsyncIterator[Turn]:
        no_threads()
        channel = Channel(unsolicited=lambda _: None, on_lost=lambda _: None)
        channel.attach(await self.wire.open(PORT, 115200, channel))
        try:
            async with channel.turn("daemon") as turn:
                if awake:
                    await wake(turn)
                    self.forget()
                yield turn
        finally:
            channel.close()
            self.module.close()

    def forget(self) -> None:
        assert self.wire.end is not None
        self.wire.end.sim.seen.clear()


class TestWake:
    @pytest.mark.parametrize("echo", [False, True])
    @pytest.mark.parametrize("verbose", [False, True])
    @pytest.mark.parametrize("quiet", [False, True])
    async def test_whatever_the_module_was_left_in(self, *, echo: bool, verbose: bool, quiet: bool) -> None:
        bench = Bench()
        async with bench.turn(awake=False) as turn:
            assert bench.wire.end is not None
            settings = bench.wire.end.sim.settings
            settings.echo, settings.verbose, settings.quiet = echo, verbose, quiet
            await wake(turn)
            assert (settings.echo, settings.verbose, settings.quiet) == (False, True, False)
            assert bench.seen == ["ATE0V1Q0", "AT+CMEE?"]

    async def test_what_is_swallowed_is_asked_again(self) -> None:
        bench = Bench()
        bench.module.mangles.add("E", Mangle(How.DROP, WAKE_TRIES - 1))
        async with bench.turn(awake=False) as turn:
            await wake(turn)
            assert bench.seen == ["ATE0V1Q0"] * WAKE_TRIES + ["AT+CMEE?"]

    async def test_a_prompt_that_a_killed_daemon_left_open_is_left(self) -> None:
        """A pseudo-terminal or a USB port that is opened again is the same to the module; nothing is sent."""
        bench = Bench()
        async with bench.turn(awake=False) as turn:
            assert bench.wire.end is not None
            bench.wire.end.sim.feed(b"AT+CMGF=0\rAT+CMGS=20\r0011000B91")
            begin = asyncio.get_running_loop().time()
            await wake(turn)
            assert asyncio.get_running_loop().time() - begin < 2 * WAKE_TIMEOUT
            assert (await turn.ask("AT+CMGF?")).value("+CMGF") == ("0",)
            assert not bench.module.network.sent

    async def test_a_mute_one_is_no_module(self) -> None:
        bench = Bench()
        bench.module.hang()
        async with bench.turn(awake=False) as turn:
            with pytest.raises(TimedOutError):
                await wake(turn)
            assert len(bench.seen) == WAKE_TRIES + FILLED_TRIES + 1

    @pytest.mark.parametrize("given", [0, 1, 20_000, 47_000])
    async def test_a_prompt_for_so_many_bytes_that_a_killed_daemon_left_open_is_filled(self, given: int) -> None:
        """ESC and commands are data there, AT#REBOOT too: without the rest nothing would ever be answered again."""
        bench = Bench()
        async with bench.turn(awake=False) as turn:
            assert bench.wire.end is not None
            bench.wire.garble = lambda _: b""  # the prompt was shown to another
            bench.wire.end.sim.feed(b'AT#WSCRIPT="a",48000\r')
            await asyncio.sleep(1)
            bench.wire.end.sim.feed(bytes(given))
            bench.wire.garble = lambda data: data
            await wake(turn)
            assert (await turn.ask("AT+CMGF?")).value("+CMGF") == ("0",)

    async def test_a_port_that_takes_nothing_is_not_filled_for_ever(self) -> None:
        bench = Bench()
        bench.module.hang()
        async with bench.turn(awake=False) as turn:
            assert bench.wire.end is not None
            bench.wire.end.unsent = PIECE
            begin = asyncio.get_running_loop().time()
            await turn.fill_prompt()
            assert 0 < asyncio.get_running_loop().time() - begin <= 2 * FLOOD / FILL_RATE

    async def test_one_that_answers_something_else_is_no_at_port(self) -> None:
        bench = Bench()
        bench.answers("+CMEE?", "+GARBAGE: 1")
        async with bench.turn(awake=False) as turn:
            with pytest.raises(TimedOutError, match="is this its AT port, and the baud rate right"):
                await wake(turn)

    async def test_an_answer_to_an_earlier_try_is_not_taken_for_this_ones(self) -> None:
        bench = Bench()
        bench.module.mangles.add("E", Mangle(How.LATE, 1, seconds=2.5))
        async with bench.turn(awake=False) as turn:
            await wake(turn)
            assert (await turn.ask("AT+CMGF?")).value("+CMGF") == ("0",)


class TestSetUp:
    async def test_the_first_port(self) -> None:
        bench = Bench()
        async with bench.turn() as turn:
            assert await set_up(turn, first=True) == Identity("HE910-D", "12.00.004")
            assert bench.seen == [
                *(f"AT{service}?" for service in SERVICES),
                "ATE0V1Q0",
                "AT+CMEE=1",
                "AT+CMGF=0",
                "AT+CSMS=0",
                "AT+CNMI=2,1,0,0,0",
                "AT+CGMM",
                "AT+CGMR",
            ]
            assert not [line for line in bench.seen if any(name in line for name in FORBIDDEN)]

    async def test_a_further_port(self) -> None:
        bench = Bench()
        async with bench.turn() as turn:
            await set_up(turn, first=False)
            assert bench.seen == [
                "ATE0V1Q0",
                "AT+CMEE=1",
                "AT+CMGF=0",
                "AT+CNMI=2,0,0,0,0",
                "AT+CGMM",
                "AT+CGMR",
            ]

    async def test_a_family_without_the_services(self, capsys: pytest.CaptureFixture[str]) -> None:
        bench = Bench(model="ME310G1-W1")
        async with bench.turn() as turn:
            assert (await set_up(turn, first=True)).model == "ME310G1-W1"
            assert not [line for line in bench.seen if line.endswith("=0") and "#" in line]
        assert "warning" not in capsys.readouterr().out

    async def test_an_odd_name_is_cut(self) -> None:
        bench = Bench()
        bench.answers("+CGMM", "X" * 500)
        bench.answers("+CGMR")
        async with bench.turn() as turn:
            assert await set_up(turn, first=True) == Identity("X" * 64, "")

    async def test_a_service_that_stays_on_is_said(self, capsys: pytest.CaptureFixture[str]) -> None:
        bench = Bench()
        bench.answers("#SMSATRUN?", "#SMSATRUN: 1")
        async with bench.turn() as turn:
            await switch_off_services(turn)
            assert bench.seen.count("AT#SMSATRUN=0") == 1
        assert "still on" in capsys.readouterr().out

    @pytest.mark.parametrize("lines", [("#SMSATRUN:",), (), ("garbage",), ("#SMSATRUN: 0",)])
    async def test_a_service_read_without_sense_counts_as_off(self, lines: tuple[str, ...]) -> None:
        bench = Bench()
        bench.answers("#SMSATRUN?", *lines)
        async with bench.turn() as turn:
            await switch_off_services(turn)
            assert "AT#SMSATRUN=0" not in bench.seen


class TestInPlace:
    @pytest.mark.parametrize(
        ("cmee", "cnmi", "first", "further"),
        [
            ("+CMEE: 1", "+CNMI: 2,1,0,0,0", True, True),
            ("+CMEE: 0", "+CNMI: 2,1,0,0,0", False, False),
            ("+CMEE: 1", "+CNMI: 0,0,0,0,0", False, True),
            ("+CMEE: 1", "+CNMI: 2,1,2,1,0", True, True),
            ("+CMEE: 1", "+CNMI: 2,2,0,0,0", False, True),
            ("garbage", "garbage", True, True),
        ],
    )
    async def test_what_is_read(self, cmee: str, cnmi: str, *, first: bool, further: bool) -> None:
        bench = Bench()
        async with bench.turn() as turn:
            bench.answers("+CMEE?", cmee)
            bench.answers("+CNMI?", cnmi)
            assert await in_place(turn, first=True) == first
            assert await in_place(turn, first=False) == further

    async def test_right_after_set_up(self) -> None:
        bench = Bench()
        async with bench.turn() as turn:
            assert not await in_place(turn, first=True)
            await set_up(turn, first=True)
            assert await in_place(turn, first=True)


class TestMemory:
    async def test_sm_goes_first(self) -> None:
        bench = Bench()
        async with bench.turn() as turn:
            assert await choose_memory(turn) == "SM"
            assert bench.seen == ["AT+CPMS=?", 'AT+CPMS="SM","SM","SM"']

    async def test_me_where_there_is_no_sm(self) -> None:
        bench = Bench()
        bench.answers("+CPMS=?", '+CPMS: ("ME","MT"),("ME"),("ME")')
        async with bench.turn() as turn:
            assert await choose_memory(turn) == "ME"

    async def test_me_where_sm_cannot_be_had_at_all(self) -> None:
        bench = Bench()
        bench.answers('+CPMS="SM","SM","SM"', final="+CMS ERROR: 302")
        async with bench.turn() as turn:
            assert await choose_memory(turn) == "ME"

    @pytest.mark.parametrize("final", ["+CMS ERROR: 314", "+CMS ERROR: 310", "+CMS ERROR: 311", "+CME ERROR: 14"])
    async def test_none_yet_while_the_sim_is_not_there(self, final: str) -> None:
        bench = Bench()
        bench.answers('+CPMS="SM","SM","SM"', final=final)
        async with bench.turn() as turn:
            assert await choose_memory(turn) == ""
            assert 'AT+CPMS="ME","ME","ME"' not in bench.seen

    @pytest.mark.parametrize("final", ["ERROR", "+CMS ERROR: 303"])
    async def test_none_where_none_can_be_had(self, final: str) -> None:
        bench = Bench()
        bench.answers("+CPMS", final=final)
        async with bench.turn() as turn:
            assert await choose_memory(turn) == ""


class TestLook:
    @pytest.mark.parametrize(
        ("lines", "final", "sim"),
        [
            (("+CPIN: READY",), "OK", Sim.READY),
            (("+CPIN: SIM PIN",), "OK", Sim.PIN),
            (("+CPIN: SIM PUK",), "OK", Sim.PUK),
            (("+CPIN: PH-SIM PIN",), "OK", Sim.UNKNOWN),
            (("+CPIN:",), "OK", Sim.UNKNOWN),
            ((), "OK", Sim.UNKNOWN),
            ((), "ERROR", Sim.UNKNOWN),
            ((), "+CME ERROR: 10", Sim.ABSENT),
            ((), "+CME ERROR: 11", Sim.PIN),
            ((), "+CME ERROR: 12", Sim.PUK),
            ((), "+CME ERROR: 13", Sim.FAULTY),
            ((), "+CME ERROR: 14", Sim.BUSY),
            ((), "+CME ERROR: 15", Sim.FAULTY),
            ((), "+CME ERROR: 100", Sim.UNKNOWN),
        ],
    )
    async def test_the_sim(self, lines: tuple[str, ...], final: str, sim: Sim) -> None:
        bench = Bench()
        bench.answers("+CPIN?", *lines, final=final)
        async with bench.turn() as turn:
            assert (await look(turn)).sim is sim

    @pytest.mark.parametrize(
        ("creg", "cgreg", "cereg", "registration", "registered"),
        [
            ("0,1", "0,1", "0,0", "home", True),
            ("0,5", "0,0", "0,0", "roaming", True),
            ("0,2", "0,2", "0,2", "searching", False),
            ("0,0", "0,0", "0,0", "not searching", False),
            ("0,3", "0,0", "0,0", "denied", False),
            ("0,3", "0,0", "0,5", "roaming", True),
            ("0,0", "0,4", "0,1", "home", True),
            ('2,1,"6993","0938F20",2', "0,0", "0,0", "home", True),
            ("1", "0", "x,y", "", False),
            ("0,99", "0,", ",1", "home", True),
        ],
    )
    async def test_the_network(self, creg: str, cgreg: str, cereg: str, registration: str, *, registered: bool) -> None:
        bench = Bench()
        for name, value in (("+CREG", creg), ("+CGREG", cgreg), ("+CEREG", cereg)):
            bench.answers(f"{name}?", f"{name}: {value}")
        async with bench.turn() as turn:
            assert await look(turn) == Condition(Sim.READY, registration, registered)

    async def test_a_module_without_these_commands(self) -> None:
        bench = Bench()
        for name in ("+CPIN", "+CREG", "+CGREG", "+CEREG"):
            bench.answers(name, final="ERROR")
        async with bench.turn() as turn:
            assert await look(turn) == Condition(Sim.UNKNOWN, "", registered=False)


class TestPin:
    @staticmethod
    async def enter(bench: Bench, pin: str = "1234", refused: set[str] | None = None) -> tuple[bool, set[str]]:
        known = set() if refused is None else refused

        async def remember(fingerprint: str) -> None:
            assert not [line for line in bench.seen if "+CPIN=" in line], "first on disk, then sent"
            known.add(fingerprint)

        async def forget(fingerprint: str) -> None:
            known.discard(fingerprint)

        async def was_refused(fingerprint: str) -> bool:
            return fingerprint in known

        async with bench.turn() as turn:
            taken = await enter_pin(turn, pin, refused=was_refused, remember=remember, forget=forget)
        return taken, known

    @staticmethod
    def locked() -> Bench:
        bench = Bench()
        bench.module.card.state = state.Sim.PIN
        return bench

    async def test_the_right_one(self) -> None:
        bench = self.locked()
        assert await self.enter(bench) == (True, set())
        assert bench.module.card.state is state.Sim.READY

    async def test_the_wrong_one_is_remembered_and_not_sent_twice(self) -> None:
        bench = self.locked()
        bench.answers("#CCID", "#CCID: 8990011916180288209")
        taken, known = await self.enter(bench, "9999")
        assert not taken
        assert known == {pin_fingerprint("9999", "#CCID: 8990011916180288209")}
        assert bench.module.card.tries == PIN_TRIES - 1
        again = self.locked()
        again.answers("#CCID", "#CCID: 8990011916180288209")
        assert await self.enter(again, "9999", known) == (False, known)
        assert again.module.card.tries == PIN_TRIES
        other = self.locked()
        other.answers("#CCID", "#CCID: 8939011916180288200")
        assert (await self.enter(other, "9999", known))[0] is False
        assert other.module.card.tries == PIN_TRIES - 1, "another SIM may have another PIN"

    @pytest.mark.parametrize(
        ("lines", "final"), [(("#PCT: 2",), "OK"), (("#PCT: 0",), "OK"), ((), "ERROR"), (("#PCT:",), "OK")]
    )
    async def test_not_without_all_tries(self, lines: tuple[str, ...], final: str) -> None:
        bench = self.locked()
        bench.answers("#PCT", *lines, final=final)
        assert await self.enter(bench) == (False, set())
        assert not [line for line in bench.seen if "+CPIN" in line]

    async def test_the_counter_may_be_told_by_its_execution_form_alone(self) -> None:
        bench = self.locked()
        bench.answers("#PCT?", final="ERROR")
        assert (await self.enter(bench))[0]

    async def test_the_fingerprint_shows_nothing(self) -> None:
        prints = {pin_fingerprint(pin, iccid) for pin in ("1234", "1235") for iccid in ("1", "2", "")}
        assert len(prints) == 6
        assert all("1234" not in one and len(one) == 64 for one in prints)
