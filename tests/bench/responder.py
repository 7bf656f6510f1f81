# SPDX-License-Identifier: Apache-2.0
"""A program: the least that passes for a module. It answers at once, the same on each of its pseudo-terminals.

Lines on standard input: `new` makes a pseudo-terminal and prints its name; `sms NAME PDU` puts a message into that
one's store, announces it, and prints once it is deleted the nanoseconds from the announcement to the first byte of
AT+CMGS. Ends with its standard input.
"""

import fcntl
import io
import os
import select
import termios
import time
import tty
from typing import Final

OK: Final = b"\r\nOK\r\n"
ANSWERS: Final = {
    b"AT+CEREG?": b"\r\n+CEREG: 0,1\r\n",
    b"AT+CESQ": b"\r\n+CESQ: 99,99,255,255,20,40\r\n",
    b"AT+CGREG?": b"\r\n+CGREG: 0,1\r\n",
    b"AT+COPS?": b'\r\n+COPS: 0,0,"Bench",7\r\n',
    b"AT+CPIN?": b"\r\n+CPIN: READY\r\n",
    b"AT+CPMS?": b'\r\n+CPMS: "SM",0,20,"SM",0,20,"SM",0,20\r\n',
    b"AT+CREG?": b"\r\n+CREG: 0,1\r\n",
    b"AT+CSQ": b"\r\n+CSQ: 21,99\r\n",
    b"AT+CMEE?": b"\r\n+CMEE: 1\r\n",
    b"AT+CMGF?": b"\r\n+CMGF: 0\r\n",
    b"AT+CGMM": b"\r\nLE910C1-EU\r\n",
    b"AT+CGMR": b"\r\n25.30.005\r\n",
    b"AT+CPMS=?": b'\r\n+CPMS: ("SM"),("SM"),("SM")\r\n',
}
"""Information before OK; every other line is answered OK alone."""


class Terminal:
    """One AT interface, with its echo off and one place in its store."""

    def __init__(self) -> None:
        self.master, slave = os.openpty()
        tty.setraw(slave)
        self.name = os.ttyname(slave)
        self._slave = slave  # kept open: without any slave the master would report its end all the time
        self._line = bytearray()
        self._pdu = b""
        self._in_data = False
        self._announced = self._answered = 0

    def readable(self) -> None:
        for byte in os.read(self.master, 4096):
            if self._in_data:
                if byte == 0x1A:
                    self._in_data = False
                    self._put(b"\r\n+CMGS: 1\r\n" + OK)
            elif byte == 0x0D:
                line = bytes(self._line)
                self._line.clear()
                self._answer(line)
            elif byte >= 0x20:
                self._line.append(byte)
                if self._line == b"AT+CMGS=" and not self._answered:
                    self._answered = time.perf_counter_ns()

    def deliver(self, pdu: bytes) -> None:
        self._pdu = pdu
        self._answered = 0
        self._announced = time.perf_counter_ns()
        self._put(b'\r\n+CMTI: "SM",1\r\n')

    def free(self) -> None:
        """Let another program open it, though the last one had it for itself alone (TIOCEXCL outlasts that one)."""
        fcntl.ioctl(self._slave, termios.TIOCNXCL)

    def _answer(self, line: bytes) -> None:
        if line.startswith(b"AT+CMGR="):
            length = len(self._pdu) // 2 - 1  # its service centre field is one octet of zero
            found = b"\r\n+CMGR: 0,,%d\r\n%b\r\n" % (length, self._pdu)
            self._put(found + OK if self._pdu else b"\r\n+CMS ERROR: 321\r\n")
        elif line.startswith(b"AT+CMGS="):
            self._in_data = True
            self._put(b"\r\n> ")
        elif line.startswith(b"AT+CMGD="):
            self._pdu = b""
            self._put(OK)
            print(self._answered - self._announced, flush=True)
        elif line.startswith(b"AT#"):  # no service of its own
            self._put(b"\r\nERROR\r\n")
        else:
            self._put(ANSWERS.get(line, b"") + OK)

    def _put(self, data: bytes) -> None:
        os.write(self.master, data)


def main() -> None:
    """Serve until standard input ends."""
    # Unbuffered: what lay in a buffer would wake nobody.
    with open(0, "rb", buffering=0) as commands:
        _serve(commands)


def _serve(commands: io.FileIO) -> None:
    terminals: dict[str, Terminal] = {}
    by_master: dict[int, Terminal] = {}
    poll = select.epoll()
    poll.register(commands, select.EPOLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor != commands.fileno():
                by_master[descriptor].readable()
                continue
            match commands.readline().split():
                case []:
                    return
                case [b"new"]:
                    terminal = Terminal()
                    terminals[terminal.name] = by_master[terminal.master] = terminal
                    poll.register(terminal.master, select.EPOLLIN)
                    print(terminal.name, flush=True)
                case [b"free", name]:
                    terminals[name.decode()].free()
                    print("free", flush=True)
                case [b"sms", name, pdu]:
                    terminals[name.decode()].deliver(pdu)


if __name__ == "__main__":
    main()
