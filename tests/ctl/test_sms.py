# SPDX-License-Identifier: Apache-2.0
"""`atrunctl sms` through an argument parser: the application note's example, and one clear line for what is wrong."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from atrund.ctl.sms import register
from atrund.sms.pdu import decode_submit

PASSWORD = "1234567890123456"
NOTE_SUBMIT = (
    "079193432900200011000C919343868676110015AD26D0D0D000110157696A437032715633734E7"
    "62B61727532305A5561773D3D41542B434F50533F"
)
NOTE_DELIVER = (
    "0791934329002000040C9193438686761100158050922102818040D1D1D10011014A756E726137723"
    "06B494563483971563534326E33513D3D0D0A2B434F50533A20302C302C22766F6461666F6E6520"
    "4954220D0A0D0A4F4B0D0A"
)
NUMBERS = ("--to", "+393468686711", "--smsc", "+393492000200")
TO = NUMBERS[:2]
SCTS = "80509221028180"


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="atrunctl")
    register(parser.add_subparsers(required=True))
    args = parser.parse_args(["sms", *arguments])
    code = args.run(args)
    assert isinstance(code, int)
    return code


def decoded(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run("decode", *arguments) == 0
    fields = json.loads(capsys.readouterr().out)
    assert isinstance(fields, dict)
    return fields


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert PASSWORD not in err
    lines = err.splitlines()
    assert lines[-1].startswith(f"atrunctl sms {arguments[0]}: ")
    assert all("warning" in line for line in lines[:-1])
    return lines[-1].split(": ", 1)[1]


def test_the_notes_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("encode", *NUMBERS, "--password", PASSWORD, "AT+COPS?") == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == ["AT+CMGS=52", NOTE_SUBMIT]
    assert "warning: --password is seen in the list of processes" in err
    assert PASSWORD not in err


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_password_file_makes_the_same_without_a_warning(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, ending: str
) -> None:
    path = tmp_path / "password"
    path.write_bytes(f"{PASSWORD}{ending}".encode())
    assert run("encode", *NUMBERS, "--password-file", str(path), "AT+COPS?") == 0
    out, err = capsys.readouterr()
    assert (out.splitlines(), err) == (["AT+CMGS=52", NOTE_SUBMIT], "")


def test_a_simple_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("encode", *TO, "AT+COPS?") == 0
    length, pdu = capsys.readouterr().out.splitlines()
    submit = decode_submit(pdu)
    assert length == f"AT+CMGS={submit.tpdu_length}"
    assert (submit.user_data.text, submit.dcs.octet, submit.smsc) == ("AT+COPS?", 0x00, None)


def test_other_options(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--password", PASSWORD, "--dcs", "4", "--transaction", "0x10", "--session", "255", "--no-answer")
    assert run("encode", *TO, *options, "at+csq") == 0
    submit = decode_submit(capsys.readouterr().out.splitlines()[1])
    assert submit.dcs.octet == 4
    assert submit.user_data.content[3:6] == b"\x10\x11\xff"
    assert submit.user_data.content.endswith(b"==Hat+csq")


def test_no_answer_twice_is_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("encode", *TO, "--no-answer", "HAT+CSQ") == 0
    assert decode_submit(capsys.readouterr().out.splitlines()[1]).user_data.text == "HAT+CSQ"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "39 346", "AT"), "--to: ' ' is no digit of an address; 0 to 9 * # a b c are"),
        ((*TO, "--smsc", "+", "AT"), "--smsc: a number needs at least one digit"),
        ((*TO, "--password", "short", "AT"), "the password has 5 characters, a white list takes just 16"),
        ((*TO, "--password", PASSWORD, "--dcs", "0", "AT"), "--dcs 0x00 is not plain 8-bit, as a digest SMS must be"),
        ((*TO, "--password", PASSWORD, "--dcs", "0x24", "AT"), "--dcs 0x24 is not plain 8-bit"),
        ((*TO, "--password", PASSWORD, "AT" + "x" * 109), "text: 111 octets, one message holds 110"),
        ((*TO, "AT" + "x" * 159), "TEXT can't be sent in one SMS, as atrund needs it: TP-UDL: 161 septets"),
        ((*TO, "AT\u0416"), "U+0416 at position 2 is not in the gsm7 alphabet"),
        ((*TO, "--dcs", "0x20", "AT"), "TP-DCS: 0x20 asks for compressed text"),
        ((*TO, "--no-answer", "hello"), "--no-answer: TEXT must begin with AT"),
        ((*TO, "--password-file", "/nowhere/at/all", "AT"), "--password-file: No such file or directory"),
    ],
)
def test_what_can_not_be_encoded(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str) -> None:
    assert message in refused(capsys, "encode", *arguments)


def test_a_password_file_that_is_no_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_bytes(b"\xff" * 16)
    assert "is no UTF-8 text" in refused(capsys, "encode", *TO, "--password-file", str(path), "AT")


@pytest.mark.parametrize(
    "arguments",
    [
        ("encode", "AT"),
        ("encode", *TO, "--dcs", "256", "AT"),
        ("encode", *TO, "--dcs", "x", "AT"),
        ("encode", *TO, "--password", PASSWORD, "--password-file", "f", "AT"),
        ("decode", "--direction", "up", "00"),
        (),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_the_notes_answer(capsys: pytest.CaptureFixture[str]) -> None:
    fields = decoded(capsys, NOTE_DELIVER)
    assert fields["type"] == "SMS-DELIVER"
    assert fields["originator"] == {"text": "+393468686711", "type": "international", "plan": 1}
    assert fields["smsc"]["text"] == "+393492000200"
    assert fields["timestamp"] == {"local": "2008-05-29T12:20:18+02:00", "utc": "2008-05-29T10:20:18Z"}
    assert (fields["dcs"]["octet"], fields["dcs"]["alphabet"], fields["dcs"]["class"]) == ("0x15", "8bit", 1)
    assert fields["tpdu_length"] == 83
    assert fields["atrun"] == {
        "kind": "response",
        "transaction": 0,
        "segment": {"index": 1, "total": 1},
        "session": 1,
        "digest": "Junra7r0kIEcH9qV542n3Q==",
        "text": '\r\n+COPS: 0,0,"vodafone IT"\r\n\r\nOK\r\n',
    }


@pytest.mark.parametrize("pdu", [NOTE_SUBMIT, NOTE_SUBMIT[16:], NOTE_SUBMIT[:40].lower() + " \n" + NOTE_SUBMIT[40:]])
@pytest.mark.parametrize("direction", ["auto", "submit"])
def test_the_notes_request_with_and_without_service_centre(
    capsys: pytest.CaptureFixture[str], pdu: str, direction: str
) -> None:
    fields = decoded(capsys, "--direction", direction, pdu)
    assert fields["type"] == "SMS-SUBMIT"
    assert fields["destination"]["text"] == "+393468686711"
    assert fields["validity"] == {"format": "relative", "octet": "0xAD", "seconds": 7 * 86400}
    assert fields["atrun"]["kind"] == "request"
    assert fields["atrun"]["text"] == "AT+COPS?"
    assert fields["tpdu_length"] == 52


def test_the_rest_of_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    da = "0C91934386867611"
    fields = decoded(capsys, f"0044{da}00E8{SCTS}0A05000307020100410416")
    assert fields["dcs"]["waiting"] == {"kind": "voicemail", "active": True}
    assert fields["user_data"] == {
        "header": [{"identifier": "0x00", "data": "070201"}],
        "concatenation": {"reference": 7, "total": 2, "index": 1},
        "septets": None,
        "octets": "00410416",
        "text": "A\u0416",
    }
    assert (fields["atrun"], fields["smsc"]) == (None, None)
    absolute = decoded(capsys, f"001900{da}0000{SCTS}0161")["validity"]
    assert absolute["until"]["local"] == "2008-05-29T12:20:18+02:00"
    enhanced = decoded(capsys, f"000900{da}0000401E00000000000161")
    assert enhanced["validity"]["single_shot"] is True
    assert enhanced["validity"]["seconds"] is None
    assert enhanced["user_data"]["septets"] == 1
    assert decoded(capsys, "--direction", "deliver", f"0004{da}0004{SCTS}0161")["atrun"] is None
    assert decoded(capsys, f"000100{da}00000161")["validity"] is None


def test_a_malformed_digest_header_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    fields = decoded(capsys, f"00040C919343868676110004{SCTS}03D0D0D0")
    assert fields["atrun"] == {"malformed": "header: 3 octets, must be 30"}


@pytest.mark.parametrize(
    ("pdu", "message"),
    [
        ("079", "PDU: 3 hex digits are no whole number of octets"),
        ("zz", "PDU: 'z' is no hex digit"),
        ("", "no PDU: read with a service centre address, SCA: needs 1 octets"),
        (NOTE_DELIVER[:-2], "TP-UDL: 64 octets take 64 octets, 63 are there"),
        ("0006", "TP-MTI: is 2; 0 (SMS-DELIVER) and 1 (SMS-SUBMIT) are understood"),
    ],
)
def test_what_can_not_be_decoded(capsys: pytest.CaptureFixture[str], pdu: str, message: str) -> None:
    assert message in refused(capsys, "decode", pdu)
