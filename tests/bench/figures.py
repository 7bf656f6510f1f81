# SPDX-License-Identifier: Apache-2.0
"""How figures are summed up and printed, and what is aimed at."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Spread:
    """Many takes of one thing."""

    median: float
    p95: float

    @classmethod
    def of(cls, takes: Sequence[float]) -> "Spread":
        ordered = sorted(takes)
        return cls(statistics.median(ordered), ordered[math.ceil(0.95 * len(ordered)) - 1])


@dataclass(slots=True)
class Aims:
    """What is aimed at, and what it came to."""

    lines: list[str] = field(default_factory=list)

    def at_most(self, what: str, value: float, limit: float, unit: str = "") -> None:
        verdict = "met" if value <= limit else "MISSED"
        self.lines.append(f"  {verdict:<7} {what}: {value:.3g}{unit}, at most {limit:g}{unit}")

    def unknown(self, what: str, why: str) -> None:
        self.lines.append(f"  {'?':<7} {what}: {why}")


def title(text: str) -> None:
    print(f"\n{text}", flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their head, the first column to the left and the others to the right."""
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    for row in (head, *rows):
        cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
        print(f"  {row[0]:<{widths[0]}}  {'  '.join(cells)}".rstrip(), flush=True)
