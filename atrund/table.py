# SPDX-License-Identifier: Apache-2.0
"""State machines as tables: what a state and an event lead to, and what is to be done then."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar


class Word(Enum):
    """A state, an event, an effect and their like, hashed as the one object that it is, for tables look them up often.

    Enum's own hash is made of the name, in Python, each time.
    """

    __hash__ = object.__hash__


S = TypeVar("S", bound=Enum)
"""States."""
E = TypeVar("E", bound=Enum)
"""Events."""
F = TypeVar("F", bound=Enum)
"""Effects."""


@dataclass(frozen=True, slots=True)
class To(Generic[S, F]):
    """A row's right side."""

    state: S
    effects: tuple[F, ...] = ()


class IllegalTransition(RuntimeError):
    """An event that cannot happen in a state; nothing was changed."""


def step(table: Mapping[S, Mapping[E, To[S, F]]], state: S, event: E) -> To[S, F]:
    """Return where an event leads and what is to be done, in order. Raises `IllegalTransition`."""
    to = table[state].get(event)
    if to is None:
        raise IllegalTransition(f"{event.value} while {state.value}")
    return to
