# SPDX-License-Identifier: Apache-2.0
"""What the configuration asks of SMS beyond the vendor's rules: codes, seals, digests once, a rate."""

import base64
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from atrund import config, making
from atrund.config import Config, ConfigError
from atrund.config.following import follow
from atrund.ledger import Ledger
from tests.support.virtual import VirtualClock

ROOT = Path(__file__).parents[1]
SECRET = base64.b32encode(b"12345678901234567890").decode()
FRIEND = "+393468686711"
CODE = f'{{number = "{FRIEND}", secret_file = "code"}}'

Load = Callable[[str], Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    for name, content in (
        ("code", SECRET), ("other", SECRET[:26]), ("short", SECRET[:20]), ("key", f"7:{'0a' * 32}"),
        ("key8", f"8:{'0a' * 32}"), ("again", f"7:{'0b' * 32}"), ("none", "7"),
    ):  # fmt: skip
        path = tmp_path / name
        path.touch(mode=0o600)
        path.write_text(f"{content}\n")

    def from_text(text: str) -> Config:
        path = tmp_path / "atrund.toml"
        path.write_text(text)
        return config.load(path, hostname="gate", machine_id="0" * 32, environ={})

    return from_text


def mistakes(load: Load, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert SECRET[:20] not in str(caught.value)
    return [str(mistake) for mistake in caught.value.mistakes]


def test_all_of_it_is_off_by_default(load: Load) -> None:
    sms = load("").sms
    assert (sms.codes, sms.seal_keys, sms.digest_replay, sms.rate.count) == ((), (), 0.0, 0)


def test_what_the_file_says_is_what_the_door_asks_for(load: Load) -> None:
    given = load(
        f'[sms]\nnumbers = ["{FRIEND}"]\n'
        f'codes = [{CODE}, {{number = "112", secret_file = "other", code = "optional"}}]\n'
        'seal_key_files = ["key", "key8"]\nseal_max_age = "1h"\ndigest_replay = "30d"\n'
        '[sms.rate]\ncount = 5\nper = "10m"'
    )
    assert SECRET not in repr(given)
    ledger = Ledger(None, failure="none")
    found = making.admission(given.sms, ledger=ledger, clock=VirtualClock())
    assert found is not None
    rules = found.rules
    assert rules.codes[FRIEND].secret == b"12345678901234567890"
    assert [(number, code.required) for number, code in rules.codes.items()] == [(FRIEND, True), ("112", False)]
    assert [key.number for key in rules.seals] == [7, 8]
    assert (rules.seal_max_age, rules.digest_replay) == (3600.0, 30 * 86400.0)
    assert (rules.rate_count, rules.rate_per) == (5, 600.0)
    assert making.admission(load("[sms]\nenabled = true").sms, ledger=ledger, clock=VirtualClock()) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'codes = [{CODE.replace(FRIEND, "+39*")}]', 'sms.codes[0].number: "+39*" is not allowed; digits'),
        ('codes = [{number = "112"}]', "sms.codes[0].secret_file: is missing"),
        ('codes = [{number = "112", secret_file = "short"}]', "sms.codes[0].secret_file: the file's content"),
        (f'codes = [{CODE[:-1]}, code = "no"}}]', 'sms.codes[0].code: "no" is unknown; one of "required", "optional"'),
        (f'codes = [{CODE}, {{number = "3468686711", secret_file = "other"}}]',
         f'sms.codes[1]: "3468686711" is the same number as "{FRIEND}"; each number once'),
        ('seal_key_files = ["none"]', "sms.seal_key_files[0]: the file's content doesn't fit; a number from 0 to 255"),
        ('seal_key_files = ["key", "again"]', "sms.seal_key_files[1]: a second key 7; a number of its own for each"),
        ('digest_replay = "59m"', 'sms.digest_replay: "59m" is out of range'),
        ("rate = {count = 1001}", "sms.rate.count: 1001 is out of range"),
        ('rate = {per = "1s"}', 'sms.rate.per: "1s" is out of range'),
    ],
)  # fmt: skip
def test_mistakes_are_named(load: Load, text: str, said: str) -> None:
    (mistake,) = mistakes(load, f"[sms]\n{text}")
    assert mistake.startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"codes = [{CODE}]", [f'sms.codes: "{FRIEND}" is not in sms.numbers, and a code alone lets nobody in']),
        (f'codes = [{CODE}]\nnumbers = ["{FRIEND}"]', []),
        (f'codes = [{CODE}]\nnumbers = ["+3934686*"]', []),
        ('enabled = true\nseal_key_files = ["key"]', []),
    ],
)
def test_what_is_doubtful_is_said(load: Load, text: str, said: list[str]) -> None:
    found = config.warnings(load(f"[sms]\n{text}"))
    assert [line for line in found if line.startswith("sms.")] == said


def test_a_reload_brings_numbers_and_their_codes_together(load: Load) -> None:
    before, after = load(""), load(f'[sms]\nnumbers = ["{FRIEND}"]\ncodes = [{CODE}]\nseal_key_files = ["key"]')
    change = follow(before, after)
    assert change.waiting == ()
    assert change.config.sms == after.sms


def test_the_page_names_every_option() -> None:
    page = (ROOT / "docs" / "sms-security.md").read_text()
    for name in ("codes", "seal_key_files", "seal_max_age", "digest_replay", "sms.rate"):
        assert re.search(rf"\b{re.escape(name)}\b", page), name
