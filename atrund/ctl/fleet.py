# SPDX-License-Identifier: Apache-2.0
"""`atrunctl fleet`: commands to many nodes by way of their broker, and what happens at all of them."""

import argparse

from atrund.ctl.times import add_utc

RUN_EPILOG = """\
--nodes takes a name, a pattern (* ? []; quote it, for the shell reads them too) or @FILE with one of these a line.
Patterns mean the nodes that the broker knows a status of; of those the ones that are offline are not asked. Whoever
is named is asked in any case. A line that may change something goes to more than one node only after a question, or
with --yes.

exit codes:
  0  every node answered, and every command ended well
  1  every node answered, and some commands did not end well
  2  wrong usage, no node is called so, or the question was answered by no
  3  the broker cannot be reached, or lets this user not in
  4  some nodes did not answer: what became of the command there is not known

examples:
  atrunctl fleet run --broker mqtt://localhost --nodes 'site7-*' 'AT+CSQ'
  atrunctl fleet run --broker mqtts://broker.example --ca-file ca.pem --user alice --password-file alice.txt \\
      --nodes @sites.txt --deadline 120 --json 'AT+CGMR'"""

WATCH_EPILOG = """\
exit codes:
  0  ended by Ctrl-C, or --count lines were printed
  2  wrong usage
  3  the broker cannot be reached, or lets this user not in

examples:
  atrunctl fleet watch --broker mqtt://localhost --nodes 'site7-*' --events command,response
  atrunctl fleet watch --broker mqtt://localhost --json --share archive"""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "fleet",
        help="run commands on many nodes by MQTT, or watch them",
        description="Runs commands on many nodes by way of their broker, or shows what happens there.",
    )
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    _register_run(actions)
    _register_watch(actions)


def _register_run(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "run",
        help="send a command to many nodes and gather the answers",
        description="Sends an AT command line to nodes, gathers their answers, and says who did not answer.",
        epilog=RUN_EPILOG,
    )
    parser.add_argument("cmd", metavar="LINE", help="the command line; quote it, for the shell reads ; & # and $ too")
    _broker_options(parser)
    parser.add_argument("--nodes", metavar="NODES", action="append", required=True, help="whom; may be repeated")
    parser.add_argument("--who", help="ask as this <who>, at at/request/<who> (default: the user)")
    parser.add_argument(
        "--deadline", metavar="S", type=_span, default=60.0, help="seconds that each node has to answer (default: 60)"
    )
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=_timeout,
        help="the command's own deadline, 1 to 3600 (default: 5 less than --deadline)",
    )
    parser.add_argument(
        "--expires",
        metavar="S",
        type=_expiry,
        help=_EXPIRES,
    )
    parser.add_argument(
        "--rate", metavar="N", type=_rate, default=50.0, help="requests a second; 0 for no bound (default: 50)"
    )
    body = parser.add_mutually_exclusive_group()
    body.add_argument("--body", metavar="TEXT", help="the text for the command's prompt")
    body.add_argument("--body-file", metavar="F", help="what is in F for the command's prompt")
    parser.add_argument("--ask-offline", action="store_true", help="ask those of a pattern that are offline, too")
    parser.add_argument("--gather", metavar="S", type=_span, default=1.0, help=_GATHER)
    parser.add_argument("--cancel", action="store_true", help="at Ctrl-C have the nodes give the command up")
    parser.add_argument("--yes", action="store_true", help="ask no question")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each node, as its answer comes")
    parser.set_defaults(run=_run)


def _register_watch(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "watch",
        help="show what happens at the nodes",
        description="Shows what happens at the nodes, one line each, until Ctrl-C; connects again on its own.",
        epilog=WATCH_EPILOG,
    )
    _broker_options(parser)
    parser.add_argument("--nodes", metavar="NODES", action="append", help="whose, as in fleet run (default: all)")
    parser.add_argument(
        "--events",
        metavar="KIND,...",
        type=_kinds,
        default=_kinds("command,response,session,status"),
        help="which: command, response, session, status, module, sms, urc (default: the first four)",
    )
    parser.add_argument("--share", metavar="GROUP", type=_group, help=_SHARE)
    parser.add_argument("--keep", metavar="S", type=_expiry, default=0.0, help=_KEEP)
    parser.add_argument("--count", metavar="N", type=_count, default=0, help="end after N lines")
    add_utc(parser)
    parser.add_argument("--json", action="store_true", help="print them as JSON; their times are in UTC")
    parser.set_defaults(run=_watch)


def _broker_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("broker")
    group.add_argument("--broker", metavar="URL", required=True, help="mqtt://HOST[:PORT], or mqtts:// for TLS")
    group.add_argument("--prefix", default="atrund", help="what all topics begin with (default: atrund)")
    group.add_argument("--protocol", choices=["5", "3.1.1"], default="5", help="of MQTT (default: 5)")
    group.add_argument("--user", default="", help="the user's name")
    group.add_argument("--password-file", metavar="F", help="read its password from F (- for standard input)")
    group.add_argument("--client-id", help="the client identifier (default: a random one)")
    group.add_argument("--insecure", action="store_true", help="speak clear text to a broker on another machine")
    group.add_argument("--ca-file", metavar="PEM", help="the broker's certificate is of one of these authorities")
    group.add_argument("--cert-file", metavar="PEM", help="our certificate")
    group.add_argument("--key-file", metavar="PEM", help="its private key (default: in the same file)")


def _run(args: argparse.Namespace) -> int:
    from atrund.ctl.fleet_run import run

    return run(args)


def _watch(args: argparse.Namespace) -> int:
    from atrund.ctl.fleet_watch import run

    return run(args)


def _number(text: str, lowest: float, highest: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not lowest <= value <= highest:
        raise argparse.ArgumentTypeError(f"{text!r} is no {what} from {lowest:g} to {highest:g}")
    return value


def _span(text: str) -> float:
    return _number(text, 0.1, 86_400, "number of seconds")


def _timeout(text: str) -> float:
    return _number(text, 1, 3600, "number of seconds")


def _expiry(text: str) -> float:
    return _number(text, 0, 30 * 86_400, "number of seconds")


def _rate(text: str) -> float:
    return _number(text, 0, 10_000, "number of requests a second")


def _count(text: str) -> int:
    return int(_number(text, 1, 1e9, "number of lines"))


def _group(text: str) -> str:
    if not text or set(text) & set("/+#") or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a group: no / + # in it")
    return text


def _kinds(text: str) -> list[str]:
    known = ["command", "response", "session", "status", "module", "sms", "urc"]
    given = [word.strip() for word in text.split(",")]
    for word in given:
        if word not in known:
            raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(known)}")
    return given


_EXPIRES = (
    "seconds in which a node may begin to run it; 0 for no bound (default: --deadline; in MQTT 3.1.1 none is sent)"
)
_GATHER = "seconds without another node's status after which all are known (default: 1)"
_KEEP = "seconds for which the broker is to keep what happens while this is away; with --client-id (default: 0)"
_SHARE = "share the work with all others of this group: each event goes to one of them (MQTT 5)"
