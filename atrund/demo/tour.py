# SPDX-License-Identifier: Apache-2.0
"""The tour: one step for each thing that a door does or refuses, played against what is really running.

Rules of this file: a step asks, shows question, answer and mirrored record, and raises `Failed` at the first thing that
is not as the rules say. What must not happen is looked for once what comes last has come, never after a mere pause.
"""

import json
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from atrund.demo.players import Message, Simulator, StageError
from atrund.demo.show import Show, describe_sent
from atrund.demo.stage import NOTE_PASSWORD, TCP_USER, Stage
from atrund.sms.digest import parse_response
from atrund.sms.pdu import Address, Dcs, Deliver, Submit, Timestamp, UserData, decode_submit

WITHIN: Final = 15.0
"""Seconds for what is expected to come: the command's own second, and a slow machine."""

BY_HAND_WITHIN: Final = 180.0
"""Seconds for somebody to write an SMS on a telephone, and for the network to bring it."""

STRANGER: Final = "+390000000001"

DANGEROUS: Final = "AT+CFUN=4"
"""What would cut the way that it came by."""

NEVER_RUN: Final = "AT#GPIO=1,2"
"""A harmless command that nobody runs on this tour, so that it shows if the module got it."""

NOTE_REQUEST: Final = bytes.fromhex("D0D0D0001101") + b"WijCp2qV3sNv+aru20ZUaw==" + b"AT+COPS?"
NOTE_DCS: Final = 0x15
NOTE_ANSWER: Final = '\r\n+COPS: 0,0,"vodafone IT"\r\n\r\nOK\r\n'
NOTE_ANSWER_DIGEST: Final = "Junra7r0kIEcH9qV542n3Q=="
"""The example of Telit 80000NT10029a 2.2: the request's user data, its coding, the answer's text and digest."""

CSQ: Final = r"\+CSQ: \d{1,2},\d{1,2}"
CSQ_ANSWER: Final = rf"\r\n{CSQ}\r\n\r\nOK\r\n"

SURVEY: Final = (
    "Network survey started ...",
    "1018,21,-73,0,222,01,54717,14887,CELL_SUITABLE,0",
    "1011,33,-80,0,222,01,54717,14889,CELL_LOW_PRIORITY,0",
    "736,56,-83,0,222,88,22010,7459,CELL_FORBIDDEN,0",
    "983,61,-78,0,222,88,22010,4759,CELL_FORBIDDEN,0",
    "60,59,-70,0,222,10,27434,62060,CELL_FORBIDDEN,0",
    "148,41,-99,0,222,10,35539,24596,CELL_FORBIDDEN,0",
    "1001,1,-80,0,222,10,222,10008,CELL_FORBIDDEN,0",
    "Network survey ended (Carrier: 10 BCCh: 7)",
)
"""A made-up survey in the shape of a module's own; too long for one SMS, as surveys are."""


class Failed(Exception):
    """Something did not come out as the rules say."""

    def __init__(self, what: str, expected: object, seen: object) -> None:
        super().__init__(what)
        self.what = what
        self.expected = expected
        self.seen = seen


@dataclass(frozen=True, slots=True)
class Step:
    """A step; `skip` says why it can't be taken on this stage, or nothing."""

    title: str
    play: Callable[[Stage, Show], None]
    skip: Callable[[Stage], str] = lambda _: ""


def play(steps: Sequence[Step], stage: Stage, show: Show) -> list[str]:
    """Take every step and return the titles of those that failed. Raises StageError when a player is gone."""
    failures = []
    skipped = 0
    for number, step in enumerate(steps, 1):
        title = f"{number}. {step.title}"
        show.title(title)
        if why := step.skip(stage):
            skipped += 1
            show.skipped(f"  skipped: {why}")
            continue
        try:
            step.play(stage, show)
        except Failed as failed:
            failures.append(title)
            show.bad(f"  FAILED: {failed.what}", [f"expected: {failed.expected}", f"seen:     {failed.seen}"])
        else:
            show.good("  as the rules say")
    taken = len(steps) - skipped
    show.text()
    if failures:
        show.bad(f"{len(failures)} of {taken} steps FAILED:", failures)
    else:
        show.good(f"All {taken} steps came out as the rules say." + (f" {skipped} skipped." if skipped else ""))
    return failures


def expect(what: str, expected: object, seen: object) -> None:
    """Raise Failed unless both are equal."""
    if seen != expected:
        raise Failed(what, expected, seen)


def expect_form(what: str, pattern: str, seen: str) -> None:
    """Raise Failed unless all of a text has this form."""
    if not re.fullmatch(pattern, seen):
        raise Failed(what, f"the form {pattern}", seen)


def simple_sms(stage: Stage, show: Show) -> None:
    """SMS-3, SMS-7, SMS-8."""
    talk = _Talk(stage, show)
    talk.send_sms(stage.number, "AT+CSQ")
    (answer,) = talk.answers()
    expect("the number answered to", stage.number, answer.destination.text)
    expect_form("the answer", CSQ_ANSWER, answer.user_data.text)
    command, _ = talk.mirrored("sms", "AT+CSQ")
    expect("the masked number in the record", stage.number[-4:].rjust(len(stage.number) - 1, "*"), command["peer"][1:])


def silent_sms(stage: Stage, show: Show) -> None:
    """SMS-7: the H asks for silence."""
    talk = _Talk(stage, show)
    talk.send_sms(stage.number, "HAT+CGMM")
    talk.mirrored("sms", "AT+CGMM")
    talk.removed()
    expect("the SMS sent", [], talk.sent())
    show.note("no answer was sent")


def digest_sms(stage: Stage, show: Show) -> None:
    """SMS-4, SMS-8, SMS-9, with the octets that the application note prints."""
    talk = _Talk(stage, show)
    dcs = Dcs(NOTE_DCS)
    deliver = Deliver(
        Address.parse(STRANGER), Timestamp.of(datetime.now(UTC)), UserData(dcs.alphabet, NOTE_REQUEST), dcs
    )
    show.question("sms", f"{STRANGER} (in no list): {NOTE_REQUEST.hex().upper()}")
    talk.sim.ask("sms", pdu=deliver.encode().hex())
    (answer,) = talk.answers()
    octets = answer.user_data.octets or b""
    show.answer("sms", octets.hex().upper())
    digest = parse_response(octets)
    if digest is None:
        raise Failed("the answer's header", "D1D1D1 and so on", octets.hex().upper())
    expect("the answer's text", NOTE_ANSWER, digest.text.decode("latin-1"))
    expect("the answer's digest", NOTE_ANSWER_DIGEST, digest.digest)
    expect("the password that it was made with", 0, digest.matches([NOTE_PASSWORD]))
    numbers = (digest.transaction, digest.session, digest.index, digest.total)
    expect("transaction, session, segment", (0, 1, 1, 1), numbers)
    expect("the answer's coding", NOTE_DCS, answer.dcs.octet)
    show.note(f"its digest is the note's own: {digest.digest}")
    talk.mirrored("sms", "AT+COPS?")


def long_sms(stage: Stage, show: Show) -> None:
    """SMS-8: concatenated parts."""
    talk = _Talk(stage, show)
    talk.sim.ask("answer", command="#CSURVC", lines=list(SURVEY))
    talk.send_sms(stage.number, "AT#CSURVC")
    parts = talk.answers()
    if len(parts) < 2:
        raise Failed("the number of parts", "more than one", len(parts))
    references = {part.user_data.concatenation.reference for part in parts if part.user_data.concatenation}
    expect("the references of the parts", 1, len(references))
    whole = "".join(part.user_data.text for part in parts)
    expect("the answer, put together", "\r\n" + "\r\n".join(SURVEY) + "\r\n\r\nOK\r\n", whole)
    show.note(f"{len(parts)} parts, together the {len(whole)} characters that the module said")
    talk.mirrored("sms", "AT#CSURVC")


def strangers_sms(stage: Stage, show: Show) -> None:
    """SMS-3, SMS-13, POL-4: a stranger gets nothing, and it is recorded."""
    talk = _Talk(stage, show)
    talk.send_sms(STRANGER, NEVER_RUN)
    told = talk.session("sms", "sms not accepted")
    if not told["reason"]:
        raise Failed("the reason in the record", "that the number is in no list", told)
    expect("commands recorded", [], talk.heard("event/command"))
    expect("the SMS sent", [], talk.sent())
    show.note("nothing was run and nothing was answered")


def forbidden_sms(stage: Stage, show: Show) -> None:
    """POL-2, SMS-13."""
    talk = _Talk(stage, show)
    talk.send_sms(stage.number, DANGEROUS)
    (answer,) = talk.answers()
    expect("the answer", '\r\n#ATRUN: "policy"\r\n\r\nERROR\r\n', answer.user_data.text)
    talk.refused("sms", DANGEROUS, "policy")


def sms_by_hand(stage: Stage, show: Show) -> None:
    """A real module: somebody has to write the SMS, and gets the answer."""
    talk = _Talk(stage, show)
    show.text(f"  Please send the SMS  AT+CSQ  from {stage.number} to this module's number within 3 minutes.")
    talk.mirrored("sms", "AT+CSQ", within=BY_HAND_WITHIN)
    show.note(f"the answer goes to {stage.number}")


def tcp_command(stage: Stage, show: Show) -> None:
    """TCP-3, TCP-4."""
    talk = _Talk(stage, show)
    with _Connection(stage, show) as connection:
        connection.log_in(stage.tcp_password)
        answer = connection.ask("AT+CSQ", "OK\r\n")
    expect_form("the echo and the answer", r"AT\+CSQ\r" + CSQ_ANSWER, answer)
    talk.mirrored("tcp", "AT+CSQ")


def tcp_forbidden(stage: Stage, show: Show) -> None:
    """POL-2, REQ-10."""
    talk = _Talk(stage, show)
    with _Connection(stage, show) as connection:
        connection.log_in(stage.tcp_password)
        answer = connection.ask(DANGEROUS, "ERROR\r\n")
    expect("the echo and the answer", f"{DANGEROUS}\r\r\nERROR\r\n", answer)
    talk.refused("tcp", DANGEROUS, "policy")


def tcp_wrong_password(stage: Stage, show: Show) -> None:
    """TCP-3: a wrong pair closes the connection, and nothing is said."""
    talk = _Talk(stage, show)
    with _Connection(stage, show) as connection:
        connection.log_in("wrong" + stage.tcp_password, "another password")
        expect("what is sent before the connection is closed", "", connection.rest())
    show.answer("tcp", "(closed without a word)")
    told = talk.session("tcp", "login refused")
    expect("the reason in the record", "auth", told["reason"])


def mqtt_command(stage: Stage, show: Show) -> None:
    """The contract's request and response."""
    talk = _Talk(stage, show)
    talk.ask_mqtt("tour-1", "AT+CSQ")
    response = talk.response("tour-1")
    expect("its state and final result", ("ok", "OK"), (response["state"], response["final"]))
    (line,) = response["lines"] if len(response["lines"]) == 1 else [str(response["lines"])]
    expect_form("its line", CSQ, line)
    command, _ = talk.mirrored("mqtt", "AT+CSQ")
    expect("the id and the asker in the mirror", ("tour-1", "tour"), (command["id"], command["peer"]))
    expect("the rid in the mirror", response["rid"], command["rid"])


def mqtt_forbidden(stage: Stage, show: Show) -> None:
    """MQ-7, POL-2."""
    talk = _Talk(stage, show)
    talk.ask_mqtt("tour-2", DANGEROUS)
    response = talk.response("tour-2")
    expect("its state and reason", ("rejected", "policy"), (response["state"], response["reason"]))
    talk.refused("mqtt", DANGEROUS, "policy")


def mqtt_retained(stage: Stage, show: Show) -> None:
    """MQ-2: what would run again at each connection is never run."""
    talk = _Talk(stage, show)
    talk.ask_mqtt("tour-3", NEVER_RUN, retain=True)
    response = talk.response("tour-3")
    expect("its state and reason", ("rejected", "retained"), (response["state"], response["reason"]))
    talk.refused("mqtt", NEVER_RUN, "retained")


def nothing_else(stage: Stage, show: Show) -> None:
    """What was refused never reached the module, and no SMS went out but those that were shown."""
    sim = _simulator(stage)
    seen = [line for port in sim.ask("seen")["seen"] for line in port]
    for command in (DANGEROUS, NEVER_RUN):
        forbidden = command.removeprefix("AT")
        expect(f"command lines with {forbidden}", [], [line for line in seen if forbidden in line])
    sent = [describe_sent(message["pdu"]) for message in sim.sent()]
    receivers = Counter(message["to"] for message in sim.sent())
    expect("SMS to the sender of the digest, who is the stranger too", 1, receivers.pop(STRANGER, 0))
    expect("the others who got SMS", [stage.number], list(receivers))
    expect("SMS sent twice", [], [text for text, times in Counter(sent).items() if times > 1])
    show.note(f"the module got {len(seen)} command lines, none that was refused, and sent {len(sent)} SMS")


def clean_stop(stage: Stage, show: Show) -> None:
    """MQ-1: a clean stop publishes `offline` itself."""
    talk = _Talk(stage, show)
    expect("the daemon's exit status after SIGTERM", 0, stage.stop_daemon())
    told = talk.hear("status", lambda record: record.get("state") == "offline", "status with the state offline")
    expect("the reason: it says goodbye itself, the will says nothing of the kind", "stopped", told["reason"])


def _needs_simulator(stage: Stage) -> str:
    return "" if stage.sim is not None else "no SMS is sent by a real module on a tour"


def _needs_telephone(stage: Stage) -> str:
    if stage.sim is not None:
        return "that is for a real module (DEVICE=) and a telephone (SMS_TO=)"
    return "" if stage.number else "SMS_TO= names no telephone, so commands by SMS are off and no SMS is sent"


STEPS: Final = (
    Step("A simple SMS is answered", simple_sms, _needs_simulator),
    Step("A HAT is run and not answered", silent_sms, _needs_simulator),
    Step("A digest SMS with the application note's own user data", digest_sms, _needs_simulator),
    Step("A long answer comes in parts", long_sms, _needs_simulator),
    Step("A stranger's SMS is refused", strangers_sms, _needs_simulator),
    Step("A dangerous command by SMS is refused", forbidden_sms, _needs_simulator),
    Step("An SMS from your telephone is answered", sms_by_hand, _needs_telephone),
    Step("A login and a command over TCP", tcp_command),
    Step("A dangerous command over TCP is refused", tcp_forbidden),
    Step("A wrong password over TCP is refused", tcp_wrong_password),
    Step("A request over MQTT is answered", mqtt_command),
    Step("A dangerous command over MQTT is refused", mqtt_forbidden),
    Step("A retained request over MQTT is refused", mqtt_retained),
    Step("Nothing else went out", nothing_else, _needs_simulator),
    Step("A clean stop", clean_stop),
)


class _Talk:
    """One step's questions and what has come since it began."""

    def __init__(self, stage: Stage, show: Show) -> None:
        self._stage = stage
        self._show = show
        self._from = len(stage.messages)
        self._sent_before = 0 if stage.sim is None else len(stage.sim.sent())
        self._stored_before = 0 if stage.sim is None else stage.sim.stored()

    @property
    def sim(self) -> Simulator:
        return _simulator(self._stage)

    def send_sms(self, sender: str, text: str) -> None:
        self._show.question("sms", f"{sender}: {text}")
        self.sim.ask("sms", **{"from": sender, "text": text})

    def ask_mqtt(self, identifier: str, command: str, *, retain: bool = False) -> None:
        payload = json.dumps({"v": 1, "id": identifier, "cmd": command})
        self._show.question("mqtt", f"{self._stage.base}at/request/tour{' (retained)' if retain else ''} {payload}")
        self._stage.publish("at/request/tour", payload, retain=retain)

    def sent(self) -> list[Submit]:
        """What the module has sent since the step began."""
        return [decode_submit(message["pdu"]) for message in self.sim.sent()[self._sent_before :]]

    def answers(self) -> list[Submit]:
        """Wait for the whole answer by SMS and show its parts."""

        def whole() -> list[Submit] | None:
            sent = self.sent()
            part = sent[0].user_data.concatenation if sent else None
            return sent if len(sent) >= (1 if part is None else part.total) and sent else None

        found = self._stage.wait_for(whole, WITHIN)
        if found is None:
            raise Failed("the answer by SMS", f"all of it within {WITHIN:g} s", [s.user_data.text for s in self.sent()])
        for message in self.sim.sent()[self._sent_before :]:
            self._show.sent(message)
        part = found[0].user_data.concatenation
        expect("the number of SMS sent", 1 if part is None else part.total, len(found))
        return found

    def removed(self) -> None:
        """Wait until the request is gone from the store: that is the last thing done with it (SMS-11)."""
        if self._stage.wait_for(lambda: self.sim.stored() <= self._stored_before or None, WITHIN) is None:
            raise Failed("messages in the store", f"{self._stored_before} at most", self.sim.stored())

    def heard(self, topic: str) -> list[dict[str, Any]]:
        """The records of a topic since the step began."""
        return [message.record for message in self._since() if message.topic == topic]

    def hear(
        self, topic: str, fits: Callable[[dict[str, Any]], bool], what: str, within: float = WITHIN
    ) -> dict[str, Any]:
        """Wait for a record, show it and return it."""
        message = self._find(topic, fits, what, within)
        self._show.record(message)
        return message.record

    def response(self, identifier: str) -> dict[str, Any]:
        """Wait for the answer over MQTT to the request of this id, and show its words."""
        what = f"at/response with id {identifier}"
        message = self._find("at/response", lambda record: record.get("id") == identifier, what, WITHIN)
        record = message.record
        words = [*record.get("lines", ()), record.get("final") or f"{record.get('state')}: {record.get('reason')}"]
        self._show.answer("mqtt", "  ".join(words))
        self._show.record(message)
        return record

    def mirrored(self, door: str, command: str, within: float = WITHIN) -> tuple[dict[str, Any], dict[str, Any]]:
        """Wait for both records of a command that ran well: that it was accepted, and how it ended."""
        asked, ended = self._pair(door, command, within)
        expect("the state in event/command", "accepted", asked["state"])
        expect("the outcome in event/response", ("ok", "OK"), (ended["state"], ended["final"]))
        return asked, ended

    def refused(self, door: str, command: str, reason: str) -> None:
        """Wait for both records of a command that was refused."""
        for record in self._pair(door, command, WITHIN):
            expect("state and reason in the mirror", ("rejected", reason), (record["state"], record["reason"]))

    def session(self, door: str, event: str) -> dict[str, Any]:
        """Wait for the record that somebody came, was let in or kept out."""
        return self.hear(
            "event/session",
            lambda record: (record.get("door"), record.get("event")) == (door, event),
            f'event/session of {door}: "{event}"',
        )

    def _pair(self, door: str, command: str, within: float) -> tuple[dict[str, Any], dict[str, Any]]:
        asked = self.hear(
            "event/command",
            lambda record: (record.get("door"), record.get("cmd")) == (door, command),
            f"event/command of {door}: {command}",
            within,
        )
        ended = self.hear(
            "event/response",
            lambda record: record.get("rid") == asked["rid"],
            f"event/response with rid {asked['rid']}",
        )
        expect("door and command in event/response", (door, command), (ended["door"], ended["cmd"]))
        return asked, ended

    def _find(self, topic: str, fits: Callable[[dict[str, Any]], bool], what: str, within: float) -> Message:
        def found() -> Message | None:
            return next((m for m in self._since() if m.topic == topic and m.record and fits(m.record)), None)

        message = self._stage.wait_for(found, within)
        if message is None:
            raise Failed(f"the record {what}", f"one within {within:g} s", _listed(self._since()))
        return message

    def _since(self) -> list[Message]:
        return self._stage.messages[self._from :]


class _Connection:
    """A TCP client that says what it sends and gets."""

    def __init__(self, stage: Stage, show: Show) -> None:
        self._show = show
        try:
            self._socket = socket.create_connection(("127.0.0.1", stage.tcp_port), WITHIN)
        except OSError as error:
            raise Failed("the connection", f"one to port {stage.tcp_port}", error) from None

    def __enter__(self) -> "_Connection":
        return self

    def __exit__(self, *_: object) -> None:
        """Leave, and wait until the door has seen it: the next client is let in only then."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
            self._read(lambda _: False)
        except OSError:  # the other side was faster
            pass
        finally:
            self._socket.close()

    def log_in(self, password: str, shown: str = "the password") -> None:
        """The automatic login: no prompts, no answer."""
        self._show.question("tcp", f"{TCP_USER}\r<{shown}>\r")
        self._send(f"{TCP_USER}\r{password}\r")

    def ask(self, line: str, end: str) -> str:
        """Send a command line and return all that comes up to this end, or up to the time limit."""
        self._show.question("tcp", line + "\r")
        self._send(line + "\r")
        answer = self._read(lambda text: text.endswith(end))
        self._show.answer("tcp", answer)
        return answer

    def rest(self) -> str:
        """Return what comes until the other side closes; raises Failed if it does not."""
        seen = self._read(lambda _: False)
        if self._open:
            raise Failed("the connection", "closed by the other side", "still open")
        return seen

    def _send(self, text: str) -> None:
        try:
            self._socket.sendall(text.encode("ascii"))
        except OSError as error:
            raise Failed("the connection", "one that takes what is sent", error) from None

    def _read(self, enough: Callable[[str], bool]) -> str:
        text, self._open = "", True
        end = time.monotonic() + WITHIN
        while not enough(text) and (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                piece = self._socket.recv(4096)
            except TimeoutError:
                break
            except OSError:
                piece = b""
            if not piece:
                self._open = False
                break
            text += piece.decode("latin-1")
        return text


def _simulator(stage: Stage) -> Simulator:
    if stage.sim is None:
        raise StageError("there is no simulated module on this stage")
    return stage.sim


def _listed(messages: Iterable[Message]) -> str:
    return "; ".join(f"{m.topic} {m.payload.decode('utf-8', 'replace')}" for m in messages) or "nothing"
