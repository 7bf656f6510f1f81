# SPDX-License-Identifier: Apache-2.0
"""What `atrunctl doctor` finds: how bad it is, what it is, and what to do about it."""

import enum
from dataclasses import dataclass


class Level(enum.Enum):
    """How bad a finding is, the harmless ones first."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"

    @property
    def bad(self) -> bool:
        """Whether something has to be done."""
        return self in {Level.WARNING, Level.ERROR}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of text, and one of advice where there is some to give. `about` is the subject, one word."""

    level: Level
    about: str
    text: str
    advice: str = ""

    def as_json(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return {"level": self.level.value, "about": self.about, "text": self.text, "advice": self.advice}


def worst(findings: list[Finding]) -> Level:
    """Return the worst level among findings; `OK` where there are none."""
    order = list(Level)
    return max((finding.level for finding in findings), key=order.index, default=Level.OK)
