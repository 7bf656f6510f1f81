# SPDX-License-Identifier: Apache-2.0
"""Status reports: which answer one is about, and what is recorded of it (3GPP TS 23.040 9.2.2.3). None is answered."""

from typing import Final

import structlog

from atrund.atrun.request import Door
from atrund.ledger import Ledger
from atrund.ledger.answers import Reported, keep_statuses, reported
from atrund.mirror import Mirror
from atrund.sms.fields import PduError
from atrund.sms.report import Fate, StatusReport, decode_report, fate_of, status_name

log = structlog.get_logger()


class Reports:
    """Records reports: once for each part of an answer that failed, once for an answer that arrived whole."""

    def __init__(self, ledger: Ledger, mirror: Mirror) -> None:
        self._ledger = ledger
        self._mirror = mirror

    async def take(self, pdu: str) -> bool:
        """Record a report, given in hexadecimal; returns whether it is about an answer that was sent here.

        To be called by one at a time. A report is matched by message reference and recipient. Raises `StorageError`.
        """
        try:
            report = decode_report(pdu)
        except PduError as error:
            log.info("report not understood", detail=str(error))
            return False
        found: Reported | None = await self._ledger.ask(reported(report.reference, report.recipient.text))
        if found is not None:
            self._note(found, report)
        return found is not None

    def _note(self, found: Reported, report: StatusReport) -> None:
        before = found.statuses.get(found.part)
        if before == report.status or (before is not None and fate_of(before).final):
            return  # it came twice, or behind the last word
        statuses = {**found.statuses, found.part: report.status}
        fates = [fate_of(status) for status in statuses.values()]
        parts = found.progress.parts
        rows = [keep_statuses(found.rid, statuses)]
        detail = f"part {found.part + 1} of {parts}: {status_name(report.status)}"
        if report.fate is not Fate.DELIVERED or fates.count(Fate.DELIVERED) == parts:
            what = _WORDS.get(report.fate, "answer reported")
            rows += self._mirror.session(Door.SMS, report.recipient.text, what, detail, found.rid)
        self._ledger.behind(*rows)


_WORDS: Final = {
    Fate.DELIVERED: "answer delivered",
    Fate.FAILED: "answer not delivered",
    Fate.GIVEN_UP: "answer not delivered",
}
"""What is recorded of a part's fate; of any other, that it was reported."""
