# SPDX-License-Identifier: Apache-2.0
"""Random settings commands, restarts and kills over the whole daemon: what is stored is what a simple model says."""

import asyncio
import os
from typing import Any

from hypothesis import settings as effort
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from atrund.atrun import stored
from atrund.atrun.request import Door, End, Reason
from atrund.config.values import Policy, Sms
from atrund.making import file_settings
from tests.support.asking import OUTER, outcome, start
from tests.support.lives import Lives
from tests.support.marked import _new_loop as new_loop
from tests.support.marked import no_log
from tests.support.virtual import House, config

FILE = config(sms=Sms(numbers=("+391", "+392")), policy=Policy(remote_admin=("sms", "tcp", "mqtt")))
DOORS = st.sampled_from(OUTER)
WHITE = "AT#SMSATWL={}"


class Model:
    """What the settings are, as plain values, and how a command changes them; False when it is refused."""

    def __init__(self) -> None:
        self.sms_config = (3, 1, 5)
        self.sms_on = 0
        self.white: dict[int, str] = {1: '0,"+391"', 2: '0,"+392"'}
        self.rules: list[str | None] = [None] * 5
        self.logins: list[tuple[str, str] | None] = [None] * 3
        self.sequence = 0
        self.tcp = (1, 2, 1024, 1024, "", 1, 5, 0, 0, 2)
        self.dialling = 0

    def copy(self) -> "Model":
        other = Model()
        other.__dict__ = {name: value.copy() if hasattr(value, "copy") else value for name, value in vars(self).items()}
        return other

    @property
    def answers(self) -> dict[str, list[str]]:
        """What the read forms say."""
        host = self.tcp[4]
        tcp = ",".join(f'"{host}"' if at == 4 else str(value) for at, value in enumerate(self.tcp))
        return {
            "AT#SMSATRUN?": [f"#SMSATRUN: {self.sms_on}"],
            "AT#SMSATRUNCFG?": ["#SMSATRUNCFG: " + ",".join(map(str, self.sms_config))],
            "AT#SMSATWL?": [f"#SMSATWL: {self.white.get(slot, '')}" for slot in range(1, 9)],
            "AT#TCPATRUNFRWL?": [f"#TCPATRUNFRWL: {one}" for one in self.rules if one is not None],
            "AT#TCPATRUNAUTH?": [f'#TCPATRUNAUTH: "{one[0]}","***"' for one in self.logins if one is not None],
            "AT#TCPATCMDSEQ?": [f"#TCPATCMDSEQ: {self.sequence}"],
            "AT#TCPATRUNCFG?": [f"#TCPATRUNCFG: {tcp}"],
        }


def masked(line: str) -> str:
    """A login's mask may have any length."""
    return f'{line.rsplit(",", 1)[0]},"***"' if line.startswith("#TCPATRUNAUTH") else line


class Living(RuleBasedStateMachine):
    """One box through many lives."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.Runner(loop_factory=new_loop)
        self.quiet = no_log()
        self.quiet.__enter__()
        self.model = Model()
        self.lives: Lives = self.run(self._begin())

    def run(self, work: Any) -> Any:  # noqa: ANN401 - any
        return self.loop.run(work)

    async def _begin(self) -> Lives:
        lives = Lives(FILE)
        self.there: House = await lives.start()
        return lives

    def teardown(self) -> None:
        if hasattr(self, "lives"):
            self.run(self.lives.end())
            self.loop.close()
            self.quiet.__exit__(None, None, None)

    # Commands: each says what the model becomes, or that nothing changes.

    def set(self, line: str, door: Door, then: Model | None, reason: Reason = Reason.BAD_REQUEST) -> None:
        found = self.run(outcome(self.there, line, door))
        if then is None:
            assert (found.end, found.reason) == (End.ERROR, reason), (line, found)
        else:
            assert found.end is End.OK, (line, found)
            self.model = then

    @rule(door=DOORS, slot=st.integers(0, 9), number=st.sampled_from(["+39*", "123", "*", "1a", "+39349"]))
    def number(self, door: Door, slot: int, number: str) -> None:
        then = self.model.copy()
        then.white[slot] = f'0,"{number}"'
        fits = 1 <= slot <= 8 and number not in {"*", "1a"}
        self.set(WHITE.format(f'0,{slot},0,"{number}"'), door, then if fits else None)

    @rule(door=DOORS, slot=st.integers(1, 8), word=st.sampled_from(["1234567890123456", "abcdefghijklmnop", "short"]))
    def password(self, door: Door, slot: int, word: str) -> None:
        then = self.model.copy()
        then.white[slot] = f'1,"{"*" * 16}"'
        fits = len(word) == 16 and sum(one.startswith("1") for one in then.white.values()) <= 2
        self.set(WHITE.format(f'0,{slot},1,"{word}"'), door, then if fits else None)

    @rule(door=DOORS, slot=st.integers(1, 8))
    def strike(self, door: Door, slot: int) -> None:
        then = self.model.copy()
        then.white.pop(slot, None)
        self.set(WHITE.format(f"1,{slot}"), door, then)

    @rule(door=DOORS, given=st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 61)))
    def configure_sms(self, door: Door, given: tuple[int, int, int]) -> None:
        then = self.model.copy()
        then.sms_config = given
        fits = 1 <= given[0] <= 3 and given[1] < 2 and 1 <= given[2] <= 60
        reason = Reason.POLICY if self.model.sms_on else Reason.BAD_REQUEST
        line = "AT#SMSATRUNCFG=" + ",".join(map(str, given))
        self.set(line, door, then if fits and not self.model.sms_on else None, reason)

    @rule(door=DOORS, on=st.integers(0, 1))
    def switch_sms(self, door: Door, on: int) -> None:
        then = self.model.copy()
        then.sms_on = on
        self.set(f"AT#SMSATRUN={on}", door, then)

    @rule(door=DOORS, net=st.integers(1, 7))
    def admit(self, door: Door, net: int) -> None:
        then, rule_ = self.model.copy(), f'"10.{net}.0.0","255.255.0.0"'
        if rule_ not in then.rules:
            if None not in then.rules:
                return self.set(f"AT#TCPATRUNFRWL=1,{rule_}", door, None)
            then.rules[then.rules.index(None)] = rule_
        return self.set(f"AT#TCPATRUNFRWL=1,{rule_}", door, then)

    @rule(door=DOORS, net=st.integers(1, 7))
    def bar(self, door: Door, net: int) -> None:
        then, rule_ = self.model.copy(), f'"10.{net}.0.0","255.255.0.0"'
        if rule_ in then.rules:
            then.rules[then.rules.index(rule_)] = None
            return self.set(f"AT#TCPATRUNFRWL=0,{rule_}", door, then)
        return self.set(f"AT#TCPATRUNFRWL=0,{rule_}", door, None)

    @rule(door=DOORS)
    def bar_all(self, door: Door) -> None:
        then = self.model.copy()
        then.rules = [None] * 5
        self.set("AT#TCPATRUNFRWL=2", door, then)

    @rule(door=DOORS, name=st.sampled_from("abcd"), word=st.sampled_from(["one", "two", ""]))
    def let_in(self, door: Door, name: str, word: str) -> None:
        then, line = self.model.copy(), f'AT#TCPATRUNAUTH=1,"{name}","{word}"'
        places = [at for at, one in enumerate(then.logins) if one is not None and one[0] == name]
        places += [at for at, one in enumerate(then.logins) if one is None]
        if word and places:
            then.logins[places[0]] = (name, word)
            return self.set(line, door, then)
        return self.set(line, door, None)

    @rule(door=DOORS, mod=st.integers(0, 2))
    def sequence(self, door: Door, mod: int) -> None:
        then = self.model.copy()
        then.sequence = mod
        self.set(f"AT#TCPATCMDSEQ={mod}", door, then if mod < 2 else None)

    @rule(door=DOORS, conn=st.integers(1, 7), port=st.integers(65534, 65536), host=st.sampled_from(["", "a.b", "a b"]))
    def configure_tcp(self, door: Door, conn: int, port: int, host: str) -> None:
        then = self.model.copy()
        then.tcp = (conn, 2, port, 80, host, 1, 5, 0, 0, 2)
        fits = conn < 7 and port < 65536 and host != "a b"
        self.set(f'AT#TCPATRUNCFG={conn},2,{port},80,"{host}"', door, then if fits else None)

    # Faults.

    @rule(door=DOORS)
    def refuse(self, door: Door) -> None:
        """The disk takes nothing, and nothing changes."""

        async def work() -> None:
            self.lives.disk.broken = "disk full"
            found = await outcome(self.there, "AT#SMSATRUN=0;#TCPATRUNFRWL=2;#TCPATCMDSEQ=1", door)
            assert found.reason is Reason.STORAGE
            self.lives.disk.broken = ""

        self.run(work())

    @rule()
    def restart(self) -> None:
        async def work() -> None:
            await self.there.daemon.stop()
            assert not self.there.daemon.failed.done()
            self.there = await self.lives.start()

        self.run(work())

    @rule(step=st.integers(0, 12), door=DOORS)
    def kill(self, step: int, door: Door) -> None:
        """Kill it at some step of a line: each command of it counts whole or not at all, in order."""

        async def work() -> tuple[bool, dict[str, list[str]]]:
            self.lives.kill_at(step)
            line = 'AT#TCPATRUNFRWL=2;#TCPATRUNFRWL=1,"10.9.0.0","255.255.0.0";#SMSATWL=1,1'
            run = start(self.there, line, door)
            await asyncio.sleep(5)
            answered = run.outcome.done() and not self.lives.killed
            await self.lives.kill()
            self.there = await self.lives.start()
            if door.delivers_again:
                await asyncio.sleep(30)  # what was recorded and not sent may be run now
            return answered, await self.read()

        steps = [self.model.copy()]
        steps.append(steps[-1].copy())
        steps[-1].rules = [None] * 5
        steps.append(steps[-1].copy())
        steps[-1].rules = ['"10.9.0.0","255.255.0.0"', *[None] * 4]
        steps.append(steps[-1].copy())
        steps[-1].white.pop(1, None)
        answered, found = self.run(work())
        fitting = [one for one in steps if one.answers == found]
        assert fitting, found
        assert not answered or steps[-1].answers == found
        self.model = fitting[-1]

    async def read(self) -> dict[str, list[str]]:
        answers = {}
        for line in self.model.answers:
            found = await outcome(self.there, line, Door.TCP)
            assert found.end is End.OK
            answers[line] = [masked(one) for one in found.lines]
        return answers

    @precondition(lambda self: hasattr(self, "lives"))
    @invariant()
    def reads_as_the_model(self) -> None:
        assert self.run(self.read()) == self.model.answers

    @precondition(lambda self: hasattr(self, "lives"))
    @invariant()
    def the_disk_has_what_is_in_force(self) -> None:
        rows = dict(self.lives.disk.rows("SELECT key, value FROM settings"))
        on_disk, errors = stored.from_rows(rows, file_settings(FILE))
        assert errors == ()
        assert on_disk == self.there.daemon.nvm.settings
        words = [one and one.password.reveal() for one in on_disk.tcp.users]
        assert words == [one and one[1] for one in self.model.logins]

    @precondition(lambda self: hasattr(self, "lives"))
    @invariant()
    def the_sms_door_is_as_it_is_set(self) -> None:
        assert (self.there.daemon.sms.state != "off") == bool(self.model.sms_on)


MOST = 30 if os.environ.get("HYPOTHESIS_PROFILE", "fixed") == "fixed" else 400
TestLiving = Living.TestCase
TestLiving.settings = effort(max_examples=MOST, stateful_step_count=20)
