# SPDX-License-Identifier: Apache-2.0
"""What `atrunctl fleet run` prints: a table or lines of JSON, progress, and who did not answer.

Rule of this file: whatever came from a node is escaped before a terminal sees it.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from atrund.ctl.fleet_gather import OPEN, Gather, Node, Stand
from atrund.ctl.fleet_names import in_order
from atrund.ctl.terminal import printable

PROGRESS_EVERY: Final = 0.2
"""Seconds between two lines of progress: fast enough for a person, nothing for the machine."""
NAMED_MAX: Final = 8
"""Nodes, states or causes that a sentence names."""
WORD_MAX: Final = 32
"""Characters of a state or a reason, whose column would else be as wide as a node likes: the contract's are shorter."""

_ANSWERED_ALL, _SOME_FAILED, _SOME_SILENT = 0, 1, 4

_EXPLAINED: Final = {
    Stand.SILENT: "did not answer",
    Stand.OFFLINE: "not asked, for their status is offline",
    Stand.ABSENT: "unknown to the broker: nobody takes requests under that name",
    Stand.DENIED: "the broker took no request for them",
    Stand.UNASKED: "not asked any more",
}


def as_json(node: Node) -> str:
    """Return a node's line: what it answered, or how it stands with it."""
    told: dict[str, Any] = {"node": node.name, "answered": node.answer is not None}
    if node.answer is not None:
        span = None if node.seconds is None else round(node.seconds, 3)
        told |= {"state": node.answer.state, "seconds": span, "late": node.late, "answer": dict(node.answer.record)}
    else:
        told |= {"state": node.stand.value.replace(" ", "_"), "online": node.online}
        told |= {"why": node.why} if node.why else {}
    return compact(told)


def compact(value: object) -> str:
    """Return a value as a line of JSON that no terminal takes for anything else: DEL is ASCII, so JSON leaves it."""
    return json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f")


def table(gather: Gather) -> list[str]:
    """Return the rows of the table, its head first; an answer of several lines takes as many."""
    rows = [("NODE", "STATE", "TIME", "ANSWER")]
    for node in _sorted(gather):
        first, *more = _lines(node)
        rows.append((node.name, _state(node), _span(node), first))
        rows += [("", "", "", line) for line in more]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip() for row in rows]


def summary(gather: Gather) -> list[str]:
    """Return how it went: one line for all, and one for each kind of those without an answer, with some names."""
    nodes = gather.nodes.values()
    counted = Counter(_word(node) for node in nodes)
    counts = ", ".join(f"{number} {word}" for word, number in counted.most_common(NAMED_MAX))
    lines = [f"{len(nodes)} {'node' if len(nodes) == 1 else 'nodes'}: {counts}"]
    for stand, words in _EXPLAINED.items():
        names = [node.name for node in _sorted(gather) if node.stand is stand]
        if names:
            lines.append(f"{words}: {some(names)}")
    lines += [f"why: {why}" for why in sorted({printable(node.why) for node in nodes if node.why})[:NAMED_MAX]]
    if gather.garbled:
        lines.append(f"{gather.garbled} payloads were no answer of the contract")
    if any(node.answer is not None and node.answer.reason == "clock_unset" for node in nodes):
        lines.append("clock_unset: without --expires, or with --protocol 5, they need not know the time")
    return lines


def exit_code(gather: Gather) -> int:
    """Return what the run came to."""
    nodes = gather.nodes.values()
    if any(node.answer is None for node in nodes):
        return _SOME_SILENT
    return _ANSWERED_ALL if all(node.answer and node.answer.ok for node in nodes) else _SOME_FAILED


def some(names: Sequence[str]) -> str:
    """Return names for a sentence, not too many."""
    rest = len(names) - NAMED_MAX
    return ", ".join(names[:NAMED_MAX]) + (f" and {rest} more" if rest > 0 else "")


class Progress:
    """One line on standard error that changes, where that is a terminal."""

    def __init__(self) -> None:
        self._is_on = sys.stderr.isatty()
        self._next_at = 0.0
        self._shown = False

    def show(self, gather: Gather, now: float) -> None:
        """Show how far it is."""
        if not self._is_on or now < self._next_at:
            return
        self._next_at = now + PROGRESS_EVERY
        stands = Counter(node.stand for node in gather.nodes.values())
        failed = sum(node.answer is not None and not node.answer.ok for node in gather.nodes.values())
        parts = [f"{stands[Stand.ANSWERED]} of {len(gather.nodes)} answered"]
        parts += [f"{failed} not ok"] if failed else []
        parts += [f"{number} {stand.value}" for stand in Stand if stand in OPEN and (number := stands[stand])]
        print(f"\r\x1b[K{', '.join(parts)}", end="", file=sys.stderr, flush=True)
        self._shown = True

    def clear(self) -> None:
        """Take the line away, so that something else can be said."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = False
            self._next_at = 0.0


def _sorted(gather: Gather) -> list[Node]:
    return sorted(gather.nodes.values(), key=lambda node: in_order(node.name))


def _word(node: Node) -> str:
    return _short(node.answer.state) if node.answer is not None else node.stand.value


def _state(node: Node) -> str:
    if node.answer is None:
        return node.stand.value
    reason = f" ({_short(node.answer.reason)})" if node.answer.reason else ""
    return f"{_short(node.answer.state)}{reason}{', late' if node.late else ''}"


def _short(text: str) -> str:
    return printable(text)[:WORD_MAX]


def _span(node: Node) -> str:
    return "-" if node.seconds is None else f"{node.seconds:.1f} s"


def _lines(node: Node) -> list[str]:
    if node.answer is None:
        if node.why:
            return [printable(node.why)]
        return ["its status is offline" if node.online is False and node.stand is Stand.SILENT else ""]
    final = node.answer.final
    lines = [printable(line) for line in node.answer.lines]
    if isinstance(why := node.answer.record.get("detail"), str) and not node.answer.ok:
        lines.append(printable(why))
    if final is not None and (final != "OK" or not lines):
        lines.append(printable(final))
    return lines or [""]
