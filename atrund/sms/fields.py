# SPDX-License-Identifier: Apache-2.0
"""What every field of a PDU needs: the error that names it, and a reader that never runs past the end."""

from typing import Final

OCTET_MAX: Final = 0xFF


class PduError(ValueError):
    """A PDU, or a value meant for one, is not as 3GPP TS 23.040 has it.

    `field` is the standard's name of the field (`TP-OA`, `TP-SCTS`, `UDHL`; `SCA` for the service centre address, `PDU`
    for the whole), `detail` what is wrong with it.
    """

    def __init__(self, field: str, detail: str) -> None:
        """Name the field and say what is wrong with it."""
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail


class FieldReader:
    """Takes the fields of a PDU from front to back."""

    def __init__(self, octets: bytes) -> None:
        """Begin at the first of these octets."""
        self._octets = octets
        self._position = 0

    @property
    def left(self) -> int:
        """How many octets have not been taken yet."""
        return len(self._octets) - self._position

    def take(self, field: str, count: int) -> bytes:
        """Return the next octets; raises PduError naming the field if there are fewer."""
        if count > self.left:
            raise PduError(field, f"needs {count} octets, {self.left} are left")
        begin = self._position
        self._position += count
        return self._octets[begin : self._position]

    def octet(self, field: str) -> int:
        """Return the next octet; raises PduError naming the field if there is none."""
        return self.take(field, 1)[0]


def require_octet(field: str, value: int) -> None:
    """Raise PduError naming the field unless the value fits an octet."""
    if not 0 <= value <= OCTET_MAX:
        raise PduError(field, f"{value} does not fit an octet")
