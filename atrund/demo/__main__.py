# SPDX-License-Identifier: Apache-2.0
"""`python -m atrund.demo`: everything up, to try by hand until Ctrl-C; with `--once` a tour that judges itself."""

import argparse
import io
import os
import queue
import re
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from atrund.demo.players import Message, StageError
from atrund.demo.show import Show
from atrund.demo.stage import TCP_USER, Interrupted, Stage, Wishes
from atrund.demo.tour import STEPS, play

FAILED: Final = 1

MQTT_PORT: Final = 1883
WATCH_EVERY: Final = 0.3
"""Seconds between two looks at what the module sent: as good as at once for a person."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return the exit status: 0, 1 when a step failed or a program can't be had, 2 for bad options."""
    args = _parser(os.environ).parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # whatever an SMS holds and the terminal can't show
    show = Show(sys.stdout)
    wishes = Wishes(args.broker, args.device, args.sms_to)
    try:
        return _tour(wishes, show) if args.once else _watch(wishes, show)
    except StageError as error:
        show.bad(f"The demo can't go on: {error}")
        return FAILED
    except Interrupted as interrupted:
        show.text(f"\n{interrupted}: everything is stopped and removed.")
        return 128 + interrupted.number
    except BrokenPipeError:
        # Whoever read the output has gone: nothing is left to say, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _tour(wishes: Wishes, show: Show) -> int:
    log: list[str] = []
    stage = _stage(wishes, show, on_log=log.append)
    with stage:
        show.text(_picture(stage))
        failures = play(STEPS, stage, show)
    if failures:
        show.text("\nThe daemon's log:")
        for line in log:
            show.log(line)
        return FAILED
    return 0


def _watch(wishes: Wishes, show: Show) -> int:
    """Show what happens until Ctrl-C, which is the way to end this and no failure."""
    events: queue.SimpleQueue[str | Message] = queue.SimpleQueue()
    stage = _stage(wishes, show, on_log=events.put, on_message=events.put)
    with stage:
        show.text(_picture(stage))
        show.text(_lines_to_try(stage))
        last: dict[str, Any] | None = None
        try:
            while True:
                _show_next(events, show)
                last = _show_sent(stage, show, last)
                stage.check()
        except Interrupted as interrupted:
            if interrupted.number != signal.SIGINT:
                raise
            show.text("\nStopping …")
    while not events.empty():
        _show_next(events, show)
    show.text("Everything is stopped and removed.")
    return 0


def _stage(
    wishes: Wishes, show: Show, on_log: Callable[[str], None], on_message: Callable[[Message], None] = lambda _: None
) -> Stage:
    """Return the stage, not entered yet; from here on it is what a signal ends."""
    stage = Stage(wishes, on_log, on_message)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stage.interrupt)
    show.text("Starting the players …")
    return stage


def _show_next(events: "queue.SimpleQueue[str | Message]", show: Show) -> None:
    """Show what comes next, and what came with it; nothing may come for a while."""
    try:
        event = events.get(timeout=WATCH_EVERY)
    except queue.Empty:
        return
    if isinstance(event, Message):
        show.record(event)
    else:
        show.log(event)


def _show_sent(stage: Stage, show: Show, last: dict[str, Any] | None) -> dict[str, Any] | None:
    """Show what the simulated module has sent since this message, and return the newest."""
    if stage.sim is None:
        return None
    sent = stage.sim.sent()
    for record in sent[sent.index(last) + 1 if last in sent else 0 :]:
        show.sent(record)
    return sent[-1] if sent else None


def _picture(stage: Stage) -> str:
    host, port = stage.broker
    sms = f"SMS from {stage.number}" if stage.number else "SMS: off"
    return f"""
  {sms:<30} --.
  {f"TCP to 127.0.0.1:{stage.tcp_port}":<30} ---- atrund ---- {stage.wishes.device or "the simulated module"}
  {f"MQTT at {host}:{port}":<30} --'      |
  {"":<42}the mirror: {stage.base}# at the same broker"""


def _lines_to_try(stage: Stage) -> str:
    host, port = stage.broker
    broker = f"-h {shlex.quote(host)} -p {port} -V mqttv5"
    ctl = f"{_atrunctl()} --socket {shlex.quote(str(stage.socket))}"
    sim = f"{_atrunctl()} sim --control {shlex.quote(str(stage.control))}"
    login = f"{TCP_USER}\\r{stage.tcp_password}\\r"
    request = shlex.quote('{"id":"1","cmd":"AT+COPS?"}')
    parts = [
        ("the local way in", [f"{ctl} at 'AT+CSQ;+COPS?'", f"{ctl} status"]),
        (
            "over MQTT, and everything that is mirrored",
            [
                f"mosquitto_sub {broker} -v -t '{stage.base}#'",
                f"mosquitto_pub {broker} -t {stage.base}at/request/me -m {request}",
            ],
        ),
        (
            f"over TCP: type {TCP_USER}, Enter, {stage.tcp_password}, Enter (nothing is said), then AT+CSQ, Enter",
            [
                f"telnet 127.0.0.1 {stage.tcp_port}",
                f"(printf '{login}AT+CSQ\\r'; sleep 1) | nc -q 0 127.0.0.1 {stage.tcp_port}",
            ],
        ),
    ]
    if stage.sim is not None:
        number = shlex.quote(stage.number)
        parts.append(
            (
                "by SMS from the white-listed number, a silent one, one from a stranger; and what was answered",
                [
                    f"{sim} sms --from {number} 'AT+CSQ'",
                    f"{sim} sms --from {number} 'HAT+CGMM'",
                    f"{sim} sms --from +390000000001 'AT+CSQ'",
                    f"{sim} sent",
                ],
            )
        )
    elif stage.number:
        parts.append((f"by SMS: send  AT+CSQ  from {stage.number} to this module's number", []))
    said = ["", "To try in another terminal:"]
    for title, lines in parts:
        said += ["", f"  {title}", *(f"    {line}" for line in lines)]
    return "\n".join([*said, "", "What happens shows below. Ctrl-C ends it all.", ""])


def _atrunctl() -> str:
    """Return how atrunctl is called: the script beside this Python, or else the module."""
    script = Path(sys.executable).parent / "atrunctl"
    if not script.exists():
        return f"{shlex.quote(sys.executable)} -m atrund.ctl.main"
    here = Path.cwd()
    return shlex.quote(str(script.relative_to(here) if script.is_relative_to(here) else script))


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m atrund.demo",
        description="Starts a simulated module, a broker and the daemon, to try them; Ctrl-C ends it.",
        epilog="Each option may also be given by its variable in the environment.",
    )
    parser.add_argument(
        "--once",
        action="store_true",
        default=environment.get("ONCE", "") not in {"", "0"},
        help="ONCE=1: play a tour and end with status 0 if everything came out as the rules say",
    )
    parser.add_argument(
        "--broker",
        metavar="HOST:PORT",
        type=_broker,
        default=environment.get("BROKER") or None,
        help="BROKER: use this one (without TLS) rather than start mosquitto",
    )
    parser.add_argument(
        "--device",
        metavar="PATH",
        type=_device,
        default=environment.get("DEVICE", ""),
        help="DEVICE: a real module's AT port, rather than a simulated one",
    )
    parser.add_argument(
        "--sms-to",
        metavar="NUMBER",
        type=_number,
        default=environment.get("SMS_TO", ""),
        help="SMS_TO: the only telephone that may send commands by SMS and gets answers; without it a real module "
        "sends none",
    )
    return parser


def _broker(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, port = text, str(MQTT_PORT)
    if not host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no broker; right is for example 192.0.2.1:1883")
    return host.strip("[]"), int(port)


def _device(text: str) -> str:
    if text and not Path(text).is_char_device():
        raise argparse.ArgumentTypeError(f"{text!r} is no serial port; right is for example /dev/ttyUSB2")
    return str(Path(text).absolute()) if text else ""


def _number(text: str) -> str:
    if not re.fullmatch(r"(\+?[0-9]{1,20})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no telephone number; right is for example +393401234567")
    return text


if __name__ == "__main__":
    sys.exit(main())
