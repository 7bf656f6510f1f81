# SPDX-License-Identifier: Apache-2.0
"""Random settings, reads and restarts against a simple model: what is read is what was set last (CMD-1 to CMD-4)."""

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from atrund.at.syntax import parse
from atrund.atrun.commands import execute
from atrund.atrun.family.forms import Context
from atrund.atrun.interface import Interface
from atrund.atrun.settings import Settings
from atrund.atrun.stored import from_rows, to_rows

BASE = Settings().changed({"sms.whitelist.8": "+4412345", "tcp.sequence": True, "sms.timeout": 120.0})
"""What the file says."""

flags = st.integers(0, 2)
passwords = st.sampled_from(["1234567890123456", "abcdefghijklmnop", "15878159745713601", "short"])
numbers = st.sampled_from(["+39346123456", "+39*", "123", "*", "+*", "Vodafone"])
networks = st.sampled_from(
    ["217.0.0.0", "10.0.0.0", "1.2.3", "192.168.0.0", "8.8.8.8", "9.9.9.9", "7.7.7.7", "6.6.6.6"]
)
names = st.sampled_from(["anna", "bert", "carl", "dora", ""])


@dataclass
class Model:
    """What a person with pencil and paper would note."""

    sms: tuple[int, int, int] = (3, 1, 2)
    monitor: tuple[int, int] = (1, 5)
    on: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(("sms", "monitor", "server", "client"), False))
    white: list[str] = field(default_factory=lambda: [""] * 7 + ['0,"+4412345"'])
    config: tuple[Any, ...] = (1, 2, 1024, 1024, '""', 1, 5, 0, 0, 2)
    rules: list[str | None] = field(default_factory=lambda: [None] * 5)
    logins: list[str | None] = field(default_factory=lambda: [None] * 3)
    sequence: int = 1
    echo: list[int] = field(default_factory=lambda: [1, 1])
    profiles: list[int] = field(default_factory=lambda: [1, 1])


class Provisioning(RuleBasedStateMachine):
    """Two instances set and read; the rows that were written are all that a restart has."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.rows: dict[str, str] = {}
        self.contexts = [Context(BASE, instance=1), Context(BASE, instance=2)]

    def say(self, line: str, instance: int = 0) -> tuple[list[str], bool]:
        (command,) = parse(line)
        reply = execute(command, self.contexts[instance])
        self.rows |= to_rows(reply.settings, reply.wrote)
        self.contexts = [replace(context, settings=reply.settings) for context in self.contexts]
        self.contexts[instance] = replace(self.contexts[instance], interface=reply.interface)
        return [line.partition(": ")[2] for line in reply.lines], reply.ok

    def told(self, line: str) -> list[str]:
        lines, ok = self.say(line)
        assert ok
        return lines

    @rule(instance=st.integers(0, 4), urc=flags, timeout=st.sampled_from([0, 1, 60, 61]))
    def configure_sms(self, instance: int, urc: int, timeout: int) -> None:
        _, ok = self.say(f"AT#SMSATRUNCFG={instance},{urc},{timeout}")
        free = not self.model.on["sms"] and not self.model.on["monitor"]
        assert ok == (free and 1 <= instance <= 3 and urc < 2 and 1 <= timeout <= 60)
        if ok:
            self.model.sms = (instance, urc, timeout)

    @rule(instance=st.integers(0, 4), urc=flags, timeout=st.integers(0, 6))
    def configure_monitor(self, instance: int, urc: int, timeout: int) -> None:
        _, ok = self.say(f"AT#ENAEVMONICFG={instance},{urc},{timeout}")
        free = not self.model.on["sms"] and not self.model.on["monitor"]
        assert ok == (free and 1 <= instance <= 3 and urc < 2 and 1 <= timeout <= 5)
        if ok:
            self.model.sms = (instance, *self.model.sms[1:])
            self.model.monitor = (urc, timeout)

    @rule(service=st.sampled_from(["sms", "monitor", "server", "client"]), mod=flags, by=st.integers(0, 1))
    def switch(self, service: str, mod: int, by: int) -> None:
        command = {"sms": "#SMSATRUN", "monitor": "#ENAEVMONI", "server": "#TCPATRUNL", "client": "#TCPATRUND"}[service]
        _, ok = self.say(f"AT{command}={mod}", by)
        on = self.model.on
        same = self.model.sms[0] == self.model.config[1]
        if service in {"sms", "monitor"}:
            free = not (same and (on["server"] or on["client"]))
        else:
            free = not (same and (on["sms"] or on["monitor"])) and not on["client" if service == "server" else "server"]
        assert ok == (mod == 0 or (mod == 1 and free))
        if ok:
            on[service] = mod == 1

    @rule(slot=st.integers(0, 9), number=numbers)
    def white_list_number(self, slot: int, number: str) -> None:
        _, ok = self.say(f'AT#SMSATWL=0,{slot},0,"{number}"')
        assert ok == (1 <= slot <= 8 and any(map(str.isdigit, number)))
        if ok:
            self.model.white[slot - 1] = f'0,"{number}"'

    @rule(slot=st.integers(1, 8), password=passwords)
    def white_list_password(self, slot: int, password: str) -> None:
        _, ok = self.say(f'AT#SMSATWL=0,{slot},1,"{password}"')
        others = [entry for at, entry in enumerate(self.model.white, 1) if at != slot and entry.startswith("1")]
        assert ok == (len(password) == 16 and len(others) < 2)
        if ok:
            self.model.white[slot - 1] = f'1,"{"*" * 16}"'

    @rule(slot=st.integers(1, 8))
    def delete_from_white_list(self, slot: int) -> None:
        assert self.say(f"AT#SMSATWL=1,{slot}")[1]
        self.model.white[slot - 1] = ""

    @rule(instance=st.integers(1, 3), port=st.sampled_from([0, 1, 65535]), retries=st.integers(0, 6))
    def configure_tcp(self, instance: int, port: int, retries: int) -> None:
        _, ok = self.say(f'AT#TCPATRUNCFG=2,{instance},{port},7,"example.org",0,1,1,{retries},9')
        assert ok == (not self.model.on["server"] and not self.model.on["client"] and port > 0 and retries < 6)
        if ok:
            self.model.config = (2, instance, port, 7, '"example.org"', 0, 1, 1, retries, 9)

    @rule(network=networks, action=st.integers(0, 1))
    def change_firewall(self, network: str, action: int) -> None:
        _, ok = self.say(f'AT#TCPATRUNFRWL={action},"{network}","255.0.0.0"')
        rule_ = f'"{network}","255.0.0.0"'
        rules = self.model.rules
        wanted = rule_ if rule_ in rules or action == 0 else None
        assert ok == (network.count(".") == 3 and wanted in rules)
        if ok:
            rules[rules.index(wanted)] = rule_ if action else None

    @rule(name=names, action=st.integers(0, 1))
    def change_logins(self, name: str, action: int) -> None:
        _, ok = self.say(f'AT#TCPATRUNAUTH={action},"{name}","secret"')
        logins = self.model.logins
        wanted = name if name in logins or action == 0 else None
        assert ok == (bool(name) and wanted in logins)
        if ok:
            logins[logins.index(wanted)] = name if action else None

    @rule(which=st.sampled_from(["#TCPATRUNFRWL", "#TCPATRUNAUTH"]))
    def remove_all(self, which: str) -> None:
        assert self.say(f"AT{which}=2")[1]
        if which == "#TCPATRUNFRWL":
            self.model.rules = [None] * 5
        else:
            self.model.logins = [None] * 3

    @rule(mod=flags)
    def change_sequence(self, mod: int) -> None:
        _, ok = self.say(f"AT#TCPATCMDSEQ={mod}")
        assert ok == (mod < 2)
        if ok:
            self.model.sequence = mod

    @rule(instance=st.integers(0, 1), what=st.sampled_from(["E0", "E1", "E2", "&W", "Z", "&F"]))
    def change_an_instance(self, instance: int, what: str) -> None:
        _, ok = self.say(f"AT{what}", instance)
        echo, profiles = self.model.echo, self.model.profiles
        assert ok == (what != "E2")
        if what == "&W":
            profiles[instance] = echo[instance]
        elif ok:
            echo[instance] = {"E0": 0, "E1": 1, "Z": profiles[instance], "&F": 1}[what]

    @precondition(lambda self: self.rows)
    @rule()
    def restart(self) -> None:
        settings, errors = from_rows(self.rows, BASE)
        assert errors == ()
        self.contexts = [Context(settings, settings.instance[n].at_start, instance=n + 1) for n in range(2)]
        self.model.echo = list(self.model.profiles)

    @invariant()
    def what_is_read_is_what_was_set(self) -> None:
        model = self.model
        assert self.told("AT#SMSATRUNCFG?") == [",".join(map(str, model.sms))]
        assert self.told("AT#ENAEVMONICFG?") == [",".join(map(str, (model.sms[0], *model.monitor)))]
        assert self.told("AT#SMSATRUN?") == [str(int(model.on["sms"]))]
        assert self.told("AT#ENAEVMONI?") == [f"{int(model.on['monitor'])},0"]
        assert self.told("AT#TCPATRUNL?") == [f"{int(model.on['server'])},0"]
        assert self.told("AT#TCPATRUND?") == [f"{int(model.on['client'])},0"]
        assert self.told("AT#SMSATWL?") == model.white
        assert self.told("AT#TCPATRUNCFG?") == [",".join(map(str, model.config))]
        assert self.told("AT#TCPATRUNFRWL?") == [one for one in model.rules if one]
        assert self.told("AT#TCPATRUNAUTH?") == [f'"{one}","****"' for one in model.logins if one]
        assert self.told("AT#TCPATCMDSEQ?") == [str(model.sequence)]
        assert [context.interface.value("E") for context in self.contexts] == model.echo
        assert self.contexts[1].interface in {0: [Interface().with_values("E", (0,))], 1: [Interface()]}[model.echo[1]]


TestProvisioning = Provisioning.TestCase
TestProvisioning.settings = hypothesis_settings(max_examples=60, stateful_step_count=40)
