# SPDX-License-Identifier: Apache-2.0
"""The audit as the control socket tells it, and what is done for its chain while the daemon runs."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from atrund import control
from atrund.auditing import SHOWN_MAX
from atrund.config.values import Log
from atrund.ledger import audit, chain
from atrund.metrics import Metrics
from atrund.upkeep import Upkeep
from tests.support import contract
from tests.support.virtual import FRIEND, AtOnce, House, config, running

pytestmark = pytest.mark.looptime

PEER = "uid 1000"
CHAINED = replace(config(), log=Log(audit_chain=True))


async def asked(house: House, request: control.AuditRequest | control.AuditVerifyRequest) -> dict[str, object]:
    answer = await house.daemon.admin.handle(request, PEER)
    assert isinstance(answer, control.DoneAnswer), answer
    return answer.told


async def rows(house: House, request: control.AuditRequest) -> list[dict[str, object]]:
    entries = (await asked(house, request))["entries"]
    assert isinstance(entries, list)
    return entries


async def test_rows_are_told_page_by_page() -> None:
    async with running() as house:
        house.sms("AT+CSQ")
        house.sms("AT+CFUN=4")
        await asyncio.sleep(5)
        assert len(await rows(house, control.AuditRequest(door="sms", peer=FRIEND))) == 2
        (older,) = await rows(house, control.AuditRequest(door="sms", event="ok"))
        (newest,) = await rows(house, control.AuditRequest(door="sms", event="rejected"))
        assert (newest["event"], newest["reason"], newest["line"]) == ("rejected", "policy", "AT+CFUN=4")
        assert (older["event"], older["reason"], older["line"]) == ("ok", None, "AT+CSQ")
        house.sms("AT+CSQ")
        await asyncio.sleep(5)
        (newest, _) = await rows(house, control.AuditRequest(door="sms", event="ok"))
        first = await asked(house, control.AuditRequest(1, door="sms", event="ok"))
        assert (first["entries"], first["more"]) == ([newest], True)
        n = newest["n"]
        assert isinstance(n, int)
        last = await asked(house, control.AuditRequest(1, before=n, door="sms", event="ok"))
        assert (last["entries"], last["more"]) == ([older], True)
        n = older["n"]
        assert isinstance(n, int)
        last = await asked(house, control.AuditRequest(1, before=n, door="sms", event="ok"))
        assert (last["entries"], last["more"]) == ([], False)
        house.disk.broken = "no disk"
        answer = await house.daemon.admin.handle(control.AuditRequest(), PEER)
        assert answer == control.ErrorAnswer("the audit can't be read: no disk")
        answer = await house.daemon.admin.handle(control.AuditVerifyRequest(), PEER)
        assert answer == control.ErrorAnswer("the audit can't be read: no disk")
        house.disk.broken = ""


async def test_long_rows_make_short_pages_and_are_cut() -> None:
    async with running() as house:
        for number in range(20):
            note = audit.note(ts="", rid=str(number), door="tcp", peer="", line="é" * 60_000, event="rejected")
            await house.daemon._ledger.durable(note)
        found, before = [], 0
        while True:
            answer = await house.daemon.admin.handle(control.AuditRequest(before=before, event="rejected"), PEER)
            assert isinstance(answer, control.DoneAnswer)
            assert len(control.encode(answer)) < control.LINE_MAX
            page = answer.told["entries"]
            assert isinstance(page, list)
            found += [one["rid"] for one in page]
            if not answer.told["more"]:
                break
            before = page[-1]["n"]
            assert page[0]["line"] == "é" * SHOWN_MAX + "…"
        assert found == [str(number) for number in range(19, -1, -1)]


async def test_without_the_option_nothing_is_chained() -> None:
    async with running() as house:
        house.sms("AT+CSQ")
        await asyncio.sleep(5)
        told = await asked(house, control.AuditVerifyRequest())
        assert (told["on"], told["chained"], told["head"]) == (False, 0, "")


async def test_the_chain_begins_with_the_row_that_says_so_and_its_head_is_logged_every_hour() -> None:
    with capture_logs() as logs:
        async with running(CHAINED) as house:
            await asyncio.sleep(1)
            told = await asked(house, control.AuditVerifyRequest(1))
            assert (told["on"], told["chained"], told["faults"]) == (True, told["rows"], 0)
            assert [row["event"] for row in await rows(house, control.AuditRequest())][-1] == "audit chain begun"
            house.sms("AT+CSQ")
            await asyncio.sleep(3700)
            head = (await asked(house, control.AuditVerifyRequest()))["head"]
    heads = [entry["head"] for entry in logs if entry["event"] == "audit head"]
    assert len(heads) == 2, "nothing came in between two looks, nothing is said"
    assert heads[-1] == head


async def test_a_chain_that_is_switched_off_ends_with_the_row_that_says_so(tmp_path: Path) -> None:
    async with running(CHAINED, disk=AtOnce(tmp_path / "ledger.db")):
        await asyncio.sleep(1)
    async with running(config(), disk=AtOnce(tmp_path / "ledger.db")) as house:
        await asyncio.sleep(1)
        house.sms("AT+CSQ")
        await asyncio.sleep(5)
        told = await asked(house, control.AuditVerifyRequest())
        assert (told["on"], told["chained"], told["faults"]) == (False, 2, 0)
        ended, begun = await rows(house, control.AuditRequest(event="audit chain"))
        assert (begun["event"], ended["event"]) == ("audit chain begun", "audit chain ended")
        assert told["last"] == ended["n"]


async def test_a_disk_that_takes_nothing_is_said_where_a_chain_is_wanted() -> None:
    async with running() as house:
        house.disk.broken = "no disk"
        for wanted in (True, False):
            with capture_logs() as logs:
                await Upkeep(house.daemon._ledger, house.daemon._mirror, lying=lambda: None, chain=wanted).begin()
            expected = {"event": "audit not chained", "detail": "no disk", "log_level": "error"}
            assert logs == ([expected] if wanted else [])
        house.disk.broken = ""


async def test_metrics_carry_the_head() -> None:
    for given in (CHAINED, config()):
        async with running(given) as house:
            await asyncio.sleep(1)
            daemon = house.daemon
            metrics = Metrics(daemon.runner, daemon.modem, daemon.services, daemon._ledger)
            payload = await metrics.record(daemon._mirror.stamp(), connects=1)
            contract.check("metrics", json.dumps(payload).encode())
            head = (await asked(house, control.AuditVerifyRequest()))["head"]
            assert payload.get("audit_head", "") == head
            assert bool(head) is given.log.audit_chain


async def test_the_check_gives_way_between_two_lots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "LOT", 2)
    async with running(CHAINED) as house:
        await asyncio.sleep(1)
        for _ in range(5):
            await house.daemon._ledger.durable(
                audit.note(ts="", rid="", door="tcp", peer="", line="", event="connected")
            )
        told = await asked(house, control.AuditVerifyRequest())
        assert (told["chained"], told["faults"]) == (6, 0)
