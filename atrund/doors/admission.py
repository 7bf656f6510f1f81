# SPDX-License-Identifier: Apache-2.0
"""Who is let in by SMS beyond the vendor's rules: seals, codes, a digest only once for a while, and not too often.

Rules of this file: what a message uses up is on disk before it is run, in one transaction with the decision, which
stays the same for that message whatever crashes; a code or a seal is used up also by a message that is refused for
another reason, for whoever saw it on its way has it too. Spans go by the time that the daemon has run (REQ-11).
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from atrund.atrun import proofs
from atrund.atrun.codes import Found, Progress, check
from atrund.atrun.message import AtRun, NotAtRun
from atrund.atrun.proofs import ByCodes, BySeal
from atrund.atrun.request import End, Outcome, Reason
from atrund.clock import Clock
from atrund.ledger import Ledger, admissions
from atrund.ledger.admissions import Decision, Desk
from atrund.ledger.writer import Write
from atrund.sms.pdu import Deliver
from atrund.sms.seal import SealKey, Window, untimely

TELL_EVERY: Final = 3600.0
"""Seconds between two answers that tell one sender why nothing was run: whoever forges a sender, or sends again what
was overheard, would have the gateway send an SMS for each of theirs."""


@dataclass(frozen=True, slots=True)
class Code:
    """The codes of a number. `required`: a message without one is refused, else it is a simple SMS like any other."""

    secret: bytes = field(repr=False)
    required: bool = True


@dataclass(frozen=True, slots=True)
class AdmissionRules:
    """What is asked of messages; 0 is never, times in seconds. `codes` by number."""

    codes: Mapping[str, Code] = field(default_factory=dict)
    seals: tuple[SealKey, ...] = ()
    seal_max_age: float = 0.0
    digest_replay: float = 0.0
    rate_count: int = 0
    rate_per: float = 3600.0


class Admission:
    """Judges messages, and lets them in once."""

    def __init__(self, rules: AdmissionRules, *, ledger: Ledger, clock: Clock) -> None:
        self.rules = rules
        self._ledger = ledger
        self._clock = clock

    def judge(
        self, deliver: Deliver, numbers: Sequence[str], passwords: Sequence[str], *, convert_ucs2: bool
    ) -> AtRun | NotAtRun:
        """Return what an SMS is."""
        rules = self.rules
        return proofs.judge(deliver, numbers, passwords, convert_ucs2=convert_ucs2, keys=rules.seals, coded=rules.codes)

    async def admit(self, key: str, found: AtRun, deliver: Deliver) -> tuple[Outcome | None, bool]:
        """Decide on a message, known by `key`, once for all; returns how it ends if it is refused, and whether its
        sender may be told. Raises `StorageError`.
        """
        judged = found.proof is not None or (found.digest and self.rules.digest_replay)
        if not judged and not self.rules.rate_count:
            return None, True
        now = self._clock.now() if self._clock.known() else deliver.timestamp.utc()
        decide = functools.partial(self._decide, found, deliver.originator.text, now.timestamp())
        (decision,) = await self._ledger.durable(admissions.claim(key, self._ledger.run, decide))
        return _outcome_of(decision), decision.answered

    def settle(self, key: str) -> Write:
        """Return the write that goes with the outcome of a message."""
        return admissions.settle(key)

    def _decide(self, found: AtRun, sender: str, now: float, desk: Desk) -> Decision:
        """Decide, on the ledger's thread."""
        proof = found.proof
        decision = Decision()
        who = sender
        if isinstance(proof, BySeal):
            who = f"seal {proof.key.number}"
            decision = self._weigh_seal(proof, now, desk)
        elif isinstance(proof, ByCodes):
            decision = self._weigh_codes(proof, desk)
        elif found.digest:
            who = f"password {found.password}"
            decision = self._weigh_digest(found.digest, desk)
        if decision.reason is None:
            decision = self._weigh_rate(who, desk)
        if decision.reason is not None and not decision.answered:
            return Decision(decision.reason, decision.detail, _may_tell(who, desk))
        return decision

    def _weigh_seal(self, proof: BySeal, now: float, desk: Desk) -> Decision:
        subject = f"seal:{proof.key.number}:{_fingerprint(proof.key.secret)}"
        window = Window(*desk.counter(subject)).take(proof.sealed.counter)
        if window is None:
            return _refused(Reason.REPLAY, "the counter of the seal was used before, or one far above it")
        desk.count_on(subject, window.highest, window.seen)
        why = untimely(proof.sealed, now, self.rules.seal_max_age)
        return _refused(Reason.EXPIRED, why) if why else Decision()

    def _weigh_codes(self, proof: ByCodes, desk: Desk) -> Decision:
        code = self.rules.codes.get(proof.entry)
        if code is None:
            return _refused(Reason.AUTH, "the number has no codes any more")  # since the message was read
        if not proof.codes and not code.required:
            return Decision()
        subject = f"code:{proof.entry}:{_fingerprint(code.secret)}"
        before = Progress(*desk.counter(subject))
        after, found = check(code.secret, before, proof.codes)
        if after != before:
            desk.count_on(subject, after.next, after.wrong)
        match found:
            case Found.RIGHT:
                return Decision()
            case Found.USED:
                return _refused(Reason.REPLAY, found.value)
            case Found.WRONG if len(proof.codes) == 1:
                return Decision(Reason.AUTH, found.value)  # a person mistyped; no more than a few come this far
        return _refused(Reason.AUTH, found.value)

    def _weigh_digest(self, digest: str, desk: Desk) -> Decision:
        if not self.rules.digest_replay:
            return Decision()
        mark = hashlib.sha256(digest.encode("ascii")).hexdigest()
        if desk.uses(_DIGEST, mark, self.rules.digest_replay):
            return _refused(Reason.REPLAY, "the digest was used before")
        desk.use(_DIGEST, mark)
        return Decision()

    def _weigh_rate(self, who: str, desk: Desk) -> Decision:
        count, per = self.rules.rate_count, self.rules.rate_per
        if not count:
            return Decision()
        if desk.uses(_RATE, who, per) >= count:
            return _refused(Reason.RATE_LIMITED, f"more than {count} in {per:g} s")
        desk.use(_RATE, who)
        return Decision()


def _outcome_of(decision: Decision) -> Outcome | None:
    if decision.reason is None:
        return None
    end = End.EXPIRED if decision.reason is Reason.EXPIRED else End.REJECTED
    return Outcome(end, decision.reason, detail=decision.detail)


def _refused(reason: Reason, detail: str) -> Decision:
    return Decision(reason, detail, answered=False)


def _may_tell(who: str, desk: Desk) -> bool:
    """Whether a sender may be told now; once in a while is enough."""
    if desk.uses(_TOLD, who, TELL_EVERY):
        return False
    desk.use(_TOLD, who)
    return True


def _fingerprint(secret: bytes) -> str:
    """Return what tells one secret from the next of the same number: a new one begins to count anew."""
    return hashlib.blake2s(secret, digest_size=8).hexdigest()


_DIGEST, _RATE, _TOLD = "digest", "rate", "told"
