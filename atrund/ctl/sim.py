# SPDX-License-Identifier: Apache-2.0
"""`atrunctl sim`: puts questions and faults to a running simulated module (`python -m atrund.sim`)."""

import argparse
from collections.abc import Callable
from typing import Final

ANSWER_WAIT: Final = 10.0
"""Seconds for an answer that the simulator gives from memory."""

MANGLES: Final = (
    "garble", "cut", "double", "drop", "late", "split", "no_final", "extra_final", "wrong_final", "urc_inside",
    "reboot_inside", "no_prompt", "two_prompts",
)  # fmt: skip
"""What the simulator can do to an answer; it is the simulator that judges."""

Fields = Callable[[argparse.Namespace], dict[str, object]]


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and all of its own."""
    parser = subparsers.add_parser(
        "sim",
        help="steer a simulated module",
        description="Steers a simulated module through its control socket.",
        epilog="example:\n  atrunctl sim --control /tmp/sim.sock sms --from +391234567 'AT+CSQ'",
    )
    parser.add_argument("--control", metavar="PATH", help="the simulator's control socket (default: $ATRUND_SIM)")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    parser.set_defaults(run=run)
    ops = parser.add_subparsers(metavar="WHAT", dest="op", required=True)

    sms = _add(ops, "sms", "let an SMS arrive", _keys("text", "alphabet", sender="from"))
    sms.add_argument("--from", dest="sender", metavar="NUMBER", required=True, help="its sender, such as +391234567")
    sms.add_argument("--alphabet", choices=("gsm7", "8bit", "ucs2"), default="gsm7", help="default: gsm7")
    sms.add_argument("text", metavar="TEXT")
    pdu = _add(ops, "pdu", "let an SMS arrive that is given as PDU", _keys("pdu"), op="sms")
    pdu.add_argument("pdu", metavar="HEX", type=_hexadecimal, help="an SMS-DELIVER, service centre address first")
    _add(ops, "sent", "list the SMS that the module has sent")
    _add(ops, "hang", "answer nothing any more")
    _add(ops, "resume", "answer again")
    late = _add(ops, "late", "answer a command late", _planted("seconds"))
    fail = _add(ops, "fail", "answer a command with an error", _planted("result"))
    answer = _add(ops, "answer", "answer a command with lines of your own", _planted("lines", "result"))
    for plant in (late, fail, answer):
        plant.add_argument("command", metavar="COMMAND", help="such as +COPS, or +COPS=? for that form alone")
        plant.add_argument("--times", metavar="N", type=int, help="how often (default: the next time)")
        plant.add_argument("--always", action="store_true", help="every time")
    late.add_argument("seconds", metavar="SECONDS", type=_seconds)
    fail.add_argument("result", metavar="RESULT", help="such as ERROR or '+CME ERROR: 3'")
    answer.add_argument("lines", metavar="LINE", nargs="*")
    answer.add_argument("--result", default="OK", help="its final result (default: OK)")
    clear = _add(ops, "clear", "take back late, fail and answer", lambda args: _without_none(command=args.command))
    clear.add_argument("command", metavar="COMMAND", nargs="?", help="for this command (default: for all)")
    _add(ops, "reboot", "restart the module")
    registration = _add(
        ops, "registration", "set the registration", lambda args: _without_none(state=args.state, seconds=args.seconds)
    )
    registration.add_argument(
        "state", metavar="N", type=int, help="as +CREG has it: 0 no, 1 home, 2 searching, 5 roaming"
    )
    registration.add_argument("--seconds", metavar="S", type=_seconds, help="and back after so long (default: stay)")
    card = _add(ops, "card", "change the SIM card", _keys("state"), op="sim")
    card.add_argument("state", metavar="STATE", help="READY, 'SIM PIN', 'SIM PUK' or NONE")
    signal = _add(ops, "signal", "set the signal", lambda args: _without_none(rssi=args.rssi, ber=args.ber))
    signal.add_argument("rssi", metavar="RSSI", type=int, help="as +CSQ has it: 0 to 31, 99 unknown")
    signal.add_argument("ber", metavar="BER", type=int, nargs="?", help="0 to 7, 99 unknown")
    urc = _add(ops, "urc", "put out an unsolicited line", _keys("text"))
    urc.add_argument("text", metavar="TEXT")
    _add(ops, "state", "show the module's state")
    _add(ops, "seen", "list the command lines that the module got")
    _register_more(ops)


def _register_more(ops: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add what is about the ways of real modules."""
    quirk = _add(ops, "quirk", "set a quirk", lambda args: _without_none(name=args.name, value=args.value))
    quirk.add_argument("name", metavar="NAME", help="as `quirks` lists it")
    quirk.add_argument("value", metavar="VALUE", nargs="?", help="on, off, a number or a word (default: its default)")
    _add(ops, "quirks", "list the quirks, what each can be and does")
    mangle = _add(ops, "mangle", "spoil answers of a command", _mangled)
    mangle.add_argument("command", metavar="COMMAND", help="such as +CSQ, or +CSQ? for that form alone, or * for any")
    mangle.add_argument("how", metavar="HOW", help=f"one of {', '.join(MANGLES)}")
    mangle.add_argument("--times", metavar="N", type=int, help="how often (default: the next time)")
    mangle.add_argument("--always", action="store_true", help="every time")
    mangle.add_argument("--seconds", metavar="S", type=_seconds, help="how late, or between the pieces of split")
    mangle.add_argument("--text", metavar="TEXT", help="the line of urc_inside (default: RING)")
    mangle.add_argument("--position", metavar="N", type=int, help="after how many lines it comes (default: any)")
    _add(ops, "unplug", "take the module out of the bus")
    _add(ops, "plug", "put it back")
    tenant = _add(ops, "tenant", "let another program run a command line on a port of its own", _keys("line"))
    tenant.add_argument("line", metavar="LINE", help="such as AT+CFUN=4")
    fill = _add(ops, "fill", "fill a message store", lambda args: _without_none(memory=args.memory, leave=args.leave))
    fill.add_argument("memory", metavar="MEMORY", nargs="?", help="SM or ME (default: where messages arrive)")
    fill.add_argument("--leave", metavar="N", type=int, help="slots to leave free (default: none)")
    report = _add(ops, "report", "let a status report arrive", _reported)
    report.add_argument("reference", metavar="REFERENCE", type=int, help="of the message, as +CMGS told it")
    report.add_argument("to", metavar="NUMBER", help="whom it was sent to")
    report.add_argument("--status", metavar="N", type=int, help="0 to 255 (default: 0, delivered)")
    network = _add(
        ops,
        "network",
        "show how bad the way to the other module is, or change it",
        lambda args: _without_none(loss=args.loss, repeat=args.repeat, reorder=args.reorder, delay=args.delay),
    )
    for name, what in (("loss", "are lost"), ("repeat", "come twice"), ("reorder", "are overtaken")):
        network.add_argument(f"--{name}", metavar="SHARE", type=float, help=f"of messages that {what}, 0 to 1")
    network.add_argument("--delay", metavar="S", type=_seconds, help="how long a message may take at most")
    uploads = _add(ops, "uploads", "list what was sent behind prompts", lambda args: _without_none(clear=args.clear))
    uploads.add_argument("--clear", action="store_const", const=True, help="and forget it")


def run(args: argparse.Namespace) -> int:
    """Send the operation and show its answer; return the exit code."""
    import json
    import os

    from atrund.ctl.link import Unreachable, to_simulator
    from atrund.ctl.terminal import complain, printable, show, show_json

    path = args.control or os.environ.get("ATRUND_SIM")
    if not path:
        complain("which simulator? Name its control socket by --control PATH or ATRUND_SIM.")
        return 2
    request = {"op": args.sim_op, **args.sim_fields(args)}
    try:
        with to_simulator(path) as link:
            link.send(json.dumps(request).encode("ascii") + b"\n")
            answer = json.loads(link.receive(ANSWER_WAIT))
    except Unreachable as error:
        complain(str(error))
        return 3
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
        complain("what answers there is no simulator of atrund")
        return 3
    succeeded = answer.pop("ok")
    if not succeeded:
        complain(f"the simulator refused: {printable(str(answer.get('error', 'it does not say why')))}")
        return 1
    if args.json:
        show_json(answer)
    elif answer:
        show(answer)
    return 0


def _add(
    ops: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    what: str,
    fields: Fields = lambda _: {},
    op: str | None = None,
) -> argparse.ArgumentParser:
    """Add a subcommand that sends `op` (its own name, if none is given) with what `fields` takes from its arguments."""
    parser = ops.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
    parser.set_defaults(sim_op=op or name, sim_fields=fields)
    return parser


def _keys(*names: str, **renamed: str) -> Fields:
    """Take these arguments under their own names, or under those given here."""
    keys = {name: name for name in names} | renamed
    return lambda args: {key: getattr(args, name) for name, key in keys.items()}


def _planted(*names: str) -> Fields:
    """Take these arguments, the command and how often."""
    return lambda args: {
        **_keys("command", *names)(args),
        **_without_none(times=args.times, always=args.always or None),
    }


def _mangled(args: argparse.Namespace) -> dict[str, object]:
    return {
        **_planted("how")(args),
        **_without_none(seconds=args.seconds, text=args.text, position=args.position),
    }


def _reported(args: argparse.Namespace) -> dict[str, object]:
    return _keys("reference", "to")(args) | _without_none(status=args.status)


def _without_none(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


def _hexadecimal(text: str) -> str:
    try:
        bytes.fromhex(text)
    except ValueError:
        raise argparse.ArgumentTypeError("these are no hexadecimal octets, two digits each") from None
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds
