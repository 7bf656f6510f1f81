# SPDX-License-Identifier: Apache-2.0
"""The fields of a request to the control socket, each looked at before it is used."""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

TIMES_CAP: Final = 1_000_000
SECONDS_CAP: Final = 86_400.0

# JSON is what its writer makes of it.
Request: TypeAlias = dict[str, Any]
Answer: TypeAlias = dict[str, object]
Operation: TypeAlias = Callable[[Request], Answer]
Operations: TypeAlias = dict[str, tuple[Operation, frozenset[str]]]
"""What does an operation, and the fields that it takes."""


class RequestError(ValueError):
    """A request that can't be done; the text names the field and says what was wrong."""


def string(request: Request, name: str) -> str:
    """Return a text."""
    value = request.get(name)
    if not isinstance(value, str):
        raise RequestError(f"{name}: must be a text")
    return value


def printable(value: object, name: str) -> str:
    """Return a text that stays one line on the port."""
    if not isinstance(value, str) or not all(" " <= character <= "\xff" for character in value):
        raise RequestError(f"{name}: must be text of Latin-1 without control characters")
    return value


def whole(request: Request, name: str, allowed: range) -> int:
    """Return a whole number of a range."""
    value = request.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        raise RequestError(f"{name}: must be a whole number from {allowed.start} to {allowed.stop - 1}")
    return value


def seconds(request: Request, name: str = "seconds") -> float:
    """Return a span."""
    value = request.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= SECONDS_CAP:
        raise RequestError(f"{name}: must be a number from 0 to {SECONDS_CAP:.0f}")
    return float(value)


def share(request: Request, name: str) -> float:
    """Return a share of something."""
    value = request.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise RequestError(f"{name}: must be a number from 0 to 1")
    return float(value)


def flag(request: Request, name: str) -> bool:
    """Return a switch, off if it is not there."""
    value = request.get(name, False)
    if not isinstance(value, bool):
        raise RequestError(f"{name}: must be true or false")
    return value


def one_of(request: Request, name: str, allowed: list[str]) -> str:
    """Return one of some words."""
    value = request.get(name)
    if not isinstance(value, str) or value not in allowed:
        raise RequestError(f"{name}: must be one of {', '.join(allowed)}")
    return value


def times(request: Request) -> int | None:
    """Return how often something is to happen: once, so often, or (None) always."""
    if flag(request, "always"):
        return None
    return whole(request, "times", range(1, TIMES_CAP + 1)) if "times" in request else 1
