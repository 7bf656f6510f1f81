# SPDX-License-Identifier: Apache-2.0
"""What operators ask of the daemon itself, in one process: what is answered, what is changed, what is recorded."""

import asyncio
import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from atrund import control
from atrund.atrun.request import Door, Request
from atrund.atrun.rules import Hazards
from atrund.atrun.secrets import Secret
from atrund.config.values import FirewallRule, Policy, Sms, SmsCode, Tcp, TcpUser
from atrund.doors.tcp import TcpDoor
from atrund.ledger import history, nvm
from atrund.ledger.history import Entry
from atrund.sms.seal import SealKey, seal
from tests.support.virtual import FRIEND, PASSWORD, STRANGER, House, config, running
from tests.support.waiting import until

pytestmark = pytest.mark.looptime

PEER = "uid 7"
CODED, OPTIONAL = "+393460000001", "+393470000002"
TCP = Tcp(
    enabled=True,
    port=0,
    firewall=(
        FirewallRule(IPv4Address("127.0.0.0"), IPv4Address("255.0.0.0")),
        FirewallRule(IPv6Address("2001:db8::"), IPv6Address("ffff:ffff::")),
    ),
    users=(TcpUser("user", Secret("pl4nted-secret")),),
)


async def told(house: House, request: control.Reading | control.Administering) -> dict[str, Any]:
    answer = await house.daemon.admin.handle(request, PEER)
    assert isinstance(answer, control.DoneAnswer), answer
    json.dumps(answer.told)
    return answer.told


async def refused(house: House, request: control.Reading | control.Administering) -> control.ErrorAnswer:
    answer = await house.daemon.admin.handle(request, PEER)
    assert isinstance(answer, control.ErrorAnswer), answer
    return answer


async def run(house: House, line: str) -> str | None:
    outcome = await house.daemon.runner.start(Request("r", Door.LOCAL, "uid 0", line)).outcome
    assert outcome is not None
    return outcome.final


@pytest.mark.parametrize(
    ("request_", "notes"),
    [
        (control.ExplainRequest("sms", "AT+CSQ", FRIEND), []),
        (control.ExplainRequest("sms", "AT+CSQ", STRANGER), ["this number is not on the white list"]),
        (control.ExplainRequest("sms", "AT+CSQ", "no number"), ["this number is not on the white list"]),
        (control.ExplainRequest("sms", "AT+CSQ", STRANGER, digest=True), []),
        (control.ExplainRequest("sms", "AT+CSQ"), []),
        (control.ExplainRequest("tcp", "AT+CSQ", "127.0.0.1"), []),
        (control.ExplainRequest("tcp", "AT+CSQ", "192.0.2.7"), ["the firewall would not let this address in"]),
        (control.ExplainRequest("tcp", "AT+CSQ", "user"), []),
        (control.ExplainRequest("tcp", peer="2001:db8::1"), []),
        (control.ExplainRequest("mqtt", "AT+CSQ", "fleet"), ["mqtt requests are off"]),
        (
            control.ExplainRequest("mqtt", "AT+CMGS=12"),
            ["mqtt requests are off", "+CMGS asks for data"],
        ),
        (control.ExplainRequest("local", "HAT#SMSATRUN?;+CSQ"), []),
        (control.ExplainRequest("local", "AT#SMSATRUNCFG=3"), ["#SMSATRUNCFG: not while the sms service is on"]),
        (control.ExplainRequest("local", "AT#SMSATRUN=0;#SMSATRUNCFG=3"), []),
        (control.ExplainRequest("local", 'AT"'), []),
    ],
)
async def test_explaining(request_: control.ExplainRequest, notes: list[str]) -> None:
    async with running(config(tcp=TCP)) as house:
        found = (await told(house, request_))["notes"]
        assert [note[: len(words)] for note, words in zip(found, notes, strict=True)] == notes
        assert house.daemon.nvm.settings.sms.enabled
        assert house.outcomes == []
        assert await house.daemon.admin.handle(control.ExportRequest(), PEER) == control.DoneAnswer(
            {"settings": {}, "left_out": []}
        )


SEALED = seal(SealKey(7, bytes(range(32))), "AT#TCPATRUND=1", counter=9, time=1_772_366_400)


@pytest.mark.parametrize(
    ("cmd", "peer", "notes", "refused_by"),
    [
        ("AT+CSQ", CODED, ["this number must put a code behind its commands"], None),
        ("AT+CSQ #123456", CODED, ["whether the code is right"], None),
        ("AT#TCPATRUND=1", CODED, ["this number must put a code behind its commands"], "admin"),
        ("AT#TCPATRUND=1 #123 456", CODED, ["whether the code is right"], None),
        ("AT+CSQ #123456", "00" + CODED[1:], ["this number is not on the white list", "whether the code is"], None),
        ("AT+CSQ", FRIEND, [], None),
        ("AT+CSQ", "no number", ["this number is not on the white list"], None),
        ("AT#TCPATRUND=1 #123456", OPTIONAL, ["whether the code is right"], None),
        ("AT#TCPATRUND=1", OPTIONAL, [], "admin"),
        ("AT+CSQ #123456", FRIEND, [], "line"),
        (SEALED, STRANGER, ["whether the seal is right"], None),
        (SEALED, None, ["whether the seal is right"], None),
    ],
)
async def test_explaining_knows_of_codes_and_seals(
    cmd: str, peer: str | None, notes: list[str], refused_by: str | None
) -> None:
    secret = Secret("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")
    sms = replace(
        config().sms,
        numbers=(FRIEND, CODED, OPTIONAL),
        codes=(SmsCode(CODED, secret, "required"), SmsCode(OPTIONAL, secret, "optional")),
        seal_keys=(Secret("7:" + bytes(range(32)).hex()),),
    )
    async with running(config(sms=sms)) as house:
        found = await told(house, control.ExplainRequest("sms", cmd, peer))
        assert found["rule"] == refused_by
        assert [note[: len(words)] for note, words in zip(found["notes"], notes, strict=False)] == notes
        assert "123" not in found["line"] or refused_by == "line"
        assert SEALED[2:42] not in found["line"]
        assert house.disk.rows("SELECT * FROM counters") == []


async def test_explaining_a_seal_where_there_are_no_keys() -> None:
    async with running() as house:
        notes = (await told(house, control.ExplainRequest("sms", SEALED, FRIEND)))["notes"]
        assert notes[0].startswith("there are no keys of seals")


async def test_explaining_goes_by_the_doors_policy_and_its_asker() -> None:
    policy = Policy()
    policy = replace(policy, local=replace(policy.local, hazards=Hazards.CONFIRM.value), confirm_after=60.0)
    async with running(config(policy=policy, sms=Sms())) as house:
        local = await told(house, control.ExplainRequest("local", "AT+CFUN=4"))
        assert (local["decision"], local["undo"]["after_s"]) == ("to be confirmed", 60.0)
        sms = await told(house, control.ExplainRequest("sms", "AT+CFUN=4", FRIEND))
        assert (sms["decision"], sms["peer"]) == ("refused", FRIEND)
        assert sms["notes"][0].startswith("the sms door is off")
        digest = await told(house, control.ExplainRequest("sms", "AT", FRIEND, digest=True))
        assert digest["notes"][1].startswith("the white list has no password")
        forged = await told(house, control.ExplainRequest("sms", "AT#TCPATRUND=1"))
        assert forged["rule"] == "admin"
        assert forged["peer"] is None


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (control.ExplainRequest("sms"), "without a command line there is only the firewall"),
        (control.ExplainRequest("tcp"), "without a command line there is only the firewall"),
        (control.ExplainRequest("tcp", peer="nobody"), "peer: no IP address"),
        (control.SettingsRequest(("sms", "sms.nothing")), "no such settings"),
        (control.ResetRequest(("smss",)), "nothing was reset"),
        (control.DoorsRequest("close", ("sms", "fax")), "no door was changed"),
        (control.DoorsRequest("close", ("local",)), "no door was changed"),
        (control.ImportRequest({"sms.urc": 1}), "nothing was imported"),
    ],
)
async def test_what_is_refused_changes_nothing(request_: control.Reading, words: str) -> None:
    async with running() as house:
        assert (await refused(house, request_)).message.startswith(words)
        assert house.daemon.admin.closed == []
        assert house.disk.rows("SELECT * FROM settings") == []
        assert house.told == []


async def test_a_door_that_is_not_switched_on_keeps_no_other_open() -> None:
    async with running() as house:
        answer = await told(house, control.DoorsRequest("close", ("sms", "mqtt", "tcp")))
        assert answer["closed"] == ["sms", "tcp"]
        assert answer["notes"] == ["mqtt: it is not switched on in the configuration (mqtt.enabled)"]


async def test_settings_are_shown_with_their_origin_and_masked() -> None:
    async with running(config(tcp=replace(TCP, enabled=False))) as house:
        assert await run(house, 'AT#TCPATRUNAUTH=1,"guest","pl4nted-other"') == "OK"
        answer = await told(house, control.SettingsRequest(("tcp.users", "sms.whitelist")))
        rows = {row.pop("key"): row for row in answer["settings"]}
        assert rows["tcp.users.1"] == {"value": {"name": "user", "password": "****"}, "from": "file"}
        assert rows["tcp.users.2"]["value"] == {"name": "guest", "password": "****"}
        assert (rows["tcp.users.2"]["door"], rows["tcp.users.2"]["hides"]) == ("local", True)
        assert rows["sms.whitelist.2"]["value"] == {"password": "****"}
        assert (answer["locked"], answer["failure"], answer["unusable"]) == (False, "", [])
        assert len((await told(house, control.SettingsRequest()))["settings"]) > 100
        assert "pl4nted" not in str(answer)
        assert PASSWORD not in str(answer)


async def test_what_is_shown_of_all_settings_fits_a_message() -> None:
    async with running() as house:
        for instance in (1, 2, 3):
            request = Request("r", Door.LOCAL, "uid 4294967294", "AT&W0;&W1", instance=instance)
            assert await house.daemon.runner.start(request).outcome is not None
        answer = await house.daemon.admin.handle(control.SettingsRequest(), PEER)
        assert len(control.encode(answer)) < control.LINE_MAX // 2


async def test_an_export_without_secrets_says_what_it_left_out() -> None:
    async with running() as house:
        assert await run(house, 'AT#SMSATWL=0,3,1,"pl4nted-s3cret-1";#SMSATWL=0,4,0,"+39"') == "OK"
        assert await run(house, 'AT#TCPATRUNAUTH=1,"guest","pl4nted"') == "OK"
        plain = await told(house, control.ExportRequest())
        assert plain["settings"] == {"sms.whitelist.4": {"number": "+39"}}
        assert plain["left_out"] == ["sms.whitelist.3", "tcp.users.1"]
        assert "pl4nted" not in str(plain)
        assert ("settings exported with their secrets", None) not in house.told
        whole = await told(house, control.ExportRequest(secrets=True))
        assert whole["settings"]["sms.whitelist.3"] == {"password": "pl4nted-s3cret-1"}
        assert ("settings exported with their secrets", None) in house.told
        assert await told(house, control.ResetRequest(tuple(whole["settings"]))) == {
            "reset": list(whole["settings"]), "failed": ""
        }  # fmt: skip
        assert (await told(house, control.ImportRequest(whole["settings"])))["imported"] == list(whole["settings"])
        assert await told(house, control.ExportRequest(secrets=True)) == whole
        assert "pl4nted" not in str(house.told)


@pytest.mark.parametrize(
    ("settings", "mistakes"),
    [
        (
            {"sms.urc": 1, "x.y": 2, "sms.timeout": 3},
            ["sms.urc: is neither", "x.y: no such", "sms.timeout: is no number"],
        ),
        (
            {"tcp.users.1": {"name": "a", "password": "****"}, "sms.urc": True},
            ["tcp.users.1: its secret is masked; atrunctl nvm export --secrets gives it"],
        ),
        (
            {f"sms.whitelist.{n}": {"password": f"{n}" * 16} for n in (3, 4)},
            ["sms.whitelist.4: a password beyond the 2"],
        ),
        ({"sms.instance": 2}, ["sms.instance: instance 2 would be held by sms and tcp server"]),
        ({"tcp.instance": 3}, ["tcp.instance: instance 3 would be held by sms and tcp server"]),
        ({"tcp.client.enabled": True}, ["tcp.enabled: TCP server and client are both on"]),
    ],
)
async def test_an_import_names_each_mistake_and_changes_nothing(settings: dict[str, Any], mistakes: list[str]) -> None:
    async with running(config(tcp=TCP)) as house:
        before = house.daemon.nvm.settings
        found = (await refused(house, control.ImportRequest(settings))).mistakes
        assert [text[: len(words)] for text, words in zip(found, mistakes, strict=True)] == mistakes
        assert house.daemon.nvm.settings == before
        assert house.disk.rows("SELECT * FROM settings") == []


async def test_what_was_bad_before_is_no_mistake_of_an_import() -> None:
    async with running() as house:
        row = nvm.keep({"sms.urc": "7", "gone.key": "1"}, door="local", peer="", ts="")
        await house.daemon.nvm._ledger.durable(row)
        await house.daemon.nvm.load()
        assert (await told(house, control.ImportRequest({"tcp.urc": False})))["imported"] == ["tcp.urc"]
        shown = await told(house, control.SettingsRequest(("tcp",)))
        assert shown["unusable"] == ["gone.key: no such setting", "sms.urc: is neither true nor false"]
        assert (await told(house, control.ExportRequest()))["settings"] == {"tcp.urc": False}


async def test_what_runs_follows_an_import_and_a_reset() -> None:
    async with running(config(tcp=TCP)) as house:
        first = house.daemon.tcp
        assert first is not None
        await told(house, control.ImportRequest({"tcp.enabled": False, "sms.enabled": False}))
        assert (house.daemon.tcp, house.daemon.sms.state) == (None, "off")
        await told(house, control.ResetRequest(("tcp", "sms")))
        second = house.daemon.tcp
        assert second is not None
        await until(lambda: house.daemon.sms.state == "open")
        free = first.ports[0]
        await told(house, control.ImportRequest({"tcp.port": free}))
        assert house.daemon.tcp is not None
        assert house.daemon.tcp.ports == (free,)
        assert [what for what, _ in house.told if what.startswith("settings")] == [
            "settings imported", "settings reset", "settings imported"
        ]  # fmt: skip


async def test_a_port_that_can_not_be_had_is_said_and_the_setting_stays() -> None:
    async with running(config(tcp=TCP)) as first, running(config(tcp=TCP)) as second:
        assert first.daemon.tcp is not None
        taken = first.daemon.tcp.ports[0]
        answer = await told(second, control.ImportRequest({"tcp.port": taken}))
        assert "in use" in answer["failed"]
        assert (second.daemon.tcp, second.daemon.nvm.settings.tcp.port) == (None, taken)
        opened = await told(second, control.DoorsRequest("open", ("tcp",)))
        assert "in use" in opened["failed"][0]
        await told(second, control.ResetRequest(("tcp.port",)))
        assert second.daemon.tcp is not None


async def test_a_reset_that_leaves_a_clash_is_refused() -> None:
    async with running(config(tcp=replace(TCP, enabled=False, instance=3))) as house:
        assert await run(house, 'AT#TCPATRUNCFG=1,2,1024,1024,"";#TCPATRUNL=1') == "OK"
        said = await refused(house, control.ResetRequest(("tcp.instance",)))
        assert said.message == "nothing was reset: instance 3 would be held by sms and tcp server"
        assert (await told(house, control.ResetRequest(("tcp",))))["reset"]


async def test_many_keys_are_not_all_recorded() -> None:
    async with running() as house:
        keys = [f"tcp.socket.{n}.cid" for n in range(1, 7)] + [f"tcp.socket.{n}.sr_mode" for n in range(1, 7)]
        await told(house, control.ImportRequest(dict.fromkeys(keys, 1)))
        reason = dict(house.told)["settings imported"]
        assert reason is not None
        assert reason.endswith("tcp.socket.4.sr_mode and 2 more")


async def test_locked_settings_are_the_files() -> None:
    async with running(replace(config(), locked=True)) as house:
        for request in (control.ImportRequest({"sms.urc": False}), control.ResetRequest(("sms",))):
            assert "locked = true" in (await refused(house, request)).message
        assert (await told(house, control.SettingsRequest(("sms.urc",))))["locked"] is True
        notes = (await told(house, control.ExplainRequest("local", "AT#SMSATRUN=0")))["notes"]
        assert "locked = true" in notes[0]


async def test_a_disk_that_takes_nothing() -> None:
    async with running() as house:
        assert await run(house, "AT#TCPATCMDSEQ=1") == "OK"
        house.disk.broken = "disk full"
        for request in (control.ImportRequest({"sms.urc": False}), control.ResetRequest(("tcp.sequence",))):
            assert "the settings can't be kept" in (await refused(house, request)).message
        assert house.daemon.nvm.settings.sms.urc
        assert house.daemon.nvm.settings.tcp.sequence
        await house.daemon.nvm.load()
        for unknown in (control.ImportRequest({}), control.ResetRequest(()), control.ExportRequest()):
            assert "disk full" in (await refused(house, unknown)).message  # nothing is known of what was stored
        assert "disk full" in (await told(house, control.SettingsRequest()))["failure"]
        assert (await told(house, control.DoorsRequest("close", ("sms",))))["closed"] == ["sms"]


async def test_a_closed_sms_door_runs_nothing_that_came_meanwhile() -> None:
    async with running() as house:
        assert (await told(house, control.DoorsRequest("close", ("sms",))))["closed"] == ["sms"]
        assert house.daemon.nvm.settings.sms.enabled
        house.sms("AT+CSQ")
        assert await run(house, "AT#SMSATRUN=1") == "OK"  # it is on: there is nothing to start
        assert (await told(house, control.ExplainRequest("sms", "AT")))["notes"][0].startswith("an operator closed")
        assert (await told(house, control.DoorsRequest("open", ("sms",))))["notes"] == []
        await until(lambda: house.daemon.sms.state == "open")
        house.sms("AT+COPS?")
        await until(lambda: house.sent)
        assert [line for line, _, _ in house.outcomes] == ["AT#SMSATRUN=1", "AT+COPS?"]


async def test_a_closed_door_is_not_opened_by_a_setting() -> None:
    async with running(config(sms=Sms(), tcp=TCP)) as house:
        await told(house, control.DoorsRequest("close", ("sms", "tcp")))
        assert house.daemon.tcp is None
        assert (await house.daemon.status())["doors"] == {"closed": ["sms", "tcp"]}
        assert await run(house, "AT#TCPATRUNL=1") != "OK"
        assert await run(house, "AT#SMSATRUN=1") != "OK"
        await told(house, control.ImportRequest({"tcp.urc": False}))
        assert (house.daemon.tcp, house.daemon.sms.state) == (None, "off")
        assert await run(house, "AT#TCPATRUNL=0") == "OK"
        answer = await told(house, control.DoorsRequest("open", ("tcp", "tcp")))
        assert (answer["closed"], answer["failed"]) == (["sms"], [])
        assert answer["notes"][0].startswith("the tcp door is off")
        events = [(what, reason) for what, reason in house.told if what.startswith("door")]
        assert events == [("door closed", "tcp"), ("door closed", "sms"), ("door opened", "tcp")]


async def test_a_disk_that_hangs_holds_up_no_closing() -> None:
    async with running(config(tcp=TCP)) as house:
        house.disk.hung = True
        waiting = [
            asyncio.ensure_future(run(house, "AT#TCPATCMDSEQ=1")),
            asyncio.ensure_future(told(house, control.DoorsRequest("close", ("sms", "tcp")))),
        ]
        await until(lambda: house.daemon.tcp is None and house.daemon.sms.state == "off")
        assert house.daemon.admin.closed == ["sms", "tcp"]
        house.disk.hung = False
        for task in waiting:
            task.cancel()


async def test_a_door_that_is_closed_while_it_opens_does_not_open() -> None:
    async with running(config(tcp=replace(TCP, enabled=False))) as house:
        opening = asyncio.ensure_future(run(house, "AT#TCPATRUNL=1"))
        services = house.daemon.services
        make = services._make_tcp

        def make_and_close() -> TcpDoor:
            services.closed.add(Door.TCP)
            return make()

        services._make_tcp = make_and_close
        assert await opening != "OK"
        assert house.daemon.tcp is None


async def test_the_history_of_sms_is_shown_page_by_page() -> None:
    async with running() as house:
        house.sms("hello", STRANGER)
        house.sms("AT+CSQ")
        await asyncio.sleep(5)
        entries = (await told(house, control.SmsLogRequest()))["entries"]
        assert [(one["peer"], one["verdict"], one["outcome"]) for one in entries] == [
            (FRIEND, "atrun", "ok"),
            (STRANGER, "other", ""),
        ]
        assert house.disk.rows("SELECT rid FROM requests") == [(entries[0]["rid"],)]
        (older,) = (await told(house, control.SmsLogRequest(1, before=entries[0]["n"])))["entries"]
        assert older == entries[1]
        house.disk.broken = "no disk"
        assert (await refused(house, control.SmsLogRequest())).message == "the history can't be read: no disk"
        house.disk.broken = ""


async def test_a_page_of_the_longest_entries_fits_a_line() -> None:
    async with running() as house:
        for n in range(control.LOG_PAGE):
            entry = Entry(str(n) * 64, "2026-03-01T12:00:00.000Z", "+" + "1" * 20, "other", "w" * 150, "2" * 24)
            full = replace(entry, rid="f" * 32, outcome="published", fate="published", text="\u00e9" * 160)
            await house.daemon._ledger.durable(history.note(full))
        answer = await house.daemon.admin.handle(control.SmsLogRequest(), PEER)
        assert isinstance(answer, control.DoneAnswer)
        assert len(answer.told["entries"]) == control.LOG_PAGE  # type: ignore[arg-type]
        assert len(control.encode(answer)) < control.LINE_MAX * 3 // 4
