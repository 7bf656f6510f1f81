# SPDX-License-Identifier: Apache-2.0
"""What becomes of other people's messages, in virtual time with the simulated module in process (MOD-5)."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from atrund.config.values import Config
from atrund.doors import room
from atrund.ledger import history
from atrund.ledger.history import Entry
from atrund.mirror import Mirror
from atrund.sim.faults import Plant
from atrund.sim.state import Options
from atrund.sim.store import Message, Status
from atrund.sms.digest import build_request
from atrund.sms.pdu import Address, Concatenation, Element, Timestamp, UserData
from atrund.sms.report import StatusReport
from tests.support.lives import Lives
from tests.support.marked import until
from tests.support.virtual import BEGIN, FRIEND, PASSWORD, STRANGER, House, config, deliver

pytestmark = pytest.mark.looptime

SLOTS = 6
BASE = "atrund/node/"
STEPS = 16
"""More than the jobs for the disk and the writes to the module from a message to its deletion."""


class Publishing(Mirror):
    """As if there were a broker, which takes nothing."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - those of any mirror
        super().__init__(**{**options, "base": BASE})


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atrund.daemon.Mirror", Publishing)


def rules(**fields: object) -> Config:
    given = config()
    return replace(given, sms=replace(given.sms, **fields))  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def living(
    given: Config | None = None, *, slots: int = SLOTS, me_slots: int = 100
) -> AsyncIterator[tuple[Lives, House]]:
    lives = Lives(given, Options(sm_slots=slots, me_slots=me_slots))
    yield lives, await lives.start()
    await lives.end()


def put(lives: Lives, text: str, *, hours: float = 0.0, read: bool = True, memory: str = "SM") -> None:
    """Lay a message of so many hours ago into a memory, announced to nobody."""
    pdu = deliver(text, STRANGER, at=BEGIN, age=3600 * hours).encode()
    put_raw(lives, pdu, read=read, memory=memory)


def put_raw(lives: Lives, pdu: bytes, *, read: bool = True, memory: str = "SM") -> None:
    status = Status.REC_READ if read else Status.REC_UNREAD
    assert lives.module.store.add(memory, Message(status, pdu)) is not None


def known(lives: Lives) -> list[Entry]:
    """The history, the oldest first."""
    return history.entries(9999)(lives.disk.store.connection)[::-1]


def moved(lives: Lives) -> list[str | None]:
    return [entry.text for entry in known(lives) if entry.fate in {"moved", "published"}]


def lying(lives: Lives, memory: str = "SM") -> int:
    return lives.module.store.used(memory)


def published(lives: Lives) -> list[dict[str, Any]]:
    rows = lives.disk.rows("SELECT payload, response FROM outbox WHERE topic = ?", BASE + "sms/received")
    assert all(response == 1 for _, response in rows), "it would be dropped for room"
    return [json.loads(payload) for payload, _ in rows]


def warnings(house: House) -> list[str | None]:
    return [reason for what, reason in house.told if what.startswith("sms store")]


def deletions(lives: Lives) -> int:
    return lives.wire.wrote(b"AT+CMGD=")


# Kept, and moved when room is short


async def test_other_people_s_messages_are_kept_while_there_is_room() -> None:
    async with living() as (lives, house):
        for number in range(SLOTS - room_for()):
            house.sms(f"hello {number}", STRANGER)
        await asyncio.sleep(600)
        assert (lying(lives), deletions(lives), moved(lives)) == (SLOTS - room_for(), 0, [])
        assert [(one.verdict, one.fate, one.text) for one in known(lives)] == [("other", "", None)] * 3
        assert warnings(house) == []
        assert house.daemon.sms.room["store"] == {
            "SM": {"used": 3, "total": SLOTS},
            "ME": {"used": 0, "total": 100},
        }


def room_for() -> int:
    """How many places are free at least while all is well."""
    return 3


async def test_with_two_places_left_the_oldest_read_one_is_moved_then_the_oldest() -> None:
    async with living() as (lives, _):
        put(lives, "unread, oldest", hours=9, read=False)
        put(lives, "read, newer", hours=2)
        put(lives, "read, older", hours=5)
        await asyncio.sleep(70)
        assert moved(lives) == []
        put(lives, "one more", hours=1)
        await asyncio.sleep(70)
        assert (lying(lives), moved(lives)) == (3, ["read, older"])
        for number in range(2):
            put(lives, f"unread {number}", read=False)
        await asyncio.sleep(70)
        assert (lying(lives), moved(lives)) == (3, ["read, older", "read, newer", "one more"])
        put(lives, "yet one", hours=7, read=False)
        await asyncio.sleep(70)
        assert (lying(lives), moved(lives)[3:]) == (3, ["unread, oldest"])
        assert (known(lives)[-1].peer, known(lives)[-1].why) == (STRANGER, "comes from no number of the white list")


async def test_a_burst_is_met_before_the_next_regular_look() -> None:
    async with living() as (lives, house):
        for number in range(12):
            house.sms(f"hello {number}", STRANGER, age=60 - number)
            await asyncio.sleep(2)
        assert (lying(lives), lives.module.network.held) == (3, 0)
        assert moved(lives) == [f"hello {number}" for number in range(9)]


async def test_a_full_store_is_met_and_what_waited_outside_comes_in() -> None:
    lives = Lives(options=Options(sm_slots=SLOTS))
    for number in range(SLOTS):
        put(lives, f"old {number}", hours=9 - number)
    lives.module.network.deliver(deliver("AT+CSQ", FRIEND).encode())
    house = await lives.start()
    await asyncio.sleep(30)
    assert [(line, end) for line, end, _ in house.outcomes] == [("AT+CSQ", "ok")]
    assert moved(lives) == ["old 0", "old 1", "old 2"]
    assert [one.verdict for one in known(lives) if one.text] == ["seen"] * 3
    assert (lying(lives), warnings(house)) == (3, [])
    await lives.end()


async def test_each_memory_has_its_own_room() -> None:
    async with living(me_slots=4) as (lives, house):
        for number in range(3):
            put(lives, f"in ME {number}", hours=number, memory="ME")
        put(lives, "in SM")
        await asyncio.sleep(3700)
        assert (moved(lives), lying(lives), lying(lives, "ME")) == (["in ME 2", "in ME 1"], 1, 1)
        assert warnings(house) == []


async def test_a_command_under_way_is_never_moved() -> None:
    async with living() as (lives, house):
        lives.module.faults.plant("+CMGS", Plant(left=None, final="+CMS ERROR: 331"))
        for number in range(2):
            house.sms(f"AT#GPIO={number},2")
        put(lives, "hello", hours=1)
        put(lives, "hello again")
        await asyncio.sleep(70)
        assert (moved(lives), lying(lives)) == ([], 4)
        await asyncio.sleep(150)
        assert (moved(lives), lying(lives)) == (["hello"], 3), "nobody waits for an answer for ever"
        lives.module.faults.clear()
        await asyncio.sleep(1200)
        assert (len(house.sent), lying(lives), warnings(house)) == (2, 1, [])


async def test_what_commands_are_about_to_free_is_waited_for() -> None:
    async with living() as (lives, house):
        put(lives, "hello")
        put(lives, "hello again")
        for number in range(3):
            house.sms(f"AT#GPIO={number},2")
        await asyncio.sleep(50)
        assert (moved(lives), lying(lives), len(house.sent)) == ([], 2, 3)


async def test_what_can_t_be_read_goes_first_and_is_kept_as_it_is() -> None:
    async with living() as (lives, _):
        put_raw(lives, b"\x00\x04\x05garbage")
        for number in range(3):
            put(lives, f"hello {number}", hours=number)
        await asyncio.sleep(70)
        (entry,) = [entry for entry in known(lives) if entry.fate]
        assert (entry.verdict, entry.fate, entry.text, entry.raw) == (
            "unreadable",
            "moved",
            None,
            b"\x00\x04\x05garbage",
        )
        assert lying(lives) == 3


async def test_pol_3_a_digest_is_not_kept_in_clear() -> None:
    async with living() as (lives, _):
        digest = build_request("another password", b"AT+CPIN=1234")
        put_raw(lives, deliver("", STRANGER, dcs=4, data=digest).encode())
        for number in range(3):
            put(lives, f"hello {number}", hours=-number)
        await asyncio.sleep(70)
        (entry,) = [entry for entry in known(lives) if entry.fate]
        assert (entry.why, entry.text, entry.raw) == ("has a digest of no password here", None, None)
        dump = "\n".join(lives.disk.store.connection.iterdump())
        assert (digest[6:30].decode() in dump, digest.hex().upper() in dump) == (False, False)


async def test_reports_that_nobody_waits_for_block_nothing() -> None:
    async with living() as (lives, house):
        stamp = Timestamp.of(BEGIN - timedelta(hours=1))
        for reference in range(4):
            report = StatusReport(reference, Address.parse(STRANGER), stamp, stamp, 0x46)
            put_raw(lives, report.encode())
        await asyncio.sleep(70)
        assert lying(lives) == 3
        assert {(one.verdict, one.peer, one.why) for one in known(lives)} == {
            ("report", STRANGER, "the validity period is over")
        }
        assert [one.fate for one in known(lives)] == ["", "", "", "deleted"]
        house.sms("AT+CSQ")
        await asyncio.sleep(5)
        assert len(house.sent) == 1


async def test_an_answer_for_which_the_store_is_full_makes_room_wherever_it_is_short() -> None:
    """SMS-12: +CMS ERROR 320 to 322."""
    async with living(me_slots=3) as (lives, house):
        for number in range(3):
            put(lives, f"in ME {number}", hours=number, memory="ME")
        lives.module.faults.plant("+CMGS", Plant(left=1, final="+CMS ERROR: 322"))
        house.sms("AT+CSQ")
        await asyncio.sleep(10)
        assert (len(house.sent), len(moved(lives))) == (1, 3)


async def test_where_the_module_does_not_tell_how_full_it_is_one_gives_way_when_it_says_that_it_is() -> None:
    async with living() as (lives, house):
        lives.module.faults.plant("+CPMS", Plant(left=None, final="OK"))
        for number in range(SLOTS - 1):
            put(lives, f"hello {number}", hours=-number)
        await asyncio.sleep(130)
        assert (moved(lives), house.daemon.sms.room) == ([], {"store": {"ME": {"used": 0, "total": 100}}, "short": []})
        lives.module.faults.plant("+CMGS", Plant(left=1, final="+CMS ERROR: 322"))
        house.sms("AT+CSQ")
        await asyncio.sleep(70)
        assert (moved(lives), len(house.sent), lying(lives)) == (["hello 0"], 1, SLOTS - 2)


async def test_a_message_that_no_code_of_ours_can_read_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise RuntimeError("planted")

    async with living(rules(others="delete")) as (lives, house):
        monkeypatch.setattr("atrund.atrun.others.tell", fail)
        house.sms("hello", STRANGER)
        house.sms("AT+CSQ")
        await asyncio.sleep(5)
        assert (len(house.sent), lying(lives)) == (1, 0)
        assert known(lives)[0].verdict == "unreadable"


# What can't be done


async def test_without_room_being_made_one_warning_comes_before_reception_stops() -> None:
    with capture_logs() as logs:
        async with living(rules(make_room="never")) as (lives, house):
            for number in range(4):
                house.sms(f"hello {number}", STRANGER)
            await asyncio.sleep(300)
            assert warnings(house) == ['SM: 4 of 6 used; sms.make_room is "never"']
            for number in range(3):
                house.sms(f"hello again {number}", STRANGER)
            await asyncio.sleep(600)
            assert (lying(lives), deletions(lives), lives.module.network.held) == (SLOTS, 0, 1)
            assert warnings(house)[1:] == ['SM: 6 of 6 used; sms.make_room is "never"']
            assert house.daemon.sms.room["short"] == ["SM"]
            assert (await house.daemon.status())["sms"]["short"] == ["SM"]  # type: ignore[index]
            for index in range(1, 5):
                lives.module.store.delete("SM", index)
            await asyncio.sleep(70)
            assert house.daemon.sms.room["short"] == []
    said = [entry["event"] for entry in logs if entry["event"].startswith("sms store")]
    assert said.count("sms store nearly full") == 1
    assert said[-1] == "sms store has room again"


async def test_a_store_full_of_what_nothing_can_be_done_with_is_said_once_and_no_loop() -> None:
    """Drafts of somebody else are none of what is moved."""
    async with living() as (lives, house):
        for number in range(SLOTS):
            draft = Message(Status.STO_UNSENT, deliver(f"draft {number}", STRANGER).encode())
            lives.module.store.add("SM", draft)
        await asyncio.sleep(70)
        assert warnings(house) == ["SM: 6 of 6 used; 0 of 3 messages could be moved"]
        before = lives.wire.commands
        await asyncio.sleep(3600)
        assert lives.wire.commands - before < 60 * 6, (
            "two lines are a look, and four are how the module is looked after"
        )
        assert (len(warnings(house)), deletions(lives)) == (1, 0)


async def test_messages_that_can_t_be_deleted_are_moved_once_and_cause_no_loop() -> None:
    async with living() as (lives, house):
        lives.module.faults.plant("+CMGD", Plant(left=None, final="+CMS ERROR: 500"))
        for number in range(SLOTS):
            put(lives, f"hello {number}", hours=9 - number)
        await asyncio.sleep(7200)
        assert moved(lives) == [f"hello {number}" for number in range(SLOTS)]
        assert lying(lives) == SLOTS
        assert deletions(lives) <= SLOTS * 8
        assert len(warnings(house)) == 1
        lives.module.faults.clear()
        await asyncio.sleep(3700)
        assert (lying(lives), len(known(lives))) == (0, SLOTS)


async def test_nothing_is_deleted_that_the_ledger_did_not_take() -> None:
    with capture_logs() as logs:
        async with living() as (lives, house):
            lives.disk.broken = "no space left on device"
            for number in range(SLOTS):
                put(lives, f"hello {number}", hours=9 - number)
            await asyncio.sleep(300)
            assert (lying(lives), deletions(lives)) == (SLOTS, 0)
            lives.disk.broken = ""
            await asyncio.sleep(70)
            assert (lying(lives), moved(lives)) == (3, ["hello 0", "hello 1", "hello 2"])
            assert house.daemon.sms.room["store"]["SM"]["used"] <= SLOTS  # type: ignore[index]
    failed = [entry for entry in logs if entry["event"] == "sms not moved: it can't be recorded"]
    assert [entry["detail"] for entry in failed] == ["no space left on device"]


async def test_another_message_in_its_place_is_not_deleted() -> None:
    """SMS-11: an index may have been reused."""
    async with living() as (lives, _):
        for number in range(4):
            put(lives, f"hello {number}", hours=9 - number)

        def exchange(data: bytes) -> bytes:
            if data.startswith(b"AT+CMGR=1") and moved(lives):
                lives.module.store.delete("SM", 1)
                put(lives, "somebody else's, new")
                lives.wire.on_write = lambda data: data
            return data

        lives.wire.on_write = exchange
        await asyncio.sleep(70)
        texts = [deliver("somebody else's, new", STRANGER, at=BEGIN).encode()]
        assert lives.module.store.messages("SM")[0][1].pdu in texts
        assert "hello 0" in moved(lives)


# Published, deleted


@pytest.mark.usefixtures("broker")
async def test_what_is_published_is_deleted_and_masked() -> None:
    async with living(rules(others="publish")) as (lives, house):
        house.sms("call +393339876543\nsoon", STRANGER, age=60)
        house.sms("your code is 123456", "Bank")
        house.sms("AT+CSQ")
        await asyncio.sleep(5)
        assert (lying(lives), len(house.sent)) == (0, 1)
        first, second = published(lives)
        assert first["peer"] == "+********4567"
        assert (first["text"], first["raw_b64"], first["part"]) == ("call +********6543\\x0asoon", None, None)
        assert (first["sent"], first["withheld"]) == ("2026-03-01T11:59:00.000Z", False)
        assert (second["peer"], second["text"]) == ("Bank", "your code is 123456")
        assert moved(lives)[0] == "call +393339876543\nsoon"
        assert [(one.verdict, one.fate, one.outcome) for one in known(lives)] == [
            ("other", "published", ""),
            ("other", "published", ""),
            ("atrun", "", "ok"),
        ]


@pytest.mark.usefixtures("broker")
async def test_what_lies_there_twice_is_published_once() -> None:
    lives = Lives(rules(others="publish"), Options(sm_slots=SLOTS))
    for hours, text in enumerate(("new", "newer", "old")):
        put(lives, text, hours=hours)
    for _ in range(2):
        put(lives, "twice", hours=9)
    await lives.start()
    await asyncio.sleep(5)
    for _ in range(2):
        lives.module.network.deliver(deliver("hello", STRANGER, at=BEGIN).encode())
    await asyncio.sleep(300)
    assert [one["text"] for one in published(lives)] == ["twice", "hello"]
    assert lying(lives) == 3
    await lives.end()


@pytest.mark.usefixtures("broker")
async def test_numbers_are_published_in_full_where_that_is_configured() -> None:
    given = rules(others="publish")
    async with living(replace(given, privacy=replace(given.privacy, numbers="full"))) as (lives, house):
        house.sms("call +393339876543", STRANGER)
        await asyncio.sleep(5)
        assert [(one["peer"], one["text"]) for one in published(lives)] == [(STRANGER, "call +393339876543")]


@pytest.mark.usefixtures("broker")
async def test_a_part_of_a_longer_message_waits_for_no_other() -> None:
    async with living(rules(others="publish")) as (lives, house):
        for index in (3, 1):
            header = (Element.concatenated(Concatenation(17, 3, index)),)
            message = deliver("", STRANGER)
            data = UserData.from_text(f"part {index}", message.dcs, header)
            lives.module.network.deliver(replace(message, user_data=data).encode())
        house.sms("AT+CSQ")
        await asyncio.sleep(5)
        assert (lying(lives), len(house.sent)) == (0, 1)
        assert [(one["text"], one["part"]) for one in published(lives)] == [
            ("part 3", {"reference": 17, "total": 3, "index": 3}),
            ("part 1", {"reference": 17, "total": 3, "index": 1}),
        ]


@pytest.mark.usefixtures("broker")
async def test_pol_3_a_digest_is_never_published() -> None:
    async with living(rules(others="publish")) as (lives, _):
        digest = build_request("another password", b"AT")
        lives.module.network.deliver(deliver("", STRANGER, dcs=4, data=digest).encode())
        await asyncio.sleep(5)
        (record,) = published(lives)
        assert (record["text"], record["raw_b64"], record["withheld"]) == (None, None, True)
        assert lying(lives) == 0


@pytest.mark.usefixtures("broker")
async def test_what_is_shown_directly_is_published_too() -> None:
    async with living(rules(others="publish")) as (lives, _):
        pdu = deliver("hello", STRANGER).encode()
        lives.wire.say(f"\r\n+CMT: ,{len(pdu) - 8}\r\n{pdu.hex().upper()}\r\n".encode())
        await asyncio.sleep(5)
        assert [one["text"] for one in published(lives)] == ["hello"]
        assert deletions(lives) == 0


async def test_what_is_shown_directly_and_kept_is_kept_by_the_ledger_for_it_lies_nowhere_else() -> None:
    """Such as a message of class 0; one that lies in a store all the same stays there."""
    async with living() as (lives, house):
        pdu = deliver("hello", STRANGER).encode()
        lives.wire.say(f"\r\n+CMT: ,{len(pdu) - 8}\r\n{pdu.hex().upper()}\r\n".encode())
        put_raw(lives, pdu)
        house.sms("kept where it lies", STRANGER)
        await asyncio.sleep(70)
        assert [(one.text, one.fate) for one in known(lives)] == [("hello", "moved"), (None, "")]
        assert (lying(lives), deletions(lives)) == (2, 0)


@pytest.mark.usefixtures("broker")
async def test_room_is_made_by_publishing_what_lay_there_before() -> None:
    lives = Lives(rules(others="publish"), Options(sm_slots=SLOTS))
    for number in range(4):
        put(lives, f"old {number}", hours=9 - number)
    await lives.start()
    await asyncio.sleep(70)
    assert [one["text"] for one in published(lives)] == ["old 0"]
    assert lying(lives) == 3
    await lives.end()


async def test_what_is_deleted_at_once_leaves_no_text() -> None:
    async with living(rules(others="delete")) as (lives, house):
        house.sms("hello", STRANGER)
        house.sms("AT+CSQ")
        await asyncio.sleep(5)
        assert (lying(lives), len(house.sent)) == (0, 1)
        (entry, _) = known(lives)
        assert (entry.peer, entry.verdict, entry.fate, entry.text) == (STRANGER, "other", "deleted", None)
        assert "hello" not in "\n".join(lives.disk.store.connection.iterdump())


async def test_what_was_kept_is_put_away_when_the_rules_change() -> None:
    async with living() as (lives, _):
        lives.module.network.deliver(deliver("hello", STRANGER).encode())
        await asyncio.sleep(5)
        await lives.kill()
        await lives.start(rules(others="delete"))
        await asyncio.sleep(5)
        assert (lying(lives), [one.fate for one in known(lives)]) == (0, ["deleted"])


# A death at any step


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize("step", range(STEPS))
async def test_killed_at_any_step_a_message_is_published_once_and_lost_never(step: int) -> None:
    """MQ-4: what is in the outbox is there once; it is in the store or in the ledger at every moment."""
    async with living(rules(others="publish")) as (lives, house):
        lives.kill_at(step)
        house.sms("hello", STRANGER)
        await asyncio.sleep(20)
        assert lying(lives) == 1 or moved(lives) == ["hello"]
        await lives.kill()
        await lives.start()
        await asyncio.sleep(200)
        assert (lying(lives), moved(lives)) == (0, ["hello"])
        assert [one["text"] for one in published(lives)] == ["hello"]


@pytest.mark.parametrize("step", range(STEPS))
async def test_killed_while_room_is_made_no_message_is_lost(step: int) -> None:
    async with living() as (lives, _):
        for number in range(5):
            put(lives, f"hello {number}", hours=9 - number)
        lives.kill_at(step)
        await asyncio.sleep(70)
        await lives.kill()
        there = {message.pdu for _, message in lives.module.store.messages("SM")}
        for number in range(5):
            pdu = deliver(f"hello {number}", STRANGER, at=BEGIN, age=3600 * (9 - number)).encode()
            assert pdu in there or f"hello {number}" in moved(lives)
        house = await lives.start()
        await until(lambda: lying(lives) <= 3, 300)
        await asyncio.sleep(120)
        assert moved(lives)[:2] == ["hello 0", "hello 1"]
        assert len(moved(lives)) + lying(lives) == 5
        assert warnings(house) == []


async def test_no_secret_of_a_command_is_in_the_ledger_once_it_ended() -> None:
    """POL-3: planted in a message that is run."""
    planted = "pl4nted-s3cret-1"
    given = rules()
    async with living(replace(given, policy=replace(given.policy, remote_admin=("sms",)))) as (lives, house):
        house.sms(f'AT#SMSATWL=0,3,1,"{planted}";+CSQ')
        house.sms(f'AT+CPIN="{planted}"')
        await asyncio.sleep(5)
        assert len(house.outcomes) == 2
        lines = lives.disk.rows("SELECT line FROM requests ORDER BY rowid")
        assert [planted in line for (line,) in lines] == [False, False]
        assert PASSWORD not in str(lines)


def test_patience_is_a_look_or_more() -> None:
    """Else what is waited for would be looked at never again before it is moved."""
    assert config().sms.sweep <= room.PATIENCE
