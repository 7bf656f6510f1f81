# SPDX-License-Identifier: Apache-2.0
"""How a step of the tour asks, listens and compares; everything that comes and goes is shown as it does."""

import json
import re
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, Self

from atrund.demo.players import Message, Simulator, StageError
from atrund.demo.show import Show
from atrund.demo.stage import TCP_USER, Stage
from atrund.sms.pdu import Submit, decode_submit

WITHIN: Final = 15.0
"""Seconds for what is expected to come: the command's own second, and a slow machine."""


class Failed(Exception):
    """Something did not come out as the rules say."""

    def __init__(self, what: str, expected: object, seen: object) -> None:
        super().__init__(what)
        self.what = what
        self.expected = expected
        self.seen = seen


def expect(what: str, expected: object, seen: object) -> None:
    """Raise Failed unless both are equal."""
    if seen != expected:
        raise Failed(what, expected, seen)


def expect_form(what: str, pattern: str, seen: str) -> None:
    """Raise Failed unless all of a text has this form."""
    if not re.fullmatch(pattern, seen):
        raise Failed(what, f"the form {pattern}", seen)


class Talk:
    """One step's questions and what has come since it began."""

    def __init__(self, stage: Stage, show: Show) -> None:
        self._stage = stage
        self._show = show
        self._from = len(stage.messages)
        self._sent_before = 0 if stage.sim is None else len(stage.sim.sent())
        self._stored_before = 0 if stage.sim is None else stage.sim.stored()

    @property
    def sim(self) -> Simulator:
        """The simulated module's control; raises StageError where a real module is used."""
        return simulator(self._stage)

    def send_sms(self, sender: str, text: str) -> None:
        """Let an SMS in the default alphabet arrive at the module."""
        self._show.question("sms", f"{sender}: {text}")
        self.sim.ask("sms", **{"from": sender, "text": text})

    def ask_mqtt(self, identifier: str, command: str, *, retain: bool = False) -> None:
        """Publish a request with this id."""
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


class Connection:
    """A TCP client that says what it sends and gets."""

    def __init__(self, port: int, show: Show) -> None:
        """Connect to a port of this machine; raises Failed."""
        self._show = show
        self._open = True
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), WITHIN)
        except OSError as error:
            raise Failed("the connection", f"one to port {port}", error) from None

    def __enter__(self) -> Self:
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
        text = ""
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


def simulator(stage: Stage) -> Simulator:
    """Return the simulated module's control; raises StageError where a real module is used."""
    if stage.sim is None:
        raise StageError("there is no simulated module on this stage")
    return stage.sim


def _listed(messages: Iterable[Message]) -> str:
    return "; ".join(f"{m.topic} {m.payload.decode('utf-8', 'replace')}" for m in messages) or "nothing"
