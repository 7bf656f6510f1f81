# SPDX-License-Identifier: Apache-2.0
import asyncio
import itertools
import logging
from collections.abc import Iterator

import pytest
import structlog

from atrund.atrun.secrets import Secret
from atrund.config.values import Module as ModuleConfig
from atrund.config.values import Recovery
from atrund.module.keeper import FIRST_PAUSE, HOLD, LONGEST_PAUSE
from atrund.module.ladder import LadderRules, Reboot
from atrund.module.lifecycle import State
from atrund.module.setup import SERVICES as SERVICE_NAMES
from atrund.module.tending import AGAIN_MAX, MEMORY_EVERY, WATCH_EVERY, PinKeeping
from atrund.module.turn import LinkLostError, TimedOutError
from atrund.sim.faults import Plant
from atrund.sim.mangle import How, Mangle
from atrund.sim.module import SimModule
from atrund.sim.state import Options, Sim
from tests.support.keeping import FORBIDDEN, LOOK, SERVICES, SET_UP, Bench, keeping, no_threads
from tests.support.virtual import PORT, AtOnce, House, Wire, config, running

pytestmark = pytest.mark.looptime


@pytest.fixture(autouse=True)
def _no_debug() -> Iterator[None]:
    """A day's debug lines take longer than the day."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    yield
    structlog.reset_defaults()


NEVER = LadderRules(Reboot.NEVER, shared=False)
DAY = 86400.0


def forbidden(lines: list[str]) -> list[str]:
    return [line for line in lines if any(name in line.upper() for name in FORBIDDEN)]


class TestSetUp:
    async def test_it_is_that_of_mod_3_and_nothing_of_mod_8s_list_is_ever_sent(self) -> None:
        async with keeping(Bench()) as bench:
            assert bench.seen == SET_UP
            assert bench.states == [State.OPENING, State.WAKING, State.SETTING_UP, State.READY]
            module = bench.keeper.module
            assert (module.model, module.firmware, module.memory) == ("HE910-D", "12.00.004", "SM")
            assert (module.sim, module.registration, module.detail) == ("ready", "home", "")
            await asyncio.sleep(DAY + 3600)
            assert forbidden(bench.line.wrote) == []

    async def test_a_further_port_gets_no_codes_and_has_no_store(self) -> None:
        async with keeping(Bench(ports=2)) as bench:
            seen = bench.lines[1].seen
            assert seen == [
                "ATE0V1Q0",
                "AT+CMEE?",
                "ATE0V1Q0",
                "AT+CMEE=1",
                "AT+CMGF=0",
                "AT+CNMI=2,0,0,0,0",
                "AT+CGMM",
                "AT+CGMR",
                *LOOK,
            ]
            assert bench.keepers[1].module.memory == ""
            bench.module.set_registration(0)
            await asyncio.sleep(3 * WATCH_EVERY)
            assert bench.state is State.NOT_REGISTERED
            assert bench.keepers[1].module.state is State.READY
            assert forbidden(bench.lines[1].seen) == []

    @pytest.mark.parametrize("name", SERVICE_NAMES)
    async def test_a_service_of_the_modules_own_is_switched_off_read_back_and_said(
        self, name: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        bench = Bench()
        bench.module.values[name] = ("1",)
        async with keeping(bench):
            assert bench.module.values[name] == ("0",)
            at = bench.seen.index(f"AT{name}?")
            assert bench.seen[at : at + 3] == [f"AT{name}?", f"AT{name}=0", f"AT{name}?"]
            said = [line for line in capsys.readouterr().out.splitlines() if "the module's own service was on" in line]
            assert len(said) == 1
            assert name in said[0]
            assert "off now" in said[0]

    async def test_the_services_are_looked_at_daily_however_often_the_network_goes(self) -> None:
        async with keeping(Bench()) as bench:
            for hour in range(50):
                bench.module.lose_registration(2, 600)
                if hour == 30:
                    bench.module.values["#SMSATRUN"] = ("1",)
                await asyncio.sleep(3600)
            assert bench.module.values["#SMSATRUN"] == ("0",)
            assert [bench.line.wrote.count(line) for line in SERVICES] == [4, 3, 3, 3]

    async def test_the_sms_store_is_chosen_when_the_sims_messages_are_ready(self) -> None:
        async with keeping(Bench(sms_busy=20.0)) as bench:
            assert bench.keeper.module.memory == ""
            assert asyncio.get_running_loop().time() < 20
            await asyncio.sleep(20 + MEMORY_EVERY)
            assert bench.keeper.module.memory == "SM"
            assert bench.told[0][-1][1].memory == "SM"
            tries = bench.seen.count("AT+CPMS=?")
            assert tries <= 4
            await asyncio.sleep(3600)
            assert bench.seen.count("AT+CPMS=?") == tries

    async def test_what_the_module_refuses_is_said_and_holds_up_nothing(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        bench = Bench()
        for name in (*SERVICE_NAMES, "+CSMS", "+CNMI", "+CGMM"):
            bench.module.faults.plant(name, Plant(None, final="ERROR"))
        async with keeping(bench):
            assert bench.seen == SET_UP
            assert bench.keeper.module.model == ""
            said = capsys.readouterr().out
            assert said.count("set-up refused") == 2

    async def test_the_first_characters_may_be_swallowed(self) -> None:
        bench = Bench()
        bench.module.hang()
        asyncio.get_running_loop().call_later(5, bench.module.resume)
        async with keeping(bench):
            assert State.STUCK not in bench.states
            assert len(bench.line.sims) == 1

    @pytest.mark.parametrize("step", range(len(SET_UP)))
    async def test_a_port_lost_at_any_step_is_opened_anew(self, step: int) -> None:
        async with keeping(Bench(), until=None) as bench:
            while len(bench.seen) <= step:  # noqa: ASYNC110 - the module tells nobody what it saw
                await asyncio.sleep(0.001)
            bench.line.wire.lose()
            bench.since()
            await bench.until(State.ABSENT, 1)
            await bench.until()
            assert bench.seen == SET_UP

    @pytest.mark.parametrize("how", [How.DROP, How.NO_FINAL, How.CUT, How.GARBLE, How.LATE, How.DOUBLE])
    @pytest.mark.parametrize("command", sorted({line.removeprefix("AT") for line in SET_UP}))
    async def test_an_answer_spoilt_once_at_any_step_is_recovered_from(self, how: How, command: str) -> None:
        bench = Bench()
        bench.module.mangles.add(command, Mangle(how, seconds=6.0 if how is How.LATE else None))
        async with keeping(bench):
            await asyncio.sleep(3 * WATCH_EVERY)
            assert bench.state is State.READY
            assert bench.keeper.module.memory == "SM"
            assert (await bench.ask("AT+CSQ")).value("+CSQ") == ("14", "99")

    async def test_a_module_that_reboots_in_the_middle_is_set_up_once_it_is_back(self) -> None:
        bench = Bench()
        bench.module.mangles.add("+CNMI", Mangle(How.REBOOT_INSIDE))
        async with keeping(bench):
            assert bench.seen[-len(SET_UP) :] == SET_UP


class TestSettings:
    async def test_a_module_that_restarted_behind_its_port_is_set_up_anew(self) -> None:
        async with keeping(Bench(ports=2)) as bench:
            bench.since()
            bench.module.reboot()
            await asyncio.sleep(2 * WATCH_EVERY)
            at = bench.seen.index(SERVICES[0])
            assert bench.seen[at : at + len(SET_UP[2:-4])] == SET_UP[2:-4]
            for line, codes in zip(bench.lines, (("2", "1", "0", "0", "0"), ("2", "0", "0", "0", "0")), strict=True):
                assert len(line.sims) == 1
                settings = line.sims[0].settings
                assert (settings.echo, settings.cmee) == (False, 1)
                assert settings.values["+CNMI"] == codes
            assert bench.states == []

    @pytest.mark.parametrize("command", ["AT+CMEE=2", "AT+CNMI=0,0,0,0,0", "ATZ"])
    async def test_what_a_door_changed_is_put_back(self, command: str) -> None:
        async with keeping(Bench()) as bench:
            assert (await bench.ask(command)).final.ok
            await asyncio.sleep(WATCH_EVERY + 5)
            settings = bench.line.sims[0].settings
            assert settings.cmee == 1
            assert settings.values["+CNMI"] == ("2", "1", "0", "0", "0")

    async def test_somebody_who_keeps_changing_them_is_reported_once_and_not_fought(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with keeping(Bench()) as bench:
            for _ in range(200):
                bench.line.sims[0].settings.values["+CNMI"] = ("1", "1", "0", "0", "0")
                await asyncio.sleep(60)
            assert bench.line.wrote.count("AT+CNMI=2,1,0,0,0") <= 1 + AGAIN_MAX * 4
            said = capsys.readouterr().out
            assert said.count("somebody keeps changing the settings") == 1
            assert bench.state is State.READY


class TestPort:
    async def test_an_absent_port_is_tried_with_growing_bounded_pauses_said_and_told_once(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        bench = Bench()
        bench.line.unplug()
        async with keeping(bench, until=State.ABSENT):
            await asyncio.sleep(DAY / 4)
            tried = bench.line.tried
            pauses = [late - early for early, late in itertools.pairwise(tried)]
            wanted = [min(FIRST_PAUSE * 2**number, LONGEST_PAUSE) for number in range(len(pauses))]
            assert all(0.8 * want <= pause <= 1.2 * want for pause, want in zip(pauses, wanted, strict=True))
            assert bench.states == [State.OPENING, State.ABSENT]
            assert len(bench.told[0]) <= 3
            assert capsys.readouterr().out.count("no such device") == 1
            assert bench.keeper.module.detail == "/dev/ttyUSB2: no such device"
            bench.line.plug()
            await bench.until(within=LONGEST_PAUSE * 1.2 + 5)
            assert bench.keeper.module.detail == ""

    async def test_each_cause_is_said_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        bench = Bench()
        bench.line.unplug()
        async with keeping(bench, until=State.ABSENT):
            for number in range(40):
                bench.line.wire.absent = "no such device" if number % 2 else "held by ModemManager"
                await asyncio.sleep(300)
            said = capsys.readouterr().out
            assert said.count("no such device") == 1
            assert said.count("held by ModemManager") == 1

    async def test_lost_and_back_under_another_name(self) -> None:
        async with keeping(Bench()) as bench:
            channel = bench.keeper.channel
            assert channel is not None
            bench.since()
            bench.module.unplug()
            await asyncio.sleep(0.01)
            assert bench.state is State.ABSENT
            assert bench.keeper.channel is None
            assert bench.keeper.module.detail == "unplugged" or "no such device" in bench.keeper.module.detail
            with pytest.raises(LinkLostError):
                async with channel.turn("tcp"):
                    pass
            await asyncio.sleep(100)
            bench.line.name = "/dev/ttyUSB7"
            bench.module.plug()
            await bench.until(within=100)
            assert bench.seen[-len(SET_UP) :] == SET_UP
            assert bench.states == [State.ABSENT, State.WAKING, State.SETTING_UP, State.READY]

    async def test_lost_again_and_again_it_always_comes_back(self) -> None:
        async with keeping(Bench()) as bench:
            for number in range(50):
                await asyncio.sleep(number % 7)
                bench.line.wire.lose()
                await asyncio.sleep(0.01)
                await bench.until()
            assert len(bench.module.ports) == 1

    async def test_lost_in_the_moment_of_its_opening(self) -> None:
        bench = Bench()
        opening = bench.line.open

        async def lose_at_once(path: str, baudrate: int, receiver: object) -> object:
            port = await opening(path, baudrate, receiver)  # type: ignore[arg-type]
            asyncio.get_running_loop().call_soon(bench.line.wire.lose)
            bench.keeper._open_port = opening
            return port

        bench.keeper._open_port = lose_at_once  # type: ignore[assignment]
        async with keeping(bench):
            assert State.ABSENT in bench.states

    async def test_a_fault_of_our_own_does_not_end_the_keeper(self, capsys: pytest.CaptureFixture[str]) -> None:
        bench = Bench()
        locate = bench.keeper._locate

        async def broken() -> str:
            bench.keeper._locate = locate
            raise ZeroDivisionError

        bench.keeper._locate = broken
        async with keeping(bench):
            assert "keeper's activity failed" in capsys.readouterr().out

    async def test_cancelled_it_gives_the_port_back(self) -> None:
        async with keeping(Bench()) as bench:
            bench.tasks[0].cancel()
            await asyncio.sleep(0.1)
            assert bench.module.ports == []
            assert bench.keeper.channel is None
            bench.tasks.clear()


class TestHang:
    async def test_one_that_answers_again_in_time_is_only_resynchronised(self) -> None:
        async with keeping(Bench()) as bench:
            bench.since()
            bench.module.faults.plant("+CSQ", Plant(1, seconds=8))
            with pytest.raises(TimedOutError):
                await bench.ask("AT+CSQ")
            assert (await bench.ask("AT+CSQ")).value("+CSQ") is not None
            await asyncio.sleep(120)
            assert bench.states == []
            assert len(bench.line.sims) == 1

    async def test_resync_then_stuck_then_reopen(self) -> None:
        async with keeping(Bench(rules=NEVER)) as bench:
            bench.since()
            bench.module.hang()
            with pytest.raises(TimedOutError):
                await bench.ask("AT+CSQ")
            await bench.until(State.STUCK, 120)
            assert "AT+CMEE?" in bench.seen or "AT+CMGF?" in bench.seen or "AT" in bench.seen
            assert bench.keeper.channel is None
            await asyncio.sleep(300)
            assert bench.state is State.STUCK
            bench.module.resume()
            await bench.until(within=100)
            assert bench.states == [State.STUCK, State.SETTING_UP, State.READY]
            assert "AT#REBOOT" not in bench.seen
            assert bench.kept == []
            assert bench.keeper.module.detail == ""

    async def test_the_watch_finds_a_hang_by_itself(self) -> None:
        async with keeping(Bench(rules=NEVER)) as bench:
            bench.module.hang()
            await bench.until(State.STUCK, 2 * WATCH_EVERY + 60)

    async def test_stuck_for_days_it_is_said_and_told_a_few_times_and_opened_in_bounds(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with keeping(Bench(rules=LadderRules(Reboot.UNUSED, shared=True), network_up=True)) as bench:
            bench.module.hang()
            await bench.until(State.STUCK, 200)
            capsys.readouterr()
            bench.since()
            before = len(bench.line.sims)
            await asyncio.sleep(DAY / 4)
            assert bench.states == []
            assert len(bench.told[0]) < 6
            said = capsys.readouterr().out
            assert said.count("module stuck") <= 2
            assert said.count("carries a data connection") == 1
            assert "carries a data connection" in bench.keeper.module.detail
            opened = len(bench.line.sims) - before
            assert DAY / 4 / (1.2 * LONGEST_PAUSE + 60) - 10 < opened < DAY / 4 / (0.8 * LONGEST_PAUSE)
            assert len(bench.module.ports) <= 1
            assert not [sim for sim in bench.line.sims if "AT#REBOOT" in sim.seen]
            bench.module.resume()
            await bench.until(within=100)

    @pytest.mark.parametrize(
        ("reboot", "shared", "network_up", "rebooted"),
        [
            (Reboot.UNUSED, True, True, False),
            (Reboot.UNUSED, True, False, True),
            (Reboot.UNUSED, False, True, True),
            (Reboot.ALWAYS, True, True, True),
            (Reboot.NEVER, True, False, False),
            (Reboot.NEVER, False, False, False),
        ],
    )
    async def test_a_hung_port_reboots_the_module_only_where_it_may(
        self, reboot: Reboot, *, shared: bool, network_up: bool, rebooted: bool
    ) -> None:
        bench = Bench(rules=LadderRules(reboot, shared), network_up=network_up)
        async with keeping(bench):
            hung = asyncio.get_running_loop().time()
            bench.module.hang()
            await bench.until(State.STUCK, 200)
            await asyncio.sleep(600)
            wrote = [data for data in bench.line.wire.written if b"#REBOOT" in data]
            assert bool(wrote) == rebooted
            assert bool(bench.kept) == rebooted
            if rebooted:
                assert wrote[0] == b"\x1b\rAT#REBOOT\r"
                states = bench.states
                assert states[states.index(State.STUCK) + 1] is State.REBOOTING
                stuck = [time for time, module in bench.told[0] if module.state is State.STUCK]
                down = [time for time, module in bench.told[0] if module.state is State.REBOOTING]
                assert hung < stuck[0] < down[0]
                assert not [time for time in stuck if down[0] < time < down[0] + HOLD]

    async def test_at_most_so_many_reboots_an_hour(self) -> None:
        async with keeping(Bench(rules=LadderRules(Reboot.ALWAYS, per_hour=3))) as bench:
            bench.module.hang()
            await asyncio.sleep(4 * 3600)
            times = [moment for climbs in bench.kept for moment in climbs[-1:]]
            assert len(times) > 4, "it goes on trying"
            assert all(late - early > 3600 for early, late in zip(times, times[3:], strict=False))
            assert all(len(climbs) <= 3 for climbs in bench.kept)

    async def test_the_hours_limit_outlives_a_restart(self) -> None:
        bench = Bench(rules=LadderRules(Reboot.ALWAYS, per_hour=3), history=(0.0, 0.1, 0.2))
        async with keeping(bench):
            bench.module.hang()
            await asyncio.sleep(3500)
            assert bench.kept == []
            assert "3 within the hour already" in bench.keeper.module.detail
            await asyncio.sleep(600)
            assert bench.kept

    async def test_one_port_of_two_is_stuck_and_its_reboot_is_no_surprise_to_the_other(self) -> None:
        async with keeping(Bench(ports=2, rules=LadderRules(Reboot.ALWAYS, per_hour=3))) as bench:
            bench.module.hang()
            await bench.until(State.REBOOTING, 300)
            await asyncio.sleep(0)
            assert bench.keepers[1].module.state is State.REBOOTING
            assert len(bench.kept) == 1
            bench.module.reboot()
            await bench.until(number=0)
            await bench.until(number=1)

    async def test_a_climb_that_fails_for_the_port_is_held_by_another_is_no_reboot(self) -> None:
        async with keeping(Bench(rules=LadderRules(Reboot.ALWAYS))) as bench:
            bench.module.hang()
            await bench.until(State.STUCK, 200)
            opening, tries = bench.keeper._open_port, 0

            async def held(path: str, baudrate: int, receiver: object) -> object:
                nonlocal tries
                tries += 1
                bench.line.wire.absent = "held by another program" if tries % 2 == 0 else ""
                return await opening(path, baudrate, receiver)  # type: ignore[arg-type]

            bench.keeper._open_port = held  # type: ignore[assignment]
            await asyncio.sleep(120)
            assert State.REBOOTING not in bench.states
            bench.keeper._open_port = opening
            bench.line.wire.absent = ""
            bench.module.resume()
            await bench.until(within=100)


class TestOperatorsCommand:
    RULES = LadderRules(Reboot.NEVER, shared=False, command=("/bin/true",))

    async def test_it_is_the_rung_above_the_reboot_and_the_module_gets_time_after_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ran: list[float] = []
        bench = Bench(rules=self.RULES)

        async def power_cycle(command: tuple[str, ...]) -> bool:
            assert command == ("/bin/true",)
            ran.append(asyncio.get_running_loop().time())
            bench.module.reboot()
            return True

        monkeypatch.setattr("atrund.module.keeper.run_command", power_cycle)
        async with keeping(bench):
            bench.module.hang()
            await bench.until(State.REBOOTING, 400)
            assert len(ran) == len(bench.kept) == 1
            await bench.until()
            assert bench.states[-3:] == [State.REBOOTING, State.SETTING_UP, State.READY]
            await asyncio.sleep(600)
            assert len(ran) == 1

    async def test_one_that_fails_leaves_it_stuck_and_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def fail(_command: tuple[str, ...]) -> bool:
            return False

        monkeypatch.setattr("atrund.module.keeper.run_command", fail)
        async with keeping(Bench(rules=self.RULES)) as bench:
            bench.module.hang()
            await asyncio.sleep(3000)
            assert bench.state is State.STUCK
            assert len(bench.kept) == 3

    async def test_a_reboot_through_another_port_does_not_cut_it_short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ended: list[str] = []
        began = asyncio.Event()

        async def slow(_command: tuple[str, ...]) -> bool:
            began.set()
            try:
                await asyncio.sleep(30)
                ended.append("whole")
            except asyncio.CancelledError:
                ended.append("cut short")
                raise
            return True

        monkeypatch.setattr("atrund.module.keeper.run_command", slow)
        async with keeping(Bench(ports=2, rules=self.RULES)) as bench:
            bench.line.wire.garble = lambda _data: b""
            await began.wait()
            await bench.ask("AT#REBOOT", number=1)
            await asyncio.sleep(0.1)
            assert bench.state is State.REBOOTING
            await asyncio.sleep(40)
            assert ended == ["whole"]


class TestReboot:
    @pytest.mark.parametrize("reenumerate", [False, True])
    @pytest.mark.parametrize("command", ["AT#REBOOT", "AT+CFUN=1,1"])
    async def test_by_a_doors_command(self, command: str, *, reenumerate: bool) -> None:
        async with keeping(Bench(reenumerate=reenumerate, rules=LadderRules(Reboot.ALWAYS))) as bench:
            bench.since()
            began = asyncio.get_running_loop().time()
            answer = await bench.ask(command)
            assert answer.final.ok
            await asyncio.sleep(0)
            assert bench.state is State.REBOOTING
            assert bench.keeper.channel is None
            await bench.until(within=HOLD)
            assert asyncio.get_running_loop().time() - began > (25 if reenumerate else 4)
            assert bench.states == [State.REBOOTING, State.SETTING_UP, State.READY]
            assert bench.seen[-len(SET_UP) :] == SET_UP
            assert bench.kept == []

    async def test_its_late_answer_still_arrives(self) -> None:
        async with keeping(Bench()) as bench:
            bench.module.faults.plant("#REBOOT", Plant(1, seconds=3.0))
            assert (await bench.ask("AT#REBOOT", 10)).final.ok
            await bench.until(within=HOLD)

    async def test_one_that_does_not_come_back_is_left_alone_for_90_seconds(self) -> None:
        async with keeping(Bench(options={"boot_delay": 1e6}, rules=LadderRules(Reboot.ALWAYS))) as bench:
            began = asyncio.get_running_loop().time()
            await bench.ask("AT#REBOOT")
            await asyncio.sleep(HOLD - 1)
            assert bench.state is State.REBOOTING
            assert State.STUCK not in bench.states
            await bench.until(State.STUCK, 60)
            assert asyncio.get_running_loop().time() > began + HOLD

    @pytest.mark.parametrize("after", [1.0, 5.2, 7.0, 20.0])
    async def test_one_that_goes_down_late_is_expected_to(self, after: float) -> None:
        async with keeping(Bench(rules=LadderRules(Reboot.ALWAYS))) as bench:
            bench.since()
            bench.module.faults.plant("#REBOOT", Plant(1, final="OK"))
            began = asyncio.get_running_loop().time()
            await bench.ask("AT#REBOOT")
            asyncio.get_running_loop().call_later(after, bench.module.hang)
            await asyncio.sleep(began + HOLD - 1 - asyncio.get_running_loop().time())
            assert State.STUCK not in bench.states
            bench.module.reboot()
            await bench.until(within=120)
            assert bench.kept == []

    @pytest.mark.parametrize("reenumerate", [False, True])
    async def test_one_through_another_port_is_known_to_all(self, *, reenumerate: bool) -> None:
        rules = LadderRules(Reboot.ALWAYS)
        async with keeping(Bench(ports=2, reenumerate=reenumerate, rules=rules)) as bench:
            await bench.ask("AT#REBOOT", number=1)
            await asyncio.sleep(0)
            assert [keeper.module.state for keeper in bench.keepers] == [State.REBOOTING, State.REBOOTING]
            await bench.until(within=HOLD)
            await bench.until(within=HOLD, number=1)
            for number in range(2):
                assert not {State.STUCK, State.ABSENT} & set(bench.states_of(number))

    async def test_two_in_a_row_and_one_that_was_waiting(self) -> None:
        async with keeping(Bench()) as bench:
            first, second = asyncio.create_task(bench.ask("AT#REBOOT")), asyncio.create_task(bench.ask("AT#REBOOT"))
            await asyncio.wait([first, second])
            assert first.result().final.ok
            await bench.until(within=2 * HOLD)

    async def test_a_refused_one_costs_a_few_seconds(self) -> None:
        async with keeping(Bench()) as bench:
            bench.module.faults.plant("#REBOOT", Plant(1, final="ERROR"))
            assert not (await bench.ask("AT#REBOOT")).final.ok
            await asyncio.sleep(0)
            await bench.until(State.REBOOTING, 1)
            await bench.until(within=10)


class TestPowerOff:
    @pytest.mark.parametrize("reenumerate", [False, True])
    async def test_it_is_off_by_command_and_found_when_it_answers(self, *, reenumerate: bool) -> None:
        rules = LadderRules(Reboot.ALWAYS, command=("/bin/false",))
        async with keeping(Bench(reenumerate=reenumerate, rules=rules)) as bench:
            bench.since()
            assert (await bench.ask("AT#SHDN")).final.ok
            await asyncio.sleep(DAY / 4)
            assert bench.states == [State.OFF_BY_COMMAND]
            assert bench.kept == []
            assert len(bench.line.tried) < DAY / 4 / (0.8 * LONGEST_PAUSE) + 30
            bench.module.reboot()
            await bench.until(within=LONGEST_PAUSE * 1.2 + 20)
            assert bench.states == [State.OFF_BY_COMMAND, State.SETTING_UP, State.READY]

    @pytest.mark.parametrize("after", [1.0, 5.2, 15.0, 30.0])
    async def test_one_that_goes_off_late_is_still_off_by_command(self, after: float) -> None:
        async with keeping(Bench(rules=LadderRules(Reboot.ALWAYS, command=("/bin/false",)))) as bench:
            bench.module.faults.plant("#SHDN", Plant(1, final="OK"))
            await bench.ask("AT#SHDN")
            await asyncio.sleep(after)
            assert (bench.state is State.READY) == (after > 10)
            bench.module.shut_down()
            if bench.keeper.channel is not None:
                with pytest.raises(TimedOutError):
                    await bench.ask("AT+CSQ")
            await asyncio.sleep(3600)
            assert bench.state is State.OFF_BY_COMMAND
            assert State.STUCK not in bench.states
            assert bench.kept == []


class TestSim:
    async def test_removed_and_returned_it_is_set_up_anew_and_the_port_stays_usable(self) -> None:
        async with keeping(Bench(sim_strict=True)) as bench:
            bench.since()
            bench.module.set_sim(Sim.MISSING)
            await bench.until(State.NO_SIM, WATCH_EVERY + 5)
            assert bench.keeper.module.memory == ""
            assert bench.keeper.module.sim == "absent"
            assert (await bench.ask("AT+CSQ")).final.ok
            await asyncio.sleep(600)
            assert bench.seen.count("AT+CPMS=?") == 0
            bench.since()
            bench.module.set_sim(Sim.READY)
            await bench.until(within=WATCH_EVERY + 5)
            await asyncio.sleep(5)
            assert bench.seen == [*LOOK, *SET_UP[2:]]
            assert bench.states == [State.READY]
            assert bench.keeper.module.memory == "SM"

    async def test_it_is_seen_at_once_where_qss_tells_of_it(self) -> None:
        async with keeping(Bench()) as bench:
            await bench.ask("AT#QSS=1")
            began = asyncio.get_running_loop().time()
            bench.module.set_sim(Sim.MISSING)
            await bench.until(State.NO_SIM, 2)
            bench.module.set_sim(Sim.READY)
            await bench.until(within=3)
            assert asyncio.get_running_loop().time() < began + 5

    async def test_a_sim_that_is_busy_for_a_while_is_waited_for(self) -> None:
        async with keeping(Bench(qss_step=8.0, sim_strict=True)) as bench:
            bench.module.set_sim(Sim.MISSING)
            await bench.until(State.NO_SIM, WATCH_EVERY + 5)
            bench.module.set_sim(Sim.READY)
            await asyncio.sleep(3 * WATCH_EVERY)
            assert bench.state is State.READY
            assert bench.keeper.module.memory == "SM"

    async def test_puk_is_no_pin(self) -> None:
        bench = Bench()
        bench.module.set_sim(Sim.PUK)
        async with keeping(bench, until=State.PIN_NEEDED):
            assert bench.keeper.module.sim == "PUK needed"
            await asyncio.sleep(3600)
            assert forbidden(bench.seen) == []


class TestPin:
    class Kept:
        """What a ledger would keep."""

        def __init__(self, pin: str = "1234") -> None:
            self.refused: set[str] = set()
            self.log: list[str] = []
            self.broken = False
            self.keeping = PinKeeping(pin, self.was_refused, self.remember, self.forget)

        async def was_refused(self, fingerprint: str) -> bool:
            return fingerprint in self.refused

        async def remember(self, fingerprint: str) -> None:
            if self.broken:
                raise RuntimeError("disk full")
            self.log.append("remember")
            self.refused.add(fingerprint)

        async def forget(self, fingerprint: str) -> None:
            self.log.append("forget")
            self.refused.discard(fingerprint)

    @staticmethod
    def sent(bench: Bench) -> list[str]:
        return [line for line in bench.line.wrote if "+CPIN=" in line]

    async def test_it_is_entered_at_the_start_and_whenever_the_sim_comes_back(self) -> None:
        kept = self.Kept()
        async with keeping(Bench(pin=kept.keeping, pin_lock=True, sim_strict=True)) as bench:
            assert self.sent(bench) == ['AT+CPIN="1234"']
            assert kept.log == ["remember", "forget"]
            await asyncio.sleep(2 * MEMORY_EVERY)
            assert bench.keeper.module.memory == "SM"
            bench.module.set_sim(Sim.MISSING)
            await bench.until(State.NO_SIM, WATCH_EVERY + 5)
            bench.module.set_sim(Sim.READY)
            assert bench.module.card.state is Sim.PIN
            await bench.until(within=WATCH_EVERY + 5)
            assert len(self.sent(bench)) == 2
            await bench.ask("AT#REBOOT")
            await asyncio.sleep(30)
            assert len(self.sent(bench)) == 3
            assert bench.state is State.READY
            assert kept.refused == set()

    async def test_a_sim_that_is_busy_first_and_locked_then_gets_it(self) -> None:
        kept = self.Kept()
        bench = Bench(pin=kept.keeping, pin_lock=True)
        bench.module.faults.plant("+CPIN?", Plant(1, final="+CME ERROR: 14"))
        async with keeping(bench, until=State.NOT_REGISTERED):
            assert bench.keeper.module.sim == "busy"
            await bench.until(within=WATCH_EVERY + 5)
            assert self.sent(bench) == ['AT+CPIN="1234"']

    async def test_a_wrong_one_is_sent_once_and_the_sim_keeps_two_tries(self) -> None:
        kept = self.Kept("9999")
        async with keeping(Bench(pin=kept.keeping, pin_lock=True), until=State.PIN_NEEDED) as bench:
            for _ in range(3):
                await bench.ask("AT#REBOOT")
                await asyncio.sleep(30)
                bench.module.card.tries = 3
                bench.line.wire.lose()
                await asyncio.sleep(30)
            assert bench.state is State.PIN_NEEDED
            assert len(self.sent(bench)) == 1
            assert kept.log == ["remember"]

    @pytest.mark.parametrize("tries", [1, 2])
    async def test_it_is_not_sent_unless_all_tries_are_left(self, tries: int) -> None:
        bench = Bench(pin=self.Kept().keeping, pin_lock=True)
        bench.module.card.tries = tries
        async with keeping(bench, until=State.PIN_NEEDED):
            await asyncio.sleep(600)
            assert self.sent(bench) == []

    async def test_it_is_not_sent_where_the_tries_are_not_told(self) -> None:
        bench = Bench(pin=self.Kept().keeping, pin_lock=True)
        bench.module.faults.plant("#PCT", Plant(None, final="ERROR"))
        async with keeping(bench, until=State.PIN_NEEDED):
            assert self.sent(bench) == []

    async def test_a_puk_is_never_answered(self) -> None:
        bench = Bench(pin=self.Kept().keeping, puk=True)
        bench.module.set_sim(Sim.PUK)
        async with keeping(bench, until=State.PIN_NEEDED):
            await asyncio.sleep(600)
            assert self.sent(bench) == []

    async def test_it_is_not_sent_when_the_disk_does_not_remember_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        kept = self.Kept()
        kept.broken = True
        async with keeping(Bench(pin=kept.keeping, pin_lock=True), until=State.PIN_NEEDED) as bench:
            assert self.sent(bench) == []
            assert (await bench.ask("AT+CSQ")).final.ok
            assert "disk full" in capsys.readouterr().out

    async def test_one_that_a_busy_sim_did_not_look_at_was_not_refused(self) -> None:
        kept = self.Kept()
        bench = Bench(pin=kept.keeping, pin_lock=True)
        bench.module.faults.plant('+CPIN="1234"', Plant(1, final="+CME ERROR: 14"))
        async with keeping(bench, until=State.PIN_NEEDED):
            assert kept.refused == set()
            bench.line.wire.lose()
            await bench.until(within=30)

    async def test_one_whose_answer_is_lost_is_not_sent_again(self) -> None:
        kept = self.Kept()
        bench = Bench(pin=kept.keeping, pin_lock=True)
        bench.module.mangles.add('+CPIN="1234"', Mangle(How.DROP))
        async with keeping(bench):
            assert len(self.sent(bench)) == 1
            assert len(kept.refused) == 1


class TestNetwork:
    async def test_lost_and_back_by_the_look_of_every_minute(self) -> None:
        async with keeping(Bench()) as bench:
            bench.since()
            bench.module.set_registration(2)
            await bench.until(State.NOT_REGISTERED, WATCH_EVERY + 1)
            assert bench.keeper.module.registration == "searching"
            assert bench.keeper.channel is not None
            bench.module.set_registration(5)
            await bench.until(within=WATCH_EVERY + 1)
            assert bench.keeper.module.registration == "roaming"
            assert bench.states == [State.NOT_REGISTERED, State.READY]
            assert len(bench.line.sims) == 1

    async def test_lost_and_back_at_once_by_the_modules_word(self) -> None:
        async with keeping(Bench()) as bench:
            await bench.ask("AT+CREG=1")
            bench.module.set_registration(3)
            await bench.until(State.NOT_REGISTERED, 1)
            assert bench.keeper.module.registration == "denied"
            bench.module.set_registration(1)
            await bench.until(within=1)

    async def test_a_flood_of_codes_is_one_look(self) -> None:
        async with keeping(Bench()) as bench:
            bench.since()
            for number in range(300):
                bench.module.urc(f'+CREG: 1,"{number:04X}","0938F20",2')
            await asyncio.sleep(5)
            assert bench.seen.count("AT+CREG?") <= 2
            bench.since()
            bench.module.urc("RING")
            await asyncio.sleep(5)
            assert bench.seen == []

    async def test_a_long_command_at_a_door_delays_a_look_and_nothing_else(self) -> None:
        async with keeping(Bench(options={"cops_test_delay": 150.0})) as bench:
            assert (await bench.ask("AT+COPS=?", 180)).final.ok
            assert bench.state is State.READY
            assert len(bench.line.sims) == 1


class Notes:
    """A broker and a service that write down what they are told."""

    connected = False

    def __init__(self, house: House) -> None:
        self.topics: list[tuple[str, dict[str, object]]] = []
        self.lines: list[str] = []
        house.daemon.broker = house.daemon.telling.broker = self  # type: ignore[assignment]
        house.daemon._notify.status = self.lines.append  # type: ignore[method-assign, assignment]

    def tell(self, topic: str, payload: dict[str, object]) -> None:
        self.topics.append((topic, payload))

    def report(self) -> dict[str, object]:
        return {"connected": False}

    async def say_goodbye(self, _reason: str) -> None:
        pass

    def of(self, topic: str, field: str) -> list[object]:
        """The values told, without repetitions."""
        out: list[object] = []
        for told, payload in self.topics:
            if told == topic and (not out or out[-1] != payload[field]):
                out.append(payload[field])
        return out


class TestDaemon:
    async def test_the_state_is_in_status_on_mqtt_and_in_systemd(self) -> None:
        no_threads()
        async with running() as house:
            notes = Notes(house)
            state = (await house.daemon.status())["module"]
            assert isinstance(state, dict)
            assert (state["state"], state["detail"], state["memory"]) == ("ready", "", "SM")
            assert (state["model"], state["sim"], state["registration"]) == ("HE910-D", "ready", "home")
            house.module.set_sim(Sim.MISSING)
            await asyncio.sleep(WATCH_EVERY + 5)
            assert notes.of("module/state", "state") == ["ready", "no SIM"]
            assert notes.of("info", "model") == ["HE910-D"]
            assert notes.lines[-1] == "module no SIM; doors: sms"
            house.wire.lose("pulled out")
            house.wire.absent = "no such device"
            await asyncio.sleep(1)
            assert notes.lines[-1] == "module absent: /dev/virtual: no such device; doors: sms"
            told = len(notes.topics)
            await asyncio.sleep(DAY / 4)
            assert len(notes.topics) < told + 5
            state = (await house.daemon.status())["module"]
            assert isinstance(state, dict)
            assert (state["state"], state["operator"], state["rssi_dbm"]) == ("absent", None, None)

    async def test_the_sms_door_opens_when_the_store_is_there(self) -> None:
        no_threads()
        module = SimModule(Options(quirks=(("sms_busy", 20.0),)))
        async with running(module=module, until=None) as house:
            await asyncio.sleep(10)
            assert house.daemon.module.state is State.READY
            assert house.daemon.sms is not None
            assert house.daemon.sms.state != "open"
            await asyncio.sleep(30)
            assert house.daemon.sms.state == "open"

    async def test_a_reboot_by_a_door_is_survived(self) -> None:
        no_threads()
        async with running() as house:
            notes = Notes(house)
            channel = house.daemon.modem.idlest()
            assert channel is not None
            async with channel.turn("tcp") as turn:
                assert (await turn.ask("AT#REBOOT")).final.ok
            await asyncio.sleep(1)
            assert (await house.daemon.status())["module"]["state"] == "rebooting"  # type: ignore[index]
            assert notes.lines[-1] == "module rebooting; doors: sms"
            await asyncio.sleep(HOLD)
            assert house.daemon.module.state is State.READY
            assert notes.of("module/state", "state") == ["rebooting", "setting up", "ready"]
            house.sms("AT+CSQ")
            await asyncio.sleep(10)
            assert "+CSQ: 14,99" in house.sent[-1][1]

    async def test_climbs_are_remembered_over_a_restart(self) -> None:
        no_threads()
        given = config(recovery=Recovery(reboot="always", per_hour=1))
        disk = _left_open(AtOnce())
        async with running(given, disk=disk) as house:
            house.module.hang()
            await asyncio.sleep(400)
            assert sum(b"#REBOOT" in data for data in house.wire.written) == 1
        ran = house.daemon._ledger.run
        async with running(given, disk=disk, until=None) as house:
            house.module.hang()
            await asyncio.sleep(1000)
            assert house.daemon.module.state is State.STUCK
            assert sum(b"#REBOOT" in data for data in house.wire.written) == 0
            assert "1 within the hour already" in house.daemon.module.detail
            await asyncio.sleep(3600 - ran)
            assert sum(b"#REBOOT" in data for data in house.wire.written) == 1

    @pytest.mark.parametrize(
        ("send_pin", "pin", "taken"), [(True, "1234", True), (False, "1234", False), (True, None, False)]
    )
    async def test_a_pin_is_sent_only_where_the_configuration_says_so(
        self, pin: str | None, capsys: pytest.CaptureFixture[str], *, send_pin: bool, taken: bool
    ) -> None:
        structlog.reset_defaults()  # the debug lines are looked at as well
        no_threads()
        module = SimModule(Options(quirks=(("pin_lock", True),)))
        secret = None if pin is None else Secret(pin)
        given = config(module=ModuleConfig(port=PORT, pin=secret, send_pin=send_pin))
        async with running(given, module=module, until=None) as house:
            await asyncio.sleep(60)
            assert house.daemon.module.state is (State.READY if taken else State.PIN_NEEDED)
            assert bool([line for line in house.wire.seen if "+CPIN=" in line]) == taken
        assert "1234" not in capsys.readouterr().out

    async def test_a_wrong_pin_is_sent_once_and_never_again_after_a_restart_either(self) -> None:
        no_threads()
        disk = _left_open(AtOnce())
        module = SimModule(Options(quirks=(("pin_lock", True),)))
        wire = Wire(module)
        given = config(module=ModuleConfig(port=PORT, pin=Secret("9999"), send_pin=True))
        sent = 0
        for _ in range(3):
            module.card.tries = 3  # as after a phone took the card and was given the right one
            async with running(given, module=module, wire=wire, disk=disk, until=None) as house:
                await asyncio.sleep(200)
                assert house.daemon.module.state is State.PIN_NEEDED
                sent += sum("+CPIN=" in line for line in house.wire.seen)
        assert sent == 1


def _left_open(disk: AtOnce) -> AtOnce:
    disk.close = lambda timeout: None  # type: ignore[method-assign]  # noqa: ARG005 - its name is the contract
    return disk
