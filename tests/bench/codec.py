# SPDX-License-Identifier: Apache-2.0
"""PDU rates of atrund.sms against python-gsmmodem-new, where `make bench` could install it."""

import importlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
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

PEER: Final = "gsmmodem.pdu"
ROUNDS: Final = 20
BATCH: Final = 0.02
"""Seconds of one batch; ours and theirs alternate."""

TEXT: Final = "+CSQ: 21,99 OK - the quick brown fox jumps over the lazy dog. " * 2
UCS2: Final = Dcs(0x08)
GSM7: Final = Dcs(0x00)


def measure() -> None:
    """Print how many PDUs a second are read and written, per kind."""
    peer: Any = None
    try:
        peer = importlib.import_module(PEER)
    except ImportError:
        title(f"PDU rates: {PEER} is not installed, so there is nothing to compare with")
    else:
        title(f"PDU rates, a second (theirs: python-gsmmodem-new), {ROUNDS} batches each")
    to, stamp = Address.parse(NUMBER), Timestamp.of(datetime(2026, 1, 1, tzinfo=UTC))
    part = (Element.concatenated(Concatenation(7, 3, 2)),)
    deliver = Deliver(to, stamp, UserData.from_text(TEXT, GSM7)).encode().hex().upper()
    concatenated = Deliver(to, stamp, UserData.from_text(TEXT, GSM7, part)).encode().hex().upper()
    ucs2 = Deliver(to, stamp, UserData.from_text(TEXT[:70], UCS2), UCS2).encode().hex().upper()
    submit = Submit(to, UserData.from_text(TEXT, GSM7), validity=RelativeValidity(0xA7)).encode().hex().upper()

    def write() -> str:
        return Submit(to, UserData.from_text(TEXT, GSM7), validity=RelativeValidity(0xA7)).encode().hex()

    def write_theirs() -> str:
        pdu = peer.encodeSmsSubmitPdu(NUMBER, TEXT, validity=timedelta(hours=24), requestStatusReport=False)[0]
        return str(pdu)

    # `.text` on ours: theirs has read the text when it returns.
    kinds: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "read DELIVER, 7 bit": (lambda: decode_deliver(deliver).user_data.text, lambda: peer.decodeSmsPdu(deliver)),
        "read DELIVER, a part": (
            lambda: decode_deliver(concatenated).user_data.text,
            lambda: peer.decodeSmsPdu(concatenated),
        ),
        "read DELIVER, UCS-2": (lambda: decode_deliver(ucs2).user_data.text, lambda: peer.decodeSmsPdu(ucs2)),
        "read SUBMIT, 7 bit": (lambda: decode_submit(submit).user_data.text, lambda: peer.decodeSmsPdu(submit)),
        "write SUBMIT, 7 bit": (write, write_theirs),
    }
    if decode_deliver(deliver).user_data.text != TEXT or (peer and peer.decodeSmsPdu(deliver)["text"] != TEXT):
        raise BenchError("a PDU is read otherwise than it was written")
    rows = []
    for name, (ours, theirs) in kinds.items():
        spans: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            spans[0].append(_batch(ours))
            if peer:
                spans[1].append(_batch(theirs))
        us = Spread.of(spans[0])
        row = [name, f"{1 / us.median:.0f}", f"{us.median * 1e6:.1f}", f"{us.p95 * 1e6:.1f}"]
        if peer:
            them = Spread.of(spans[1])
            row += [f"{1 / them.median:.0f}", f"{them.median / us.median:.2f}"]
        rows.append(row)
    table(("", "ours", "µs each", "p95", "theirs", "ours / theirs")[: len(rows[0])], rows)


def _batch(work: Callable[[], object]) -> float:
    """Seconds of one run, over a batch."""
    count = 0
    begun = time.perf_counter()
    while (span := time.perf_counter() - begun) < BATCH:
        for _ in range(10):
            work()
        count += 10
    return span / count
