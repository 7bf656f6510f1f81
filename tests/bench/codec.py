# SPDX-License-Identifier: Apache-2.0
"""PDU rates of atrund.sms against those of python-gsmmodem-new, smspdudecoder and gammu (C), those that are there.

Each is given what it takes, hex digits or octets, and has read the text when it returns, as we have.
"""

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any, Final

from atrund.sms.address import Address
from atrund.sms.pdu import (
    Concatenation,
    Dcs,
    Deliver,
    Element,
    RelativeValidity,
    Submit,
    Timestamp,
    UserData,
    decode_deliver,
    decode_submit,
)
from tests.bench.figures import Spread, table, title
from tests.bench.stage import NUMBER, BenchError

ROUNDS: Final = 20
BATCH: Final = 0.02
"""Seconds of one batch; ours and theirs alternate."""

TEXT: Final = "+CSQ: 21,99 OK - the quick brown fox jumps over the lazy dog. " * 2
UCS2: Final = Dcs(0x08)
GSM7: Final = Dcs(0x00)


def measure() -> None:
    """Print how many PDUs a second are read and written, per kind, and how many times as many we do."""
    to, stamp = Address.parse(NUMBER), Timestamp.of(datetime(2026, 1, 1, tzinfo=UTC))
    part = (Element.concatenated(Concatenation(7, 3, 2)),)
    plain = Deliver(to, stamp, UserData.from_text(TEXT, GSM7)).encode()
    kinds = {
        "read DELIVER, 7 bit": plain,
        "read DELIVER, a part": Deliver(to, stamp, UserData.from_text(TEXT, GSM7, part)).encode(),
        "read DELIVER, UCS-2": Deliver(to, stamp, UserData.from_text(TEXT[:70], UCS2), UCS2).encode(),
        "read SUBMIT, 7 bit": Submit(to, UserData.from_text(TEXT, GSM7), validity=RelativeValidity(0xA7)).encode(),
    }
    peers = [peer for peer in map(_found, (_gsmmodem, _smspdudecoder, _gammu)) if peer is not None]
    names = ", ".join(peer.name for peer in peers) or "nobody is installed to compare with"
    title(f"PDU rates, a second ({names}), {ROUNDS} batches each")
    for reader in (OURS, *peers):
        if reader.read_deliver(plain)() != TEXT:
            raise BenchError(f"{reader.name}: a PDU is read otherwise than it was written")
    works: dict[str, dict[str, Callable[[], object]]] = {
        name: {
            reader.name: (reader.read_submit if "SUBMIT" in name else reader.read_deliver)(pdu)
            for reader in (OURS, *peers)
        }
        for name, pdu in kinds.items()
    }
    works["write SUBMIT, 7 bit"] = {reader.name: reader.write for reader in (OURS, *peers) if reader.write}
    rows = []
    for kind, each in works.items():
        spans: dict[str, list[float]] = {name: [] for name in each}
        for _ in range(ROUNDS):
            for name, work in each.items():
                spans[name].append(_batch(work))
        us = Spread.of(spans.pop(OURS.name))
        row = [kind, f"{1 / us.median:.0f}", f"{us.median * 1e6:.1f}", f"{us.p95 * 1e6:.1f}"]
        for peer in peers:
            them = Spread.of(spans[peer.name]) if peer.name in spans else None
            row += ["", ""] if them is None else [f"{1 / them.median:.0f}", f"{them.median / us.median:.2f}"]
        rows.append(row)
    table(("", "ours", "µs each", "p95", *(word for peer in peers for word in (peer.name, "ours / it"))), rows)


@dataclass(frozen=True, slots=True)
class Codec:
    """One implementation: what makes a task of reading a PDU, and the task of writing one, if it writes."""

    name: str
    read_deliver: Callable[[bytes], Callable[[], object]]
    read_submit: Callable[[bytes], Callable[[], object]]
    write: Callable[[], object] | None


def _ours() -> Codec:
    def read(decode: Callable[[str], Deliver | Submit]) -> Callable[[bytes], Callable[[], object]]:
        def of(pdu: bytes) -> Callable[[], object]:
            digits = pdu.hex().upper()
            return lambda: decode(digits).user_data.text

        return of

    def write() -> str:
        validity = RelativeValidity(0xA7)
        return Submit(Address.parse(NUMBER), UserData.from_text(TEXT, GSM7), validity=validity).encode().hex()

    return Codec("ours", read(decode_deliver), read(decode_submit), write)


OURS: Final = _ours()


def _found(make: Callable[[], Codec]) -> Codec | None:
    try:
        return make()
    except ImportError:
        return None


def _gsmmodem() -> Codec:
    theirs: Any = importlib.import_module("gsmmodem.pdu")

    def read(pdu: bytes) -> Callable[[], object]:
        digits = pdu.hex().upper()
        return lambda: theirs.decodeSmsPdu(digits)["text"]

    def write() -> str:
        validity = timedelta(hours=24)
        return str(theirs.encodeSmsSubmitPdu(NUMBER, TEXT, validity=validity, requestStatusReport=False)[0])

    return Codec("gsmmodem", read, read, write)


def _smspdudecoder() -> Codec:
    theirs: Any = importlib.import_module("smspdudecoder.fields")

    def read(kind: Any) -> Callable[[bytes], Callable[[], object]]:  # noqa: ANN401 - of an untyped package
        def of(pdu: bytes) -> Callable[[], object]:
            digits = pdu.hex().upper()
            return lambda: kind.decode(StringIO(digits))["user_data"]["data"]

        return of

    return Codec("smspdudecoder", read(theirs.SMSDeliver), read(theirs.SMSSubmit), None)


def _gammu() -> Codec:
    theirs: Any = importlib.import_module("gammu")

    def read(pdu: bytes) -> Callable[[], object]:
        return lambda: theirs.DecodePDU(pdu, True)["Text"]

    message = theirs.DecodePDU(Submit(Address.parse(NUMBER), UserData.from_text(TEXT, GSM7)).encode(), True)
    message["SMSC"]["Validity"] = "24H"
    return Codec("gammu", read, read, lambda: theirs.EncodePDU(message, "Submit"))


def _batch(work: Callable[[], object]) -> float:
    """Seconds of one run, over a batch."""
    count = 0
    begun = time.perf_counter()
    while (span := time.perf_counter() - begun) < BATCH:
        for _ in range(10):
            work()
        count += 10
    return span / count
