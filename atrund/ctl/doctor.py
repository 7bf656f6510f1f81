# SPDX-License-Identifier: Apache-2.0
"""`atrunctl doctor`: looks at modules, ports, ModemManager and the daemon, and says what to do about each."""

import argparse
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # what only runs need, runs import
    from atrund.ctl.examine import Report
    from atrund.ctl.findings import Finding

ANSWER_WAIT: Final = 10.0
"""Seconds for an answer that the daemon gives from memory."""

DESCRIPTION = """\
Examines this host: Telit modules on USB, their ports and what each is for, who has them open and who may, whether
ModemManager keeps off the daemon's port, the daemon's view of module, SIM, network, SMS store, broker and clock, and
whether the TCP door can be reached from outside. Each finding is ok, a note, a warning or an error, with what to do.

It only reads: sysfs, /proc, udev, ModemManager's D-Bus properties and the daemon's control socket. It opens no port and
starts no program's service. As root it sees more: who has a port open is hidden from others.
"""

EPILOG = """\
--probe:
  Opens each AT port that nobody has open, for itself alone, and sends AT, AT+CGMM, AT+CGSN, AT+CPIN?, AT+CREG? and
  AT+CSCA?, each with a few seconds to answer. A port that is open or locked elsewhere, or that ModemManager uses, is
  left alone; so are all where other users' open files can't be seen (run it as root). Of an IMEI the end is shown.

--json:
  One object: "level" (the worst), "findings" (level, about, text, advice), "modules" (with their ports, who has them
  open, and whether ModemManager uses or ignores them) and "daemon" (its status, null if it can't be asked).

exit codes:
  0  nothing worse than a note
  1  there are warnings or errors
  2  wrong usage

examples:
  sudo atrunctl doctor
  sudo atrunctl doctor --probe --port usb:1-1.4/05
  atrunctl doctor --json | jq -r '.findings[] | select(.level == "error") | .text'
"""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "doctor", help="examine modules, ports and the daemon", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("--probe", action="store_true", help="ask free AT ports, too (as root)")
    parser.add_argument(
        "--port", metavar="NAME", help="the port to examine as the daemon's, as module.port names it (default: it says)"
    )
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Examine and show; return the exit code."""
    from atrund.ctl.examine import examine
    from atrund.ctl.findings import worst
    from atrund.ctl.host import Host
    from atrund.ctl.terminal import complain, show_json
    from atrund.usb.names import PortNameError, parse_name

    if args.port is not None:
        try:
            parse_name(args.port)
        except PortNameError as error:
            complain(f"--port: {error}")
            return 2
    status, unreachable = _ask_daemon(args.socket)
    report = examine(Host(), status=status, name=args.port or _configured(status), probing=args.probe)
    report.findings[:0] = unreachable
    if args.json:
        show_json(report.as_json())
    else:
        _show(report)
    return 1 if worst(report.findings).bad else 0


def _ask_daemon(socket: str | None) -> "tuple[dict[str, object] | None, list[Finding]]":
    """What the daemon says of itself, or a finding that it does not."""
    from atrund.control import ControlError, StatusAnswer, StatusRequest, decode_answer, encode
    from atrund.ctl.findings import Finding, Level
    from atrund.ctl.link import Unreachable, to_daemon

    try:
        with to_daemon(socket) as link:
            link.send(encode(StatusRequest()))
            answer = decode_answer(link.receive(ANSWER_WAIT))
    except Unreachable as error:
        text, _, advice = str(error).partition("\n")
        tries = "; ".join(" ".join(line.split()) for line in advice.split("\n"))
        return None, [Finding(Level.ERROR, "daemon", text, tries)]
    except ControlError as error:
        text = f"the daemon sent what this atrunctl does not know: {error}"
        return None, [Finding(Level.ERROR, "daemon", text, "are both of the same version?")]
    if isinstance(answer, StatusAnswer):
        return answer.status, []
    return None, [Finding(Level.ERROR, "daemon", "the daemon refused to tell its status", "journalctl -u atrund")]


def _configured(status: dict[str, object] | None) -> str:
    """The name of the port in the daemon's configuration, as it tells it; empty where it does not."""
    module = (status or {}).get("module")
    port = module.get("port") if isinstance(module, dict) else None
    return port if isinstance(port, str) else ""


def _show(report: "Report") -> None:
    """Print a line for each finding, and its advice below it; then how many were bad."""
    from collections import Counter

    from atrund.ctl.findings import Level
    from atrund.ctl.terminal import printable

    width = max((len(finding.about) for finding in report.findings), default=0)
    for finding in report.findings:
        print(f"{finding.level.value:7}  {printable(finding.about):{width}}  {printable(finding.text)}")
        if finding.advice:
            print(f"{'':7}  {'':{width}}  -> {printable(finding.advice)}")
    count = Counter(finding.level for finding in report.findings)
    bad = [level for level in (Level.ERROR, Level.WARNING) if count[level]]
    words = [f"{count[level]} {level.value}{'s' if count[level] > 1 else ''}" for level in bad]
    print(f"\n{' and '.join(words) or 'nothing is wrong'}")
