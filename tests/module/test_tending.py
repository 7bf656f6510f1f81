# SPDX-License-Identifier: Apache-2.0
"""The port kept from the doors, the radio, a look at once, and a reboot at the deadline."""

import asyncio

import pytest

from atrund.module.keeper import HOLD
from atrund.module.ladder import LadderRules, Reboot
from atrund.module.lifecycle import State
from atrund.module.tending import WATCH_EVERY
from atrund.module.turn import LinkLostError, TimedOutError
from atrund.module.turns import WaitedTooLongError
from atrund.sim.faults import Plant
from atrund.sim.state import Sim
from tests.support.keeping import SET_UP, Bench, keeping

pytestmark = pytest.mark.looptime

ALWAYS = LadderRules(Reboot.ALWAYS)


class TestKeptFromTheDoors:
    """From a reboot command to the end of set-up no door has a turn (MOD-4)."""

    @pytest.mark.parametrize("command", ["AT#REBOOT", "AT#SHDN", "AT+CFUN=1,1"])
    async def test_who_waited_behind_the_command_is_told_and_its_own_is_never_sent(self, command: str) -> None:
        async with keeping(Bench()) as bench:
            bench.since()
            channel = bench.keeper.channel
            assert channel is not None
            first = asyncio.create_task(bench.ask(command))
            waiting = [asyncio.create_task(bench.ask("AT+CSQ")) for _ in range(5)]
            assert (await first).final.ok
            for task in waiting:
                with pytest.raises(LinkLostError, match="commanded"):
                    await task
            for _ in range(40):  # whoever has the channel still
                with pytest.raises(LinkLostError):
                    async with channel.turn("mqtt"):
                        pass
                await asyncio.sleep(0.1)
            if command != "AT#SHDN":
                await bench.until(within=HOLD)
                assert (await bench.ask("AT+CSQ")).final.ok
            assert bench.seen.count("AT+CSQ") == (command != "AT#SHDN")

    async def test_a_reboot_through_another_port_counts_at_once(self) -> None:
        async with keeping(Bench(ports=2)) as bench:
            bench.module.faults.plant("+COPS?", Plant(1, seconds=2.0))
            running = asyncio.create_task(bench.ask("AT+COPS?"))
            waiting = asyncio.create_task(bench.ask("AT+CSQ"))
            await asyncio.sleep(1)
            await bench.ask("AT#REBOOT", number=1)
            with pytest.raises(LinkLostError, match="reboot commanded"):
                await waiting
            await asyncio.wait([running])
            assert "AT+CSQ" not in bench.seen

    async def test_a_reboot_that_is_refused_gives_the_port_back(self) -> None:
        async with keeping(Bench()) as bench:
            bench.module.faults.plant("#REBOOT", Plant(1, final="ERROR"))
            assert not (await bench.ask("AT#REBOOT")).final.ok
            await bench.until(within=10)
            assert (await bench.ask("AT+CSQ")).final.ok
            assert len(bench.line.sims) == 1

    async def test_nobody_comes_in_between_waking_and_the_end_of_set_up(self) -> None:
        bench = Bench()
        refused = 0

        async def stale() -> None:
            nonlocal refused
            while (channel := bench.keeper._opened) is None:  # noqa: ASYNC110 - an opening is no event here
                await asyncio.sleep(0.001)
            while not bench.state.usable:
                with pytest.raises(LinkLostError, match="being set up"):
                    async with channel.turn("tcp"):
                        pass
                refused += 1
                await asyncio.sleep(0.01)

        async with asyncio.timeout(60):
            task = asyncio.create_task(stale())
            async with keeping(bench):
                await task
                assert refused > 10
                assert bench.seen == SET_UP


class TestRadio:
    """A radio that another tenant switched off is reported, not switched on (MOD-8)."""

    async def test_it_is_the_reason_for_being_without_a_network(self, capsys: pytest.CaptureFixture[str]) -> None:
        async with keeping(Bench(ports=2)) as bench:
            await bench.ask("AT+CFUN=4", number=1)
            await bench.until(State.NOT_REGISTERED, WATCH_EVERY + 5)
            reason = "the radio was switched off by a command or another tenant (+CFUN: 4)"
            assert bench.keeper.module.detail == reason
            assert bench.keepers[1].module.detail == ""
            await asyncio.sleep(6 * 3600)
            assert bench.keeper.module.detail == reason
            assert not [line for line in bench.line.wrote if "+CFUN=" in line]
            await bench.ask("AT+CFUN=1", number=1)
            await bench.until(within=WATCH_EVERY + 30)
            assert bench.keeper.module.detail == ""
            said = capsys.readouterr().out
            assert (said.count("radio off"), said.count("radio on again")) == (1, 1)

    async def test_a_module_that_is_searching_has_its_radio_on(self) -> None:
        async with keeping(Bench()) as bench:
            bench.module.set_registration(2)
            await bench.until(State.NOT_REGISTERED, WATCH_EVERY + 5)
            assert (bench.keeper.module.detail, bench.keeper.module.registration) == ("", "searching")

    @pytest.mark.parametrize("plant", [Plant(None, final="ERROR"), Plant(None, lines=("+CFUN:",), final="OK")])
    async def test_one_that_does_not_say_is_not_accused(self, plant: Plant) -> None:
        bench = Bench()
        bench.module.faults.plant("+CFUN?", plant)
        async with keeping(bench):
            bench.module.set_registration(0)
            await bench.until(State.NOT_REGISTERED, WATCH_EVERY + 5)
            assert bench.keeper.module.detail == ""

    async def test_what_was_said_of_it_goes_with_the_port(self) -> None:
        async with keeping(Bench()) as bench:
            await bench.ask("AT+CFUN=4")
            await bench.until(State.NOT_REGISTERED, WATCH_EVERY + 5)
            bench.line.unplug()
            await bench.until(State.ABSENT, 5)
            assert "radio" not in bench.keeper.module.detail


class TestLookAtOnce:
    async def test_a_module_that_restarted_during_a_command_is_set_up_as_soon_as_it_is_in_step(self) -> None:
        async with keeping(Bench()) as bench:
            bench.module.faults.plant("+CSQ", Plant(1, seconds=8))
            with pytest.raises(TimedOutError):
                await bench.ask("AT+CSQ")
            bench.line.sims[0].settings.cmee = 0
            bench.line.sims[0].settings.values["+CNMI"] = ("0", "0", "0", "0", "0")
            began = asyncio.get_running_loop().time()
            while bench.line.sims[0].settings.cmee == 0:  # noqa: ASYNC110 - a setting is no event
                await asyncio.sleep(0.1)
            assert asyncio.get_running_loop().time() - began < 30
            await asyncio.sleep(5)
            assert bench.line.sims[0].settings.values["+CNMI"] == ("2", "1", "0", "0", "0")
            assert bench.state is State.READY

    async def test_echo_is_switched_off_again(self) -> None:
        async with keeping(Bench()) as bench:
            bench.line.sims[0].settings.echo = True
            assert (await bench.ask("AT+CSQ")).value("+CSQ") is not None
            await asyncio.sleep(WATCH_EVERY + 5)
            assert not bench.line.sims[0].settings.echo


class TestRebootAtTheDeadline:
    """`timeout_action = "reboot"` (REQ-7)."""

    @staticmethod
    async def overdue(bench: Bench, number: int = 0) -> str:
        channel = bench.keepers[number].channel
        assert channel is not None
        async with channel.turn("tcp") as turn:
            with pytest.raises(TimedOutError):
                await turn.ask("AT+CSQ", 5)
            return bench.keepers[number].reboot_overdue(channel)

    async def test_it_is_sent_once_the_port_is_in_step_and_counts(self) -> None:
        async with keeping(Bench(rules=ALWAYS)) as bench:
            bench.module.faults.plant("+CSQ", Plant(1, seconds=8))
            bench.since()
            asking = asyncio.create_task(self.overdue(bench))
            await asyncio.sleep(1)
            waiting = asyncio.create_task(bench.ask("AT+COPS?"))
            assert await asking == ""
            with pytest.raises(LinkLostError, match="did not end in time"):
                await waiting
            await bench.until(State.REBOOTING, 60)
            assert bench.seen.count("AT#REBOOT") == 1
            assert len(bench.kept) == 1
            await bench.until(within=HOLD)
            assert bench.states == [State.REBOOTING, State.SETTING_UP, State.READY]
            assert (await bench.ask("AT+CSQ")).final.ok

    async def test_where_the_port_does_not_come_back_in_step_the_ladder_begins_with_it(self) -> None:
        async with keeping(Bench(rules=ALWAYS)) as bench:
            bench.module.hang()
            bench.since()
            assert await self.overdue(bench) == ""
            await bench.until(State.REBOOTING, 400)
            assert bench.states == [State.STUCK, State.REBOOTING]
            assert len(bench.kept) == 1
            bench.module.reboot()
            await bench.until(within=HOLD)

    async def test_two_at_once_are_one_reboot(self) -> None:
        async with keeping(Bench(rules=ALWAYS)) as bench:
            bench.module.faults.plant("+CSQ", Plant(1, seconds=8))
            assert await self.overdue(bench) == ""
            channel = bench.keeper.channel
            assert channel is not None
            assert bench.keeper.reboot_overdue(channel) == "it is about to be rebooted already"
            await bench.until(State.REBOOTING, 60)
            assert bench.keeper.reboot_overdue(channel) == "the module is away already"
            await bench.until(within=HOLD)
            assert len(bench.kept) == 1

    async def test_past_the_hours_limit_the_command_is_only_left(self) -> None:
        async with keeping(Bench(rules=LadderRules(Reboot.ALWAYS, per_hour=0))) as bench:
            bench.module.faults.plant("+CSQ", Plant(1, seconds=8))
            assert "0 within the hour already" in await self.overdue(bench)
            assert (await bench.ask("AT+CSQ")).final.ok
            assert "AT#REBOOT" not in bench.seen

    async def test_on_a_shared_module_it_needs_always(self) -> None:
        async with keeping(Bench(rules=LadderRules(Reboot.UNUSED, shared=True))) as bench:
            bench.module.faults.plant("+CSQ", Plant(1, seconds=8))
            assert "the module is shared" in await self.overdue(bench)
            assert (await bench.ask("AT+CSQ")).final.ok

    async def test_one_that_is_not_sent_gives_the_port_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with keeping(Bench(rules=ALWAYS)) as bench:
            channel = bench.keeper.channel
            assert channel is not None

            def no_turn(*_args: object, **_options: object) -> object:
                raise WaitedTooLongError("no turn")

            with monkeypatch.context() as patch:
                patch.setattr(channel, "turn", no_turn)
                assert bench.keeper.reboot_overdue(channel) == ""
                await asyncio.sleep(1)
            assert (await bench.ask("AT+CSQ")).final.ok
            assert bench.kept == []

    async def test_a_stop_in_between_leaves_nothing_behind(self) -> None:
        async with keeping(Bench(rules=ALWAYS)) as bench:
            bench.module.hang()
            assert await self.overdue(bench) == ""
            bench.tasks[0].cancel()
            await asyncio.sleep(1)
            assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("reboot")]
            bench.tasks.clear()


async def test_a_sim_that_went_is_seen_before_the_radio() -> None:
    async with keeping(Bench()) as bench:
        bench.module.set_sim(Sim.MISSING)
        await bench.until(State.NO_SIM, WATCH_EVERY + 5)
        assert bench.keeper.module.detail == ""
