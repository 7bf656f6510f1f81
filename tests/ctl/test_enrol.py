# SPDX-License-Identifier: Apache-2.0
"""`atrunctl sms enrol`: a secret that nobody else can read, shown to an authenticator app and to nobody else."""

import argparse
import stat
import sys
from pathlib import Path

import pyotp
import pytest

from atrund.atrun.codes import hotp, read_secret
from atrund.config.kinds import code_secret, secret_file
from atrund.config.reader import Place
from atrund.ctl.enrol import enrolment
from atrund.ctl.sms import register

NUMBER = "+393468686711"
SECRET = b"12345678901234567890"


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="atrunctl")
    register(parser.add_subparsers(required=True))
    args = parser.parse_args(["sms", "enrol", *arguments])
    code = args.run(args)
    assert isinstance(code, int)
    return code


def test_another_implementation_reads_the_uri_and_gives_the_same_codes() -> None:
    app = pyotp.parse_uri(enrolment(SECRET, NUMBER, "gate way/17"))
    assert isinstance(app, pyotp.HOTP)
    assert (app.name, app.issuer, app.initial_count, app.digits) == (NUMBER, "gate way/17", 0, 6)
    assert [app.at(counter) for counter in range(3)] == [hotp(SECRET, counter) for counter in range(3)]


def test_a_new_secret_is_shown_as_a_picture_and_not_as_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run(NUMBER) == 0
    path = tmp_path / "sms-code-393468686711"
    secret = path.read_text().strip()
    out, err = capsys.readouterr()
    assert len(read_secret(secret)) == 20
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret not in out + err
    assert "otpauth" not in out + err
    assert "\u2580" in out
    assert 'codes = [{number = "+393468686711", secret_file = "sms-code-393468686711"}]' in err
    assert run(NUMBER, "--again") == 0
    assert capsys.readouterr().out == out, "the same picture"
    assert run(NUMBER) == 2
    assert "is there already" in capsys.readouterr().err
    assert path.read_text().strip() == secret


def test_the_text_is_printed_when_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(NUMBER, "--uri", "--file", "anna", "--gateway", "cellar") == 0
    secret = read_secret((tmp_path / "anna").read_text().strip())
    out, err = capsys.readouterr()
    assert out == enrolment(secret, NUMBER, "cellar") + "\n"
    assert 'secret_file = "anna"' in err
    read = secret_file(code_secret)("anna", Place("sms.codes[0].secret_file", (tmp_path,)))
    assert read_secret(read.reveal()) == secret, "the configuration takes it"


def test_no_picture_goes_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(NUMBER) == 2
    assert "--uri" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_the_library_nothing_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "segno", None)
    assert run(NUMBER) == 2
    assert "Debian: python3-segno" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert run(NUMBER, "--uri") == 0


@pytest.mark.parametrize("number", ["", "+", "anna", "+39*", "1" * 21, "\u0661\u0662"])
def test_what_is_no_number_is_refused(number: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(number, "--uri") == 2
    assert "no number" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "why"), [(None, "No such file"), (b"geheim", "base32"), (b"\xff", "can't decode byte 0xff")]
)
def test_a_file_that_cannot_be_shown_again(
    content: bytes | None, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "f").write_bytes(content)
    assert run(NUMBER, "--uri", "--again", "--file", "f") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert why in err
    assert "geheim" not in err


def test_a_folder_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(NUMBER, "--uri", "--file", "nowhere/f") == 2
    assert "nowhere/f: No such file" in capsys.readouterr().err
