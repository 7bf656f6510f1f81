# SPDX-License-Identifier: Apache-2.0
"""The tour: one step for each thing that a door does or refuses, played against what is really running.

Rules of this file: a step asks, shows question, answer and mirrored record, and raises `Failed` at the first thing that
is not as the rules say. What must not happen is looked for once what comes last has come, never after a mere pause.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from atrund.demo.show import Show, describe_sent
from atrund.demo.stage import NOTE_PASSWORD, Stage
from atrund.demo.talk import Connection, Failed, Talk, expect, expect_form, simulator
from atrund.sms.digest import parse_response
from atrund.sms.pdu import Address, Dcs, Deliver, Timestamp, UserData

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


def simple_sms(stage: Stage, show: Show) -> None:
    """SMS-3, SMS-7, SMS-8."""
    talk = Talk(stage, show)
    talk.send_sms(stage.number, "AT+CSQ")
    (answer,) = talk.answers()
    expect("the number answered to", stage.number, answer.destination.text)
    expect_form("the answer", CSQ_ANSWER, answer.user_data.text)
    command, _ = talk.mirrored("sms", "AT+CSQ")
    expect("the masked number in the record", stage.number[-4:].rjust(len(stage.number) - 1, "*"), command["peer"][1:])


def silent_sms(stage: Stage, show: Show) -> None:
    """SMS-7: the H asks for silence."""
    talk = Talk(stage, show)
    talk.send_sms(stage.number, "HAT+CGMM")
    talk.mirrored("sms", "AT+CGMM")
    talk.removed()
    expect("the SMS sent", [], talk.sent())
    show.note("no answer was sent")


def digest_sms(stage: Stage, show: Show) -> None:
    """SMS-4, SMS-8, SMS-9, with the octets that the application note prints."""
    talk = Talk(stage, show)
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
    talk = Talk(stage, show)
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
    talk = Talk(stage, show)
    talk.send_sms(STRANGER, NEVER_RUN)
    told = talk.session("sms", "sms not accepted")
    if not told["reason"]:
        raise Failed("the reason in the record", "that the number is in no list", told)
    expect("commands recorded", [], talk.heard("event/command"))
    expect("the SMS sent", [], talk.sent())
    show.note("nothing was run and nothing was answered")


def forbidden_sms(stage: Stage, show: Show) -> None:
    """POL-2, SMS-13."""
    talk = Talk(stage, show)
    talk.send_sms(stage.number, DANGEROUS)
    (answer,) = talk.answers()
    expect("the answer", '\r\n#ATRUN: "policy"\r\n\r\nERROR\r\n', answer.user_data.text)
    talk.refused("sms", DANGEROUS, "policy")


def sms_by_hand(stage: Stage, show: Show) -> None:
    """A real module: somebody has to write the SMS, and gets the answer."""
    talk = Talk(stage, show)
    show.text(f"  Please send the SMS  AT+CSQ  from {stage.number} to this module's number within 3 minutes.")
    talk.mirrored("sms", "AT+CSQ", within=BY_HAND_WITHIN)
    show.note(f"the answer goes to {stage.number}")


def tcp_command(stage: Stage, show: Show) -> None:
    """TCP-3, TCP-4."""
    talk = Talk(stage, show)
    with Connection(stage.tcp_port, show) as connection:
        connection.log_in(stage.tcp_password)
        answer = connection.ask("AT+CSQ", "OK\r\n")
    expect_form("the echo and the answer", r"AT\+CSQ\r" + CSQ_ANSWER, answer)
    talk.mirrored("tcp", "AT+CSQ")


def tcp_forbidden(stage: Stage, show: Show) -> None:
    """POL-2, REQ-10."""
    talk = Talk(stage, show)
    with Connection(stage.tcp_port, show) as connection:
        connection.log_in(stage.tcp_password)
        answer = connection.ask(DANGEROUS, "ERROR\r\n")
    expect("the echo and the answer", f"{DANGEROUS}\r\r\nERROR\r\n", answer)
    talk.refused("tcp", DANGEROUS, "policy")


def tcp_wrong_password(stage: Stage, show: Show) -> None:
    """TCP-3: a wrong pair closes the connection, and nothing is said."""
    talk = Talk(stage, show)
    with Connection(stage.tcp_port, show) as connection:
        connection.log_in("wrong" + stage.tcp_password, "another password")
        expect("what is sent before the connection is closed", "", connection.rest())
    show.answer("tcp", "(closed without a word)")
    told = talk.session("tcp", "login refused")
    expect("the reason in the record", "auth", told["reason"])


def mqtt_command(stage: Stage, show: Show) -> None:
    """The contract's request and response."""
    talk = Talk(stage, show)
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
    talk = Talk(stage, show)
    talk.ask_mqtt("tour-2", DANGEROUS)
    response = talk.response("tour-2")
    expect("its state and reason", ("rejected", "policy"), (response["state"], response["reason"]))
    talk.refused("mqtt", DANGEROUS, "policy")


def mqtt_retained(stage: Stage, show: Show) -> None:
    """MQ-2: what would run again at each connection is never run."""
    talk = Talk(stage, show)
    talk.ask_mqtt("tour-3", NEVER_RUN, retain=True)
    response = talk.response("tour-3")
    expect("its state and reason", ("rejected", "retained"), (response["state"], response["reason"]))
    talk.refused("mqtt", NEVER_RUN, "retained")


def nothing_else(stage: Stage, show: Show) -> None:
    """What was refused never reached the module, and no SMS went out but those that were shown."""
    sim = simulator(stage)
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
    talk = Talk(stage, show)
    expect("the daemon's exit status after SIGTERM", 0, stage.stop_daemon())
    told = talk.hear("status", lambda record: record.get("state") == "offline", "status with the state offline")
    expect("the reason: it says goodbye itself, the will says nothing of the kind", "stopped", told["reason"])


def _needssimulator(stage: Stage) -> str:
    return "" if stage.sim is not None else "no SMS is sent by a real module on a tour"


def _needs_telephone(stage: Stage) -> str:
    if stage.sim is not None:
        return "that is for a real module (DEVICE=) and a telephone (SMS_TO=)"
    return "" if stage.number else "SMS_TO= names no telephone, so commands by SMS are off and no SMS is sent"


STEPS: Final = (
    Step("A simple SMS is answered", simple_sms, _needssimulator),
    Step("A HAT is run and not answered", silent_sms, _needssimulator),
    Step("A digest SMS with the application note's own user data", digest_sms, _needssimulator),
    Step("A long answer comes in parts", long_sms, _needssimulator),
    Step("A stranger's SMS is refused", strangers_sms, _needssimulator),
    Step("A dangerous command by SMS is refused", forbidden_sms, _needssimulator),
    Step("An SMS from your telephone is answered", sms_by_hand, _needs_telephone),
    Step("A login and a command over TCP", tcp_command),
    Step("A dangerous command over TCP is refused", tcp_forbidden),
    Step("A wrong password over TCP is refused", tcp_wrong_password),
    Step("A request over MQTT is answered", mqtt_command),
    Step("A dangerous command over MQTT is refused", mqtt_forbidden),
    Step("A retained request over MQTT is refused", mqtt_retained),
    Step("Nothing else went out", nothing_else, _needssimulator),
    Step("A clean stop", clean_stop),
)
