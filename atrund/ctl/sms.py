# SPDX-License-Identifier: Apache-2.0
"""`atrunctl sms`: reads a PDU, and writes one to send to atrund; works without a daemon but for `password`."""

import argparse
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from atrund.ctl import enrol, sealing
from atrund.ctl.secret import UnusableError, read_file
from atrund.ctl.sms_log import register_log
from atrund.ctl.whitelist import register_password
from atrund.sms.alphabet import Alphabet, UnsendableError
from atrund.sms.digest import DigestError, DigestRequest, DigestResponse, build_request, parse_request, parse_response
from atrund.sms.pdu import (
    MTI_DELIVER,
    MTI_SUBMIT,
    Address,
    Dcs,
    Deliver,
    PduError,
    RelativeValidity,
    Submit,
    Timestamp,
    UserData,
    ValidityPeriod,
    decode_deliver,
    decode_submit,
    message_type,
)
from atrund.sms.seal import parse_sealed

EXIT_USAGE: Final = 2

PASSWORD_LENGTH: Final = 16
"""A white list takes passwords of just this length (Telit 80000NT10029a, 3.1)."""

Json = dict[str, object]
"""What is printed."""


class _BadInputError(Exception):
    """What a user gave can't be used; the text is for the user."""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `sms` with its commands; each sets `run`, which takes the arguments and returns the exit code."""
    sms = subparsers.add_parser("sms", help="short messages in PDU form; set a password for them")
    commands = sms.add_subparsers(required=True, metavar="COMMAND")

    decode = commands.add_parser("decode", help="print every field of a PDU as JSON")
    decode.add_argument("--direction", choices=["auto", "deliver", "submit"], default="auto",
                        help="deliver: to the module; submit: from it; auto (default): as the PDU says")  # fmt: skip
    decode.add_argument("hex", metavar="HEX", help="the PDU, with or without the service centre address in front")
    decode.set_defaults(run=run_decode)

    encode = commands.add_parser("encode", help="print AT+CMGS and the PDU of an SMS that asks atrund to run a command")
    encode.add_argument("--to", required=True, metavar="NUMBER", help="the module's number, +391234567")
    encode.add_argument("--smsc", metavar="NUMBER", help="service centre; the sending modem's own if left out")
    secret = encode.add_mutually_exclusive_group()
    secret.add_argument("--password-file", metavar="F", help="make a digest SMS with the password in F")
    secret.add_argument("--password", metavar="P", help="the same, but every user of this machine can see it")
    secret.add_argument(
        "--seal", metavar="F", help="make a sealed SMS with the key in F; its counter is kept beside it"
    )
    encode.add_argument("--counter", type=int, metavar="N", help="of a sealed SMS; by default the next one")
    encode.add_argument("--dcs", type=_octet, metavar="OCTET",
                        help="data coding scheme; default 0x15 with a password, else 0x00")  # fmt: skip
    encode.add_argument("--transaction", type=_octet, default=0, metavar="N", help="of a digest SMS; default 0")
    encode.add_argument("--session", type=_octet, default=1, metavar="N", help="of a digest SMS; default 1")
    encode.add_argument("--no-answer", action="store_true", help="run the command, but send no answer (HAT)")
    encode.add_argument("text", metavar="TEXT", help="the command line, AT+COPS?")
    encode.set_defaults(run=run_encode)

    register_password(commands)
    enrol.register(commands)
    sealing.register(commands)
    register_log(commands)


def run_decode(args: argparse.Namespace) -> int:
    """Print the fields of a PDU; return 0, or 2 if it is none."""
    try:
        fields = _fields(_decode("".join(args.hex.split()), args.direction))
    except _BadInputError as error:
        return _refuse("decode", error)
    print(json.dumps(fields, indent=2))
    return 0


def run_encode(args: argparse.Namespace) -> int:
    """Print the AT+CMGS line and the PDU; return 0, or 2 if the arguments make none."""
    if args.password is not None:
        print("atrunctl: warning: --password is seen in the list of processes; use --password-file", file=sys.stderr)
    try:
        submit = _submit(args)
    except _BadInputError as error:
        return _refuse("encode", error)
    print(f"AT+CMGS={submit.tpdu_length}")
    print(submit.encode().hex().upper())
    return 0


def _refuse(command: str, error: _BadInputError) -> int:
    print(f"atrunctl sms {command}: {error}", file=sys.stderr)
    return EXIT_USAGE


def _octet(text: str) -> int:
    """Read 0 to 255, decimal or 0x hex."""
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number <= 0xFF:
        raise argparse.ArgumentTypeError(f"{text!r} is no octet; 0 to 255 or 0x00 to 0xFF is")
    return number


def _decode(digits: str, direction: Literal["auto", "deliver", "submit"]) -> Deliver | Submit:
    """Read it with the service centre address in front, else without; a PDU seldom makes sense both ways."""
    faults = []
    for smsc, how in ((True, "with a service centre address"), (False, "without one")):
        try:
            return _decode_as(digits, direction, smsc=smsc)
        except PduError as error:
            faults.append((how, error))
    if faults[0][1].field == "PDU":
        raise _BadInputError(str(faults[0][1]))
    raise _BadInputError("no PDU: " + "; ".join(f"read {how}, {error}" for how, error in faults))


def _decode_as(digits: str, direction: Literal["auto", "deliver", "submit"], *, smsc: bool) -> Deliver | Submit:
    if direction == "deliver":
        return decode_deliver(digits, smsc=smsc)
    if direction == "submit":
        return decode_submit(digits, smsc=smsc)
    mti = message_type(digits, smsc=smsc)
    if mti == MTI_DELIVER:
        return decode_deliver(digits, smsc=smsc)
    if mti == MTI_SUBMIT:
        return decode_submit(digits, smsc=smsc)
    raise PduError("TP-MTI", f"is {mti}; {MTI_DELIVER} (SMS-DELIVER) and {MTI_SUBMIT} (SMS-SUBMIT) are understood")


def _submit(args: argparse.Namespace) -> Submit:
    password = _password(args)
    dcs = Dcs(args.dcs if args.dcs is not None else _SIMPLE_DCS if password is None else _DIGEST_DCS)
    text = _command(args.text, no_answer=args.no_answer)
    if args.seal is not None:
        try:
            text = sealing.sealed(text, args.seal, counter=args.counter, now=time.time())
        except sealing.UnsealedError as error:
            raise _BadInputError(str(error)) from None
    elif args.counter is not None:
        raise _BadInputError("--counter goes with --seal")
    try:
        destination = _address("--to", args.to)
        centre = None if args.smsc is None else _address("--smsc", args.smsc)
        if password is None:
            user_data = UserData.from_text(text, dcs)
        else:
            user_data = _digest_data(text, password, dcs, args)
        return Submit(destination, user_data, dcs, smsc=centre, validity=_WEEK)
    except (UnsendableError, PduError, DigestError) as error:
        raise _BadInputError(f"TEXT can't be sent in one SMS, as atrund needs it: {error}") from None


def _digest_data(text: str, password: str, dcs: Dcs, args: argparse.Namespace) -> UserData:
    if dcs.alphabet is not Alphabet.EIGHT_BIT or dcs.compressed:
        raise _BadInputError(f"--dcs 0x{dcs.octet:02X} is not plain 8-bit, as a digest SMS must be; 0x15 is")
    octets = UserData.from_text(text, dcs).content
    return UserData(dcs.alphabet, build_request(password, octets, args.transaction, args.session))


def _command(text: str, *, no_answer: bool) -> str:
    if not no_answer or text.upper().startswith("HAT"):
        return text
    if not text.upper().startswith("AT"):
        raise _BadInputError("--no-answer: TEXT must begin with AT")
    return f"H{text}"


def _password(args: argparse.Namespace) -> str | None:
    password: str | None = args.password
    if args.password_file is not None:
        try:
            password = read_file(args.password_file)
        except UnusableError as error:
            raise _BadInputError(str(error)) from None
    if password is not None and len(password) != PASSWORD_LENGTH:
        raise _BadInputError(f"the password has {len(password)} characters, a white list takes just {PASSWORD_LENGTH}")
    return password


def _address(option: str, number: str) -> Address:
    try:
        return Address.parse(number)
    except PduError as error:
        raise _BadInputError(f"{option}: {error.detail}") from None


def _fields(message: Deliver | Submit) -> Json:
    common: Json = {
        "smsc": None if message.smsc is None else _address_fields(message.smsc),
        "pid": message.pid,
        "dcs": _dcs_fields(message.dcs),
        "reply_path": message.reply_path,
        "status_report": message.status_report,
    }
    if isinstance(message, Deliver):
        own: Json = {
            "type": "SMS-DELIVER",
            "originator": _address_fields(message.originator),
            "timestamp": _timestamp_fields(message.timestamp),
            "more_messages": message.more_messages,
            "loop_prevention": message.loop_prevention,
        }
    else:
        own = {
            "type": "SMS-SUBMIT",
            "destination": _address_fields(message.destination),
            "reference": message.reference,
            "validity": _validity_fields(message.validity),
            "reject_duplicates": message.reject_duplicates,
        }
    ending: Json = {
        "user_data": _user_data_fields(message.user_data),
        "atrun": _atrun_fields(message.user_data),
        "tpdu_length": message.tpdu_length,
    }
    return own | common | ending


def _address_fields(address: Address) -> Json:
    return {"text": address.text, "type": address.ton.name.lower(), "plan": address.plan}


def _dcs_fields(dcs: Dcs) -> Json:
    return {
        "octet": f"0x{dcs.octet:02X}",
        "group": dcs.group.value,
        "alphabet": dcs.alphabet.value,
        "class": dcs.message_class,
        "compressed": dcs.compressed,
        "waiting": None if dcs.waiting is None else {"kind": dcs.waiting.name.lower(), "active": dcs.waiting_active},
    }


def _utc(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _timestamp_fields(timestamp: Timestamp) -> Json:
    return {"local": timestamp.iso(), "utc": _utc(timestamp.utc())}


def _validity_fields(validity: ValidityPeriod | None) -> Json | None:
    if validity is None:
        return None
    if isinstance(validity, Timestamp):
        return {"format": "absolute", "until": _timestamp_fields(validity)}
    if isinstance(validity, RelativeValidity):
        return {"format": "relative", "octet": f"0x{validity.octet:02X}", "seconds": _seconds(validity.span)}
    return {
        "format": "enhanced",
        "octets": validity.octets.hex().upper(),
        "seconds": _seconds(validity.span),
        "single_shot": validity.single_shot,
    }


def _seconds(span: timedelta | None) -> int | None:
    return None if span is None else int(span.total_seconds())


def _user_data_fields(user_data: UserData) -> Json:
    header, part = user_data.header, user_data.concatenation
    return {
        "header": None if header is None else [
            {"identifier": f"0x{element.identifier:02X}", "data": element.data.hex().upper()} for element in header
        ],
        "concatenation": None if part is None else {
            "reference": part.reference, "total": part.total, "index": part.index,
        },
        "septets": None if user_data.septets is None else len(user_data.septets),
        "octets": None if user_data.octets is None else user_data.octets.hex().upper(),
        "text": user_data.text,
    }  # fmt: skip


def _atrun_fields(user_data: UserData) -> Json | None:
    """Return what a seal or a digest header says, None if there is none: no user data header, the mark in front."""
    if user_data.header is None and (found_seal := parse_sealed(user_data.text)) is not None:
        moment = _utc(datetime.fromtimestamp(found_seal.time, UTC))
        return {"kind": "sealed", "key": found_seal.number, "counter": found_seal.counter, "time": moment,
                "text": found_seal.text}  # fmt: skip
    if user_data.alphabet is not Alphabet.EIGHT_BIT or user_data.compressed or user_data.header is not None:
        return None
    try:
        found = parse_request(user_data.content) or parse_response(user_data.content)
    except DigestError as error:
        return {"malformed": str(error)}
    return None if found is None else _digest_fields(found)


def _digest_fields(found: DigestRequest | DigestResponse) -> Json:
    if isinstance(found, DigestRequest):
        kind, segment = "request", {"index": 1, "total": 1}
    else:
        kind, segment = "response", {"index": found.index, "total": found.total}
    return {
        "kind": kind,
        "transaction": found.transaction,
        "segment": segment,
        "session": found.session,
        "digest": found.digest,
        "text": found.text.decode("latin-1"),
    }


_SIMPLE_DCS = 0x00
_DIGEST_DCS = 0x15
_WEEK = RelativeValidity(0xAD)  # the note's own, seven days
