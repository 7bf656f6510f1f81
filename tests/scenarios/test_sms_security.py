# SPDX-License-Identifier: Apache-2.0
"""Codes and seals with the real programs: made by atrunctl, taken once, and not again after a kill."""

import json

import pyotp

from tests.scenarios.conftest import Stage
from tests.scenarios.players import Daemon, Module, until

FRIEND = "+393468686711"
STRANGER = "+4915112345678"
SIGNAL = "\r\n+CSQ: 14,99\r\n\r\nOK\r\n"
REPLAY = '\r\n#ATRUN: "replay"\r\n\r\nERROR\r\n'


def answers(module: Module) -> list[str]:
    return [sent["text"] for sent in module.ask("sent")["sent"]]


def send(module: Module, text: str, sender: str = FRIEND) -> str:
    """Send an SMS and wait for its answer."""
    before = len(answers(module))
    module.ask("sms", **{"from": sender, "text": text})
    until(lambda: len(answers(module)) > before, f"the answer to {text}")
    return answers(module)[-1]


def sealed(daemon: Daemon, line: str) -> str:
    encoded = daemon.ctl("sms", "encode", "--seal", str(daemon.folder / "key"), "--to", "1", line)
    decoded = daemon.ctl("sms", "decode", encoded.stdout.splitlines()[1])
    text: str = json.loads(decoded.stdout)["user_data"]["text"]
    return text


def test_what_atrunctl_makes_is_taken_once_also_when_the_daemon_is_killed(stage: Stage) -> None:
    module = stage.module()
    daemon = stage.daemon(module)
    enrolled = daemon.ctl("sms", "enrol", FRIEND, "--uri", "--file", str(daemon.folder / "code"))
    assert enrolled.returncode == 0, enrolled.stderr
    assert daemon.ctl("sms", "seal-key", "--number", "7", str(daemon.folder / "key")).returncode == 0
    app = pyotp.parse_uri(enrolled.stdout.strip())
    assert isinstance(app, pyotp.HOTP)
    daemon.configure(
        sms={
            "enabled": True,
            "numbers": [FRIEND],
            "codes": [{"number": FRIEND, "secret_file": "code"}],
            "seal_key_files": ["key"],
        }
    )
    daemon.start()
    daemon.heard("sms door open")
    assert send(module, f"AT+CSQ #{app.at(0)}") == SIGNAL
    envelope = sealed(daemon, "AT+CSQ")
    assert send(module, envelope, STRANGER) == SIGNAL
    daemon.kill()
    daemon.start()
    assert send(module, f"AT+CSQ #{app.at(0)}") == REPLAY
    assert send(module, envelope, STRANGER) == REPLAY
    assert send(module, f"AT+CSQ #{app.at(50)} #{app.at(51)}") == SIGNAL
    assert send(module, sealed(daemon, "AT+CSQ"), STRANGER) == SIGNAL
    assert app.at(0) not in daemon.text
    assert daemon.stop() == 0
