# SPDX-License-Identifier: Apache-2.0
"""`atrunctl sms seal-key` and `atrunctl sms encode --seal`: no counter is ever given out twice."""

import argparse
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from atrund.config.kinds import seal_key, secret_file
from atrund.config.reader import Place
from atrund.ctl.sealing import UnsealedError, sealed
from atrund.ctl.sms import register
from atrund.sms.pdu import decode_submit
from atrund.sms.seal import Sealed, parse_sealed, read_key

NOON = 1772366400.0


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="atrunctl")
    register(parser.add_subparsers(required=True))
    args = parser.parse_args(["sms", *arguments])
    code = args.run(args)
    assert isinstance(code, int)
    return code


@pytest.fixture
def key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert run("seal-key", "--number", "7", "office") == 0
    capsys.readouterr()
    return tmp_path / "office"


def read(text: str) -> Sealed:
    found = parse_sealed(text)
    assert found is not None
    return found


def test_a_key_is_nobody_elses_to_read_and_never_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("seal-key", "--number", "7", "office") == 0
    path = tmp_path / "office"
    content = path.read_text().strip()
    out, err = capsys.readouterr()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_key(content).number == 7
    assert content.partition(":")[2] not in out + err
    assert 'seal_key_files = ["office"]' in out
    assert secret_file(seal_key)("office", Place("sms.seal_key_files[0]", (tmp_path,))).reveal() == content
    assert run("seal-key", "--number", "8", "office") == 2
    assert "is there already" in capsys.readouterr().err
    assert path.read_text().strip() == content
    assert run("seal-key", "--number", "256", "other") == 2
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("dcs", "alphabet"), [((), "GSM7"), (("--dcs", "0x15"), "EIGHT_BIT"), (("--dcs", "8"), "UCS2")]
)
def test_a_sealed_sms_is_written_and_read(
    dcs: tuple[str, ...], alphabet: str, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("encode", "--to", "+39346", "--seal", "office", *dcs, "--no-answer", "AT+CSQ") == 0
    pdu = capsys.readouterr().out.splitlines()[1]
    data = decode_submit(pdu).user_data
    assert data.alphabet.name == alphabet
    found = read(data.text)
    assert found.key_of([read_key(key.read_text().strip())]) is not None
    assert found.text == "HAT+CSQ"
    assert run("decode", pdu) == 0
    fields: dict[str, Any] = json.loads(capsys.readouterr().out)["atrun"]
    assert (fields["kind"], fields["key"], fields["counter"], fields["text"]) == ("sealed", 7, found.counter, "HAT+CSQ")


def test_each_has_another_counter_also_when_the_clock_goes_back(key: Path) -> None:
    counters = [read(sealed("AT", str(key), counter=None, now=NOON + ahead)).counter for ahead in (0, 0, 5, -1e6, 0)]
    assert counters == [NOON, NOON + 1, NOON + 5, NOON + 6, NOON + 7]
    assert stat.S_IMODE(key.with_name("office.counter").stat().st_mode) == 0o600


def test_one_that_was_lost_is_found_again_by_the_time(key: Path) -> None:
    before = read(sealed("AT", str(key), counter=None, now=NOON)).counter
    key.with_name("office.counter").unlink()
    assert read(sealed("AT", str(key), counter=None, now=NOON + 1)).counter > before


def test_many_at_once_have_one_each(key: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda _: sealed("AT", str(key), counter=None, now=NOON), range(40)))
    assert len({read(text).counter for text in texts}) == 40


def test_one_that_is_given_is_taken_and_not_kept(key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("encode", "--to", "1", "--seal", "office", "--counter", "5", "AT") == 0
    assert read(decode_submit(capsys.readouterr().out.splitlines()[1]).user_data.text).counter == 5
    assert not key.with_name("office.counter").exists()


@pytest.mark.parametrize("content", ["abc", "-1", "4294967296", "\u0661"])
def test_a_counter_that_is_none_is_refused(content: str, key: Path) -> None:
    key.with_name("office.counter").write_text(content)
    with pytest.raises(UnsealedError, match="holds no counter; --counter N gives one"):
        sealed("AT", str(key), counter=None, now=NOON)


def test_the_last_counter_is_the_last(key: Path) -> None:
    key.with_name("office.counter").write_text("4294967295\n")
    with pytest.raises(UnsealedError, match="used up"):
        sealed("AT", str(key), counter=None, now=NOON)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--seal", "nowhere", "AT"), "--seal: No such file or directory: nowhere"),
        (("--seal", "bad", "AT"), "--seal: a number from 0 to 255, a colon and 64 hex digits"),
        (("--seal", "office", "--counter", "-1", "AT"), "--seal: the counter -1 is out of range"),
        (("--seal", "office", " "), "--seal: no text to seal"),
        (("--seal", "office", "A" * 118), "TEXT can't be sent in one SMS"),
        (("--counter", "1", "AT"), "--counter goes with --seal"),
    ],
)
def test_what_cannot_be_sealed(
    arguments: tuple[str, ...], why: str, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key.with_name("bad").write_text("7:geheim")
    assert run("encode", "--to", "1", *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert why in err
    assert "geheim" not in err
