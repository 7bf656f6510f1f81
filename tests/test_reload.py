# SPDX-License-Identifier: Apache-2.0
"""The configuration read anew in a whole daemon under virtual time: what follows at once, and what is refused whole."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from atrund.atrun import secrets
from atrund.atrun.request import Door, End, Reason
from atrund.atrun.rules import read_rule
from atrund.config import Config, ConfigError, Mistake
from atrund.config.values import DoorRules, LocalRules, Module, Policy, Privacy, Sms, Tcp
from atrund.control import DoneAnswer, ExplainRequest
from atrund.reload import PATIENCE, SAID_MAX, Reload
from atrund.service import Service
from tests.support.asking import asked, outcome, said
from tests.support.keeping import no_threads
from tests.support.lives import Held
from tests.support.virtual import FRIEND, PORT, STRANGER, House, config, running
from tests.support.waiting import status, until

pytestmark = pytest.mark.looptime

REFUSED = "configuration not reloaded, and nothing changed"


class Systemd(Service):
    """Writes down what it is told."""

    def __init__(self) -> None:
        super().__init__({})
        self.told: list[str] = []

    def reloading(self) -> None:
        self.told.append("reloading")

    def ready(self, status: str) -> None:
        self.told.append(f"ready {status}")


class Reloading:
    """A house whose file is read anew; `read` is what reads it."""

    def __init__(self, house: House, before: Config) -> None:
        self.house = house
        self.given = before
        self.read: Callable[[], Config] = lambda: self.given
        self.systemd = Systemd()
        house.daemon._notify = self.systemd
        self.reload = Reload(house.daemon, self._read, self.systemd)

    def _read(self) -> Config:
        return self.read()

    async def to(self, **sections: object) -> list[dict[str, Any]]:
        """Give other sections, read them, and return what was logged."""
        values: dict[str, Any] = dict(sections)
        self.given = replace(self.given, **values)
        with capture_logs() as logs:
            await self.reload.once()
        return [dict(entry) for entry in logs]


@asynccontextmanager
async def following(**sections: object) -> AsyncIterator[Reloading]:
    given = config(**sections)
    async with running(given) as house:
        no_threads()
        yield Reloading(house, given)


def events(logs: Sequence[dict[str, Any]]) -> list[str]:
    return [entry["event"] for entry in logs]


async def test_another_white_list_counts_for_the_next_sms() -> None:
    async with following() as there:
        house = there.house
        logs = await there.to(sms=Sms(enabled=True, numbers=(STRANGER,)))
        assert {"event": "configuration reloaded", "changed": "sms.numbers, sms.password_files"}.items() <= logs[
            0
        ].items()
        assert house.daemon.sms.state == "open", "it was not closed meanwhile"
        house.sms("AT+CSQ", FRIEND)
        house.sms("AT+CGMR", STRANGER)
        await asyncio.sleep(10)
        assert house.outcomes == [("AT+CGMR", "ok", None)]
        await there.to(sms=Sms())
        assert house.daemon.sms.state == "off"


async def test_policy_masks_privacy_and_delays_follow() -> None:
    try:
        async with following() as there:
            house, daemon = there.house, there.house.daemon
            assert (await outcome(house, "AT+CSQ")).end is End.OK
            policy = Policy(
                confirm_after=77.0,
                mask=("token=*",),
                local=LocalRules(rules=(read_rule({"deny": "+CSQ"}),)),
                monitor=DoorRules(default="deny"),
            )
            await there.to(policy=policy, privacy=Privacy("full"), tcp=Tcp(delay=2.0))
            assert (await outcome(house, "AT+CSQ")).reason is Reason.POLICY
            assert daemon.confirmations.after == 77.0
            assert daemon.admin.facts.confirm_after == 77.0
            assert secrets.mask_line("AT#X=token=abc") == "AT#X=token=****"
            assert daemon._mirror.peer(Door.SMS, FRIEND) == FRIEND
            assert daemon.own.delays.tcp == 2.0
            told = await daemon.admin.handle(ExplainRequest("monitor", "AT+CGMR", f"sms {FRIEND}"), "uid 0")
            assert isinstance(told, DoneAnswer)
            assert told.told["decision"] == "refused"
            assert "the rights of the door that stored it" in str(told.told["notes"])
            assert "the event monitor is off" in str(told.told["notes"])
    finally:
        secrets.adopt(secrets.BUILT_IN)


async def test_what_runs_and_what_waits_go_on() -> None:
    async with following() as there:
        house = there.house
        run = house.daemon.runner.start(asked("AT+COPS=?"))
        waits = house.daemon.runner.start(asked("AT+CGMR"))
        await asyncio.sleep(0.5)
        await there.to(policy=Policy(local=LocalRules(default="deny")))
        for one in (run, waits):
            found = await one.outcome
            assert found is not None
            assert found.end is End.OK
        assert len(house.wire.opened) == 1


async def test_a_setting_that_a_command_made_stays_before_the_file_unless_that_is_locked() -> None:
    async with following() as there:
        house = there.house
        assert await said(house, "AT#SMSATRUNCFG=2,1,7") == ["+CME ERROR: 3"]
        assert await said(house, "AT#SMSATRUN=0;#SMSATRUNCFG=2,1,7;#SMSATRUN=1") == ["OK"]
        sms = replace(there.given.sms, timeout=120.0, urc=False)
        logs = await there.to(sms=sms)
        listed = [entry for entry in logs if entry["event"].startswith("setting of a command")]
        assert {entry["key"] for entry in listed} == {"sms.instance", "sms.timeout", "sms.urc"}
        assert {(entry["door"], entry["peer"], entry["since"][:4]) for entry in listed} == {("local", "peer", "2026")}
        assert house.daemon.nvm.settings.sms.timeout == 420.0
        await there.to(locked=True)
        assert house.daemon.nvm.settings.sms.timeout == 120.0
        assert await said(house, "AT#SMSATRUN=0") == ["+CME ERROR: 3"]
        await there.to(locked=False)
        assert house.daemon.nvm.settings.sms.timeout == 420.0


async def test_the_telemetrys_interval_follows_from_never_to_often_and_back() -> None:
    async with following() as there:
        house = there.house
        await asyncio.sleep(1000)
        assert house.daemon.modem.telemetry.readings.operator is None
        await there.to(module=Module(port=PORT, telemetry=60.0))
        await until(lambda: house.daemon.modem.telemetry.readings.operator is not None)

        async def asked_within(seconds: float) -> int:
            before = house.wire.seen.count("AT+CESQ")
            await asyncio.sleep(seconds)
            return house.wire.seen.count("AT+CESQ") - before

        assert await asked_within(600) in range(9, 12)
        await there.to(module=Module(port=PORT, telemetry=300.0))
        await asyncio.sleep(10)
        assert await asked_within(600) == 2
        await there.to(module=Module(port=PORT, telemetry=0.0))
        await asyncio.sleep(10)
        assert await asked_within(4000) == 0


async def test_an_instances_port_follows() -> None:
    async with following() as there:
        await there.to(module=Module(port=PORT, telemetry=0.0, instance_ports=(1,)))
        assert there.house.daemon.modem.mapped(1) is not None
        assert there.house.daemon.modem.mapped(2) is None


async def test_what_needs_a_restart_is_named_in_one_warning_and_in_the_status() -> None:
    async with following() as there:
        logs = await there.to(node="other", module=Module(port="/dev/other", telemetry=0.0))
        assert events(logs).count("needs a restart: node, module.port") == 1
        assert there.house.daemon.config.node == "node"
        assert (await status(there.house))["settings"]["needs_restart"] == ["node", "module.port"]
        assert there.systemd.told[-1].endswith("; needs a restart")
        await there.to(node="node", module=Module(port=PORT, telemetry=0.0))
        assert (await status(there.house))["settings"]["needs_restart"] == []


async def test_a_file_with_mistakes_changes_nothing_and_all_are_said() -> None:
    async with following() as there:
        before = there.house.daemon.config
        mistakes = tuple(Mistake(f"key{number}", "is wrong", "be right") for number in range(SAID_MAX + 5))

        def read() -> Config:
            raise ConfigError(Path("atrund.toml"), mistakes)

        there.read = read
        logs = await there.to()
        assert (logs[0]["event"], logs[0]["mistakes"]) == (REFUSED, SAID_MAX + 5)
        assert [(entry["key"], entry["detail"]) for entry in logs[1:3]] == [
            ("key0", "is wrong; be right"),
            ("key1", "is wrong; be right"),
        ]
        assert len(logs) == 1 + SAID_MAX
        assert there.house.daemon.config is before
        assert there.systemd.told[0] == "reloading"
        assert there.systemd.told[1].startswith("ready ")
        assert there.systemd.told[1].endswith("; not reloaded")
        assert "key0: is wrong" in (await status(there.house))["settings"]["not_reloaded"]


async def test_a_fault_in_reading_changes_nothing_either() -> None:
    async with following() as there:

        def read() -> Config:
            raise OSError("gone while it was read")

        there.read = read
        assert REFUSED in events(await there.to())
        there.read = lambda: there.given
        assert events(await there.to()) == ["configuration reloaded"]


async def test_services_that_the_file_puts_on_one_instance_with_those_of_commands_are_refused() -> None:
    async with following(sms=Sms(enabled=True, numbers=(FRIEND,), instance=3)) as there:
        house = there.house
        assert await said(house, "AT#TCPATRUNCFG=1,2,1,0,5555") is not None
        before = house.daemon.config
        logs = await there.to(tcp=Tcp(enabled=True, port=0, instance=3))
        assert REFUSED in events(logs)
        assert "would be held by" in logs[1]["detail"]
        assert house.daemon.config is before
        assert house.daemon.tcp is None


async def test_a_change_that_hangs_on_its_disk_is_not_waited_for_for_ever() -> None:
    async with following() as there:
        house = there.house
        held = Held(house.disk)
        hanging = house.daemon.runner.start(asked('AT#SMSATWL=1,2,0,"+39333"'))
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        logs = await there.to(sms=Sms())
        assert asyncio.get_running_loop().time() - began == pytest.approx(PATIENCE)
        assert REFUSED in events(logs)
        assert house.daemon.sms.state == "open"
        held.release()
        await hanging.outcome
        assert "configuration reloaded" in events(await there.to())


async def test_services_that_hang_on_their_disk_are_said_and_go_on() -> None:
    async with following() as there:
        held = Held(there.house.disk)
        logs = await there.to(sms=Sms(), policy=Policy(local=LocalRules(default="deny")))
        assert "configuration reloaded" in events(logs)
        (entry,) = [entry for entry in logs if entry["event"] == "a door is not as the configuration says"]
        assert entry["detail"].startswith("not done within")
        assert there.systemd.told[-1].startswith("ready ")
        assert (await outcome(there.house, "AT+CSQ")).reason is Reason.POLICY
        held.release()
        assert there.house.daemon.sms.state == "off"


async def test_the_event_monitor_has_rules_of_its_own_which_count_beside_those_of_who_stored() -> None:
    async with following(sms=Sms()) as there:
        house = there.house
        await until(lambda: house.daemon.module.state.usable)
        stored = 'AT#EVMONI="RING",1;#EVMONI="RING",1,0,"AT+CGMR";#EVMONI="RING",1,1,1;#ENAEVMONI=1'
        assert await said(house, stored) == ["OK"]

        async def rings() -> tuple[str, str | None]:
            await asyncio.sleep(60)
            house.module.urc("RING")
            await asyncio.sleep(10)
            line, end, why = house.outcomes[-1]
            assert line == "AT+CGMR"
            return end, why

        assert await rings() == ("ok", None)
        rules = (read_rule({"deny": "+CGMR", "peer": "local *"}),)
        await there.to(policy=Policy(monitor=DoorRules(rules=rules)))
        assert await rings() == ("rejected", "policy")
        rules = (read_rule({"deny": "+CGMR", "peer": "sms *"}),)
        await there.to(policy=Policy(monitor=DoorRules(rules=rules)))
        assert await rings() == ("ok", None)
        await there.to(policy=Policy(local=LocalRules(default="deny")))
        assert await rings() == ("rejected", "policy")


async def test_what_is_wanted_twice_while_one_runs_is_one_more() -> None:
    async with following() as there:
        wanted = asyncio.Event()
        task = asyncio.get_running_loop().create_task(there.reload.run(wanted))
        await there.house.daemon.own.changing.acquire()
        wanted.set()
        await asyncio.sleep(1)
        for _ in range(3):
            wanted.set()
        there.house.daemon.own.changing.release()
        await asyncio.sleep(1)
        assert there.systemd.told.count("reloading") == 2
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
