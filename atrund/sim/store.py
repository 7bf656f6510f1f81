# SPDX-License-Identifier: Apache-2.0
"""The message store of the simulated module: memories with a size, indices from 1, the state of each message."""

import enum
from dataclasses import dataclass
from typing import Final


class Status(enum.Enum):
    """The state of a stored message: the value is PDU mode's, the words are text mode's (TS 27.005 3.1)."""

    REC_UNREAD = 0
    REC_READ = 1
    STO_UNSENT = 2
    STO_SENT = 3

    @property
    def words(self) -> str:
        """The name in text mode."""
        return self.name.replace("_", " ")

    @property
    def received(self) -> bool:
        """Whether it came in."""
        return self in {Status.REC_UNREAD, Status.REC_READ}


@dataclass(slots=True)
class Message:
    """A message as it lies in a memory: the whole PDU, service centre address in front."""

    status: Status
    pdu: bytes


MEMORIES: Final = ("SM", "ME")


class MessageStore:
    """The memories. `memory3` is where received messages go (+CPMS mem3); it is one for the whole module."""

    def __init__(self, sm_slots: int, me_slots: int) -> None:
        self.sizes = {"SM": sm_slots, "ME": me_slots}
        self.memory3 = "SM"
        self._slots: dict[str, dict[int, Message]] = {name: {} for name in MEMORIES}

    def add(self, memory: str, message: Message) -> int | None:
        """Put a message at the first free index and return that, or None if the memory is full."""
        slots = self._slots[memory]
        for index in range(1, self.sizes[memory] + 1):
            if index not in slots:
                slots[index] = message
                return index
        return None

    def get(self, memory: str, index: int) -> Message | None:
        """Return the message at an index, if there is one."""
        return self._slots[memory].get(index)

    def messages(self, memory: str) -> list[tuple[int, Message]]:
        """Return index and message of all, by index."""
        return sorted(self._slots[memory].items(), key=lambda item: item[0])

    def delete(self, memory: str, index: int) -> None:
        """Free an index; a free one stays so."""
        self._slots[memory].pop(index, None)

    def delete_by_flag(self, memory: str, flag: int) -> None:
        """Delete as the flag of +CMGD says (TS 27.005 3.5.4): 1 read, 2 and sent, 3 and unsent, 4 all."""
        doomed = DELETED_BY_FLAG[flag]
        for index, message in self.messages(memory):
            if message.status in doomed:
                self.delete(memory, index)

    def used(self, memory: str) -> int:
        """Return how many messages lie in a memory."""
        return len(self._slots[memory])

    def full(self, memory: str) -> bool:
        """Whether nothing more fits."""
        return self.used(memory) >= self.sizes[memory]


DELETED_BY_FLAG: Final = {
    1: frozenset({Status.REC_READ}),
    2: frozenset({Status.REC_READ, Status.STO_SENT}),
    3: frozenset({Status.REC_READ, Status.STO_SENT, Status.STO_UNSENT}),
    4: frozenset(Status),
}
