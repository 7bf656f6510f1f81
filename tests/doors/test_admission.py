# SPDX-License-Identifier: Apache-2.0
"""Seals, codes, digests that come again and senders that come too often, at the SMS door in virtual time."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from atrund.atrun.codes import WRONG_MAX, hotp
from atrund.atrun.secrets import Secret
from atrund.config.values import Config, SmsCode, SmsRate
from atrund.doors.admission import TELL_EVERY
from atrund.sms.digest import build_request
from atrund.sms.seal import SealKey, seal, write_key
from tests.support.lives import Held, Lives
from tests.support.marked import until
from tests.support.virtual import BEGIN, FRIEND, PASSWORD, STRANGER, House, config, deliver

pytestmark = pytest.mark.looptime

SECRET = b"12345678901234567890"
KEY = SealKey(7, bytes(range(32)))
SIGNAL = "\r\n+CSQ: 14,99\r\n\r\nOK\r\n"
NEVER = "000000"
DAY = 86400.0
EIGHT_BIT = 0x04
STEPS = 20
"""More than the jobs for the disk and the writes to the module from an SMS to its deletion."""


def rules(**fields: object) -> Config:
    given = config()
    return replace(given, sms=replace(given.sms, **fields))  # type: ignore[arg-type]


def coded(code: str = "required", secret: bytes = SECRET, **fields: object) -> Config:
    entry = SmsCode(FRIEND, Secret(base64.b32encode(secret).decode()), code)  # type: ignore[arg-type]
    return rules(codes=(entry,), **fields)


def with_seals(**fields: object) -> Config:
    return rules(seal_keys=(Secret(write_key(KEY)),), **fields)


@contextlib.asynccontextmanager
async def living(given: Config) -> AsyncIterator[tuple[Lives, House]]:
    lives = Lives(given)
    yield lives, await lives.start()
    await lives.end()


def code(counter: int) -> str:
    return f"#{hotp(SECRET, counter)}"


def refusal(reason: str) -> str:
    return f'\r\n#ATRUN: "{reason}"\r\n\r\nERROR\r\n'


def texts(house: House) -> list[str]:
    return [text for _, text in house.sent]


def lying(lives: Lives) -> int:
    return lives.module.store.used("SM") + lives.module.store.used("ME")


def details(house: House) -> list[str | None]:
    return [rule for (rule,) in house.disk.rows("SELECT rule FROM audit WHERE line <> '' ORDER BY n")]


async def send(house: House, text: str, sender: str = FRIEND, *, wait: float = 5.0, data: bytes | None = None) -> None:
    """Bring a message to the module, at another second than the one before, and wait until it is served."""
    scheme = 0 if data is None else EIGHT_BIT
    given = deliver(text, sender, at=house.clock.now(), dcs=scheme, data=data)
    house.module.network.deliver(given.encode())
    await asyncio.sleep(wait)


def sealed(text: str = "AT+CSQ", counter: int = 1, *, after: float = 0.0, key: SealKey = KEY) -> str:
    return seal(key, text, counter=counter, time=round((BEGIN + timedelta(seconds=after)).timestamp()))


# Codes.


async def test_a_code_is_taken_once_and_answered_as_a_simple_sms_is() -> None:
    async with living(coded()) as (lives, house):
        await send(house, f"AT+CSQ {code(0)}")
        await send(house, f"AT+CSQ {code(0)}")
        await send(house, f"AT+CSQ {code(2)}")
        await send(house, f"AT+CSQ {code(1)}")
        assert house.sent == [(FRIEND, SIGNAL), (FRIEND, refusal("replay")), (FRIEND, SIGNAL)]
        assert [(end, why) for _, end, why in house.outcomes] == [
            ("ok", None), ("rejected", "replay"), ("ok", None), ("rejected", "replay")
        ]  # fmt: skip
        assert {line for line, _, _ in house.outcomes} == {"AT+CSQ"}, "no code is recorded"
        assert details(house)[1] == "the code was used before"
        assert (lives.wire.ran("AT+CSQ"), lying(lives)) == (2, 0)


async def test_hat_with_a_code_is_run_and_never_answered() -> None:
    async with living(coded()) as (lives, house):
        await send(house, f"HAT+CSQ {code(0)}")
        await send(house, f"HAT+CSQ {code(0)}")
        await send(house, "HAT+CSQ #000000")
        assert house.sent == []
        assert [why for _, _, why in house.outcomes] == [None, "replay", "auth"]
        assert (lives.wire.ran("AT+CSQ"), lying(lives)) == (1, 0)


@pytest.mark.parametrize("text", ["AT+CSQ", "AT+CSQ #123456 //x", "AT+CSQ#755224"])
async def test_a_number_that_needs_a_code_is_refused_without(text: str) -> None:
    async with living(coded()) as (lives, house):
        await send(house, text)
        await send(house, text)
        assert texts(house) == [refusal("auth")], "once an hour is enough: the sender may be forged"
        assert [(end, why) for _, end, why in house.outcomes] == [("rejected", "auth")] * 2
        await asyncio.sleep(TELL_EVERY)
        await send(house, text)
        assert texts(house) == [refusal("auth")] * 2
        assert (lives.wire.ran("AT+CSQ"), lying(lives)) == (0, 0)


async def test_a_code_that_is_not_needed_proves_who_asks_all_the_same() -> None:
    """CMD-2: what a sender that can be forged may not do."""
    administer = 'AT#EVMONI="SMSIN",0,0,"AT"'
    async with living(coded("optional")) as (_, house):
        await send(house, "AT+CSQ")
        await send(house, administer)
        await send(house, f"{administer} {code(0)}")
        await send(house, f"AT+CSQ #{NEVER}")
        assert [(end, why) for _, end, why in house.outcomes] == [
            ("ok", None), ("rejected", "policy"), ("ok", None), ("rejected", "auth")
        ]  # fmt: skip


async def test_a_number_without_codes_is_as_ever() -> None:
    async with living(coded(numbers=(FRIEND, STRANGER))) as (lives, house):
        await send(house, "AT+CSQ", STRANGER)
        await send(house, "AT+CSQ #755224", STRANGER)
        assert house.sent[0] == (STRANGER, SIGNAL)
        assert [line for line, _, _ in house.outcomes] == ["AT+CSQ", "AT+CSQ #****"]  # refused as it stands
        assert lives.wire.ran("AT+CSQ") == 1


async def test_a_command_cannot_make_the_code_of_the_file_go_away() -> None:
    async with living(coded(numbers=(), passwords=(Secret(PASSWORD),))) as (lives, house):
        own = house.daemon.nvm
        for entry in (FRIEND, "+39*", FRIEND.removeprefix("+39")):
            own.settings = own.settings.changed({"sms.whitelist.3": entry})
            await send(house, "AT+CSQ", FRIEND if entry.startswith("+") else entry)
        assert [why for _, _, why in house.outcomes] == ["auth"] * 3
        assert lives.wire.ran("AT+CSQ") == 0


async def test_wrong_codes_shut_nobody_out() -> None:
    """RFC 4226 7.3, where the sender can be forged: two codes in a row are taken at any time."""
    lives = Lives(coded())
    house = await lives.start()
    for _ in range(WRONG_MAX):
        await send(house, f"AT+CSQ #{NEVER}")
    assert texts(house) == [refusal("auth")] * WRONG_MAX
    for _ in range(10):
        await send(house, f"AT+CSQ #{NEVER}")
    await send(house, f"AT+CSQ {code(0)}")
    assert texts(house) == [refusal("auth")] * (WRONG_MAX + 1), "and then once an hour"
    assert lives.wire.ran("AT+CSQ") == 0
    await lives.kill()
    house = await lives.start()
    await send(house, f"AT+CSQ {code(0)}")
    assert lives.wire.ran("AT+CSQ") == 0, "it is known after a restart"
    await send(house, f"AT+CSQ {code(0)} {code(1)}")
    await send(house, f"AT+CSQ {code(2)}")
    assert lives.wire.ran("AT+CSQ") == 2
    assert texts(house)[-2:] == [SIGNAL, SIGNAL]
    await lives.end()


async def test_a_new_secret_begins_anew_and_the_old_one_stays_used_up() -> None:
    other = b"abcdefghijklmnopqrst"
    lives = Lives(coded())
    house = await lives.start()
    await send(house, f"AT+CSQ {code(0)}")
    await lives.kill()
    house = await lives.start(coded(secret=other))
    await send(house, f"AT+CSQ #{hotp(other, 0)}")
    await lives.kill()
    house = await lives.start(coded())
    await send(house, f"AT+CSQ {code(0)}")
    assert [why for _, _, why in house.outcomes] == [None, None, "replay"]
    await lives.end()


async def test_a_code_that_is_used_up_by_a_refused_command_is_used_up() -> None:
    """Whoever saw it on its way has it too."""
    async with living(coded(max_age=3600.0)) as (_, house):
        await send(house, f"AT+CFUN=4 {code(0)}")
        await send(house, f"AT+CSQ {code(0)}")
        house.module.network.deliver(deliver(f"AT {code(1)}", at=house.clock.now(), age=4000).encode())
        await asyncio.sleep(5)
        await send(house, f"AT+CSQ {code(1)}")
        assert [why for _, _, why in house.outcomes] == ["policy", "replay", "expired", "replay"]


async def test_the_service_of_a_refused_message_is_silent() -> None:
    """What is put out as taken was taken."""
    async with living(coded()) as (_, house):
        told: list[str] = []
        house.daemon.sms._serving._taken = told.append
        await send(house, "AT+CSQ")
        await send(house, f"AT+CSQ {code(0)}")
        house.sms(f"AT+COPS? {code(1)}", age=2 * DAY)
        await asyncio.sleep(5)
        assert [why for _, _, why in house.outcomes] == ["auth", None, "expired"]
        assert told == ["AT+CSQ"]


# Crashes.


@pytest.mark.parametrize("step", range(STEPS))
@pytest.mark.parametrize("kind", ["code", "seal"])
async def test_killed_at_any_step_a_proof_serves_one_message_once(kind: str, step: int) -> None:
    """REQ-9: neither is the command lost before it was sent, nor is it run twice, nor can another use the code."""
    lives = Lives(coded(seal_keys=(Secret(write_key(KEY)),)))
    house = await lives.start()
    text = f"AT+CSQ {code(0)}" if kind == "code" else sealed()
    lives.kill_at(step)
    await send(house, text, wait=3.0)
    killed = lives.killed
    await lives.kill()
    house = await lives.start()
    await asyncio.sleep(120)
    again = f"AT+COPS? {code(0)}" if kind == "code" else sealed("AT+COPS?")
    await send(house, again)
    ran = lives.wire.ran("AT+CSQ")
    ended = [(end, why) for line, end, why in house.outcomes if line == "AT+CSQ"]
    assert len(ended) == 1
    assert ran <= 1
    assert ended == [("ok", None)] or (killed and ended[0][0] == "lost")
    assert [why for line, _, why in house.outcomes if line == "AT+COPS?"] == ["replay"]
    assert (lives.wire.ran("AT+COPS?"), lying(lives)) == (0, 0)
    assert house.disk.rows("SELECT count(*) FROM claims") == [(0,)]
    await lives.end()


async def test_while_nothing_can_be_recorded_no_code_is_looked_at() -> None:
    """REQ-12: the message stays in the store, and is served when the disk is back."""
    async with living(coded()) as (lives, house):
        lives.disk.broken = "disk full"
        await send(house, f"AT+CSQ {code(0)}", wait=30)
        assert (lives.wire.ran("AT+CSQ"), lying(lives)) == (0, 1)
        lives.disk.broken = ""
        await asyncio.sleep(100)
        assert (lives.wire.ran("AT+CSQ"), lying(lives), texts(house)) == (1, 0, [SIGNAL])


async def test_two_messages_with_one_code_at_once_are_one() -> None:
    async with living(coded()) as (lives, house):
        held = Held(lives.disk)
        house.sms(f"AT+CSQ {code(0)}")
        house.sms(f"AT+CSQ  {code(0)}")
        await until(lambda: len(held.kept) > 1)
        held.release()
        await asyncio.sleep(5)
        assert sorted(str(why) for _, _, why in house.outcomes) == ["None", "replay"]
        assert lives.wire.ran("AT+CSQ") == 1


async def test_a_code_whose_number_has_none_any_more_is_refused() -> None:
    """The file was read anew between two steps."""
    async with living(coded()) as (lives, house):
        held = Held(lives.disk)
        busy = house.daemon.sms._serving._room
        for _ in range(busy._value):
            await busy.acquire()
        await send(house, f"AT+CSQ {code(0)}")
        house.daemon._config = rules(digest_replay=DAY)
        busy.release()
        held.release()
        await asyncio.sleep(5)
        assert [why for _, _, why in house.outcomes] == ["auth"]
        assert lives.wire.ran("AT+CSQ") == 0


# Seals.


async def test_a_seal_is_taken_once_from_whoever_it_comes() -> None:
    async with living(with_seals(numbers=())) as (lives, house):
        await send(house, sealed(), STRANGER)
        await send(house, sealed(), STRANGER)
        await send(house, sealed(counter=3), FRIEND)
        await send(house, sealed("HAT+CSQ", counter=2), FRIEND)
        await send(house, sealed(counter=2), FRIEND)
        assert house.sent == [(STRANGER, SIGNAL), (STRANGER, refusal("replay")), (FRIEND, SIGNAL)]
        assert [why for _, _, why in house.outcomes] == [None, "replay", None, None, "replay"]
        assert (lives.wire.ran("AT+CSQ"), lying(lives)) == (3, 0)


async def test_a_seal_of_no_key_here_is_nobodys() -> None:
    """SMS-13."""
    async with living(with_seals()) as (lives, house):
        await send(house, sealed(key=SealKey(7, bytes(32))))
        await send(house, sealed().replace("AT+CSQ", "AT+COPS?"))
        assert (house.sent, house.outcomes, lying(lives)) == ([], [], 2)
        assert [why for what, why in house.told if what == "sms not accepted"] == ["has a seal of no key here"] * 2


async def test_a_seal_may_do_what_no_sender_that_can_be_forged_may() -> None:
    """CMD-2."""
    async with living(with_seals()) as (_, house):
        await send(house, sealed('AT#EVMONI="SMSIN",0,0,"AT"'))
        assert [why for _, _, why in house.outcomes] == [None]


async def test_a_seal_of_another_time_is_refused_and_used_up() -> None:
    async with living(with_seals(seal_max_age=3600.0)) as (lives, house):
        await send(house, sealed(counter=1, after=-4000))
        await send(house, sealed(counter=2, after=+4000))
        await send(house, sealed(counter=1))
        await send(house, sealed(counter=3))
        assert house.outcomes == [
            ("AT+CSQ", "expired", "expired"),
            ("AT+CSQ", "expired", "expired"),
            ("AT+CSQ", "rejected", "replay"),
            ("AT+CSQ", "ok", None),
        ]
        assert details(house)[:2] == ["was sealed too long ago", "was sealed in the future"]
        assert lives.wire.ran("AT+CSQ") == 1


async def test_while_the_clock_is_unknown_the_service_centres_stamp_tells() -> None:
    """REQ-11: the gateway's own clock says a year that is long ago."""
    lives = Lives(with_seals(seal_max_age=3600.0))
    lives.clock.synchronised = False
    lives.clock.ahead = timedelta(days=-400)
    house = await lives.start()
    for counter, sealed_at, stamped_at in ((1, 0.0, 60.0), (2, 0.0, 4000.0), (3, 4000.0, 60.0)):
        given = deliver(sealed(counter=counter, after=sealed_at), at=BEGIN + timedelta(seconds=stamped_at))
        house.module.network.deliver(given.encode())
        await asyncio.sleep(5)
    assert [why for _, _, why in house.outcomes] == [None, "expired", "expired"]
    await lives.end()


# Digests that come again.


def digest(text: bytes = b"AT+CSQ", session: int = 1) -> bytes:
    return build_request(PASSWORD, text, 0, session)


async def test_a_digest_works_for_ever_unless_asked_and_the_log_says_so_once() -> None:
    async with living(rules()) as (lives, house):
        with capture_logs() as logs:
            for session in range(3):
                await send(house, "", data=digest(session=session))
        assert lives.wire.ran("AT+CSQ") == 3
        warned = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
        assert warned == [
            "a digest covers neither session nor time: the same SMS works for ever; see sms.digest_replay"
        ]


async def test_a_digest_is_not_taken_twice_within_its_window() -> None:
    lives = Lives(rules(digest_replay=30 * DAY, max_age=0.0))
    house = await lives.start()
    with capture_logs() as logs:
        await send(house, "", data=digest())
    assert not [entry for entry in logs if "digest covers" in entry["event"]]
    await send(house, "", STRANGER, data=digest(session=2))
    await send(house, "", data=digest(b"AT+CSQ //2"))
    assert house.sent == [(FRIEND, house.sent[0][1]), (STRANGER, house.sent[1][1]), (FRIEND, house.sent[2][1])]
    assert "replay" in house.sent[1][1]
    assert lives.wire.ran("AT+CSQ") == 2
    await lives.kill()
    house = await lives.start()
    await send(house, "", data=digest(session=3))
    assert [why for _, _, why in house.outcomes] == [None, "replay", None, "replay"]
    await lives.end()


async def test_the_window_ends_by_the_time_that_the_daemon_has_run() -> None:
    """REQ-11."""
    lives = Lives(rules(digest_replay=3600.0))
    house = await lives.start()
    await send(house, "", data=digest())
    lives.clock.ahead = timedelta(days=365)
    await send(house, "", data=digest())
    assert lives.wire.ran("AT+CSQ") == 1
    await asyncio.sleep(3600)
    await send(house, "", data=digest())
    assert lives.wire.ran("AT+CSQ") == 2
    await lives.end()


# Those who come too often.


async def test_a_sender_who_comes_too_often_is_refused_and_told_once() -> None:
    given = rules(rate=SmsRate(2, 3600.0), numbers=(FRIEND, STRANGER))
    lives = Lives(given)
    house = await lives.start()
    for _ in range(5):
        await send(house, "AT+CSQ")
    await send(house, "AT+CSQ", STRANGER)
    assert [why for _, _, why in house.outcomes] == [None, None, *["rate_limited"] * 3, None]
    assert texts(house) == [SIGNAL, SIGNAL, refusal("rate_limited"), SIGNAL]
    await lives.kill()
    house = await lives.start()
    await send(house, "AT+CSQ")
    assert [why for _, _, why in house.outcomes][-1] == "rate_limited", "also after a restart"
    await asyncio.sleep(3600)
    await send(house, "AT+CSQ")
    assert [why for _, _, why in house.outcomes][-1] is None
    assert lying(lives) == 0
    await lives.end()


async def test_whoever_forges_a_number_with_codes_does_not_use_up_its_rate() -> None:
    async with living(coded(rate=SmsRate(1, 3600.0))) as (lives, house):
        for _ in range(3):
            await send(house, f"AT+CSQ #{NEVER}")
        await send(house, f"AT+CSQ {code(0)}")
        await send(house, f"AT+CSQ {code(1)}")
        assert [why for _, _, why in house.outcomes] == ["auth", "auth", "auth", None, "rate_limited"]
        assert lives.wire.ran("AT+CSQ") == 1


async def test_keys_and_passwords_are_senders_of_their_own() -> None:
    async with living(with_seals(rate=SmsRate(1, 3600.0))) as (_, house):
        await send(house, "AT+CSQ")
        await send(house, "", data=digest())
        await send(house, "", STRANGER, data=digest(session=2))
        await send(house, sealed(counter=1))
        await send(house, sealed(counter=2), STRANGER)
        assert [why for _, _, why in house.outcomes] == [None, None, "rate_limited", None, "rate_limited"]


async def test_nothing_is_written_where_nothing_is_asked() -> None:
    async with living(with_seals()) as (_, house):
        await send(house, "AT+CSQ")
        await send(house, "", data=digest())
        assert [why for _, _, why in house.outcomes] == [None, None]
        for table in ("claims", "counters", "uses"):
            assert house.disk.rows(f"SELECT count(*) FROM {table}") == [(0,)]  # noqa: S608 - constants
