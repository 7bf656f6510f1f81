# SPDX-License-Identifier: Apache-2.0
"""In polkit's place on a bus of a test's own: it says yes to whatever it is asked.

ModemManager asks polkit who may inhibit a device. The real polkitd wants to become a user of its own, whom neither the
bus nor the user namespace of a test knows; and root, whom it would ask for, it lets do everything anyway. This is as
much of D-Bus as that takes (D-Bus specification: authentication, message protocol).
"""

import contextlib
import os
import socket
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

NAME: Final = "org.freedesktop.PolicyKit1"
CALL, REPLY = 1, 2
PATH, INTERFACE, MEMBER, REPLY_SERIAL, DESTINATION, SENDER, SIGNATURE = 1, 2, 3, 5, 6, 7, 8
YES: Final = ("(bba{ss})", struct.pack("<IIIxxxx", 1, 0, 0))
"""Authorized, no challenge, no details; behind the empty array stands the padding of its entries."""
NOTHING: Final = ("a{sv}", struct.pack("<Ixxxx", 0))


class Authority:
    """On the bus at `path` from the beginning to the end of the `with` block."""

    def __init__(self, path: Path) -> None:
        self.asked = 0
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        self._socket.connect(str(path))
        self._socket.sendall(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n")
        assert self._socket.recv(4096).startswith(b"OK ")
        self._socket.sendall(b"BEGIN\r\n")
        self._serial = 0
        self._call("Hello")
        self._call("RequestName", "su", _padded(_text(NAME), 4) + struct.pack("<I", 0))
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._socket.settimeout(None)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                kind, serial, fields = self._receive()
                if kind != CALL:
                    continue
                is_question = fields[MEMBER] == "CheckAuthorization"
                self.asked += is_question
                signature, body = YES if is_question else NOTHING
                self._send(REPLY, {REPLY_SERIAL: serial, DESTINATION: fields[SENDER], SIGNATURE: signature}, body)

    def _call(self, member: str, signature: str = "", body: bytes = b"") -> None:
        bus = {PATH: "/org/freedesktop/DBus", INTERFACE: "org.freedesktop.DBus", DESTINATION: "org.freedesktop.DBus"}
        self._send(CALL, {**bus, MEMBER: member, SIGNATURE: signature}, body)
        while True:
            kind, _, fields = self._receive()
            if fields.get(REPLY_SERIAL) == self._serial:
                assert kind == REPLY, f"the bus refused {member}"
                return

    def _send(self, kind: int, fields: dict[int, int | str], body: bytes) -> None:
        self._serial += 1
        packed = b""
        for code, value in fields.items():
            name = {PATH: b"o", SIGNATURE: b"g", REPLY_SERIAL: b"u"}.get(code, b"s")
            packed = _padded(packed, 8) + bytes((code, 1)) + name + b"\0"
            if isinstance(value, int):
                packed += struct.pack("<I", value)
            elif code == SIGNATURE:
                packed += bytes((len(value),)) + value.encode() + b"\0"
            else:
                packed += _text(value)
        head = struct.pack("<cBBBIII", b"l", kind, 0, 1, len(body), self._serial, len(packed))
        self._socket.sendall(_padded(head + packed, 8) + body)

    def _receive(self) -> tuple[int, int, dict[int, int | str]]:
        """Return kind, serial and header fields of the next message; of its body nothing is wanted."""
        head = self._take(16)
        kind, body, serial, length = struct.unpack("<xBxxIII", head)
        packed = self._take(length + -length % 8)[:length]
        self._take(body)
        fields: dict[int, int | str] = {}
        at = 0
        while at < length:
            at += -at % 8
            code, is_of = packed[at], packed[at + 2 : at + 3]
            at += 4
            (number,) = struct.unpack_from("<I", packed, at) if is_of != b"g" else (packed[at],)
            if is_of == b"u":
                fields[code] = number
                at += 4
                continue
            at += 1 if is_of == b"g" else 4
            fields[code] = packed[at : at + number].decode()
            at += number + 1
        return kind, serial, fields

    def _take(self, count: int) -> bytes:
        taken = b""
        while len(taken) < count:
            piece = self._socket.recv(count - len(taken))
            if not piece:
                raise EOFError
            taken += piece
        return taken


def _text(value: str) -> bytes:
    return struct.pack("<I", len(value)) + value.encode() + b"\0"


def _padded(data: bytes, to: int) -> bytes:
    return data + bytes(-len(data) % to)
