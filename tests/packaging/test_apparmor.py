# SPDX-License-Identifier: Apache-2.0
"""The AppArmor profile: what it grants and what not. `make test-system` holds it against all that the daemon does."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.system.confined import Need, read_rules, wanted

PROFILE = Path(__file__).parents[2] / "packaging" / "apparmor" / "atrund"
TEXT = PROFILE.read_text(encoding="utf-8")
RULES = read_rules("@{PROC}=/proc/\n@{sys}=/sys/\n@{pid}={[1-9],[1-9][0-9],[1-9][0-9][0-9]}\n" + TEXT)


@pytest.mark.parametrize(
    ("path", "modes"),
    [
        ("/etc/atrund/conf.d/site.toml", "r"),
        ("/etc/atrund/", "r"),
        ("/run/credentials/atrund.service/tcp-operator", "r"),
        ("/run/credentials/atrund@roof.service/tcp-operator", "r"),
        ("/var/lib/atrund/ledger.db-wal", "rwk"),
        ("/var/lib/atrund-roof/", "rwk"),
        ("/run/atrund-roof.sock", "rw"),
        ("/run/atrund/at1", "rw"),
        ("/dev/ttyUSB3", "rwk"),
        ("/dev/ttymxc0", "rwk"),
        ("/dev/serial/by-id/usb-Telit_LE910C1-EU_0123456789-if05-port0", "r"),
        ("/dev/pts/3", "rwk"),
        ("/sys/class/tty/", "r"),
        ("/sys/devices/pci0000:00/usb1/1-1/idVendor", "r"),
        ("/run/udev/data/c188:3", "r"),
        ("/proc/42/fd/", "r"),
        ("/proc/42/fdinfo/7", "r"),
        ("/usr/bin/python3.13", "rmx"),
        ("/usr/local/sbin/power-cycle", "rmx"),
    ],
)
def test_what_it_grants(path: str, modes: str) -> None:
    assert all(RULES.allow(path, mode) for mode in modes)


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("/etc/shadow", "r"),
        ("/etc/atrund/conf.d/site.toml", "w"),
        ("/root/.ssh/id_rsa", "r"),
        ("/home/anna/x", "r"),
        ("/var/lib/other/x", "r"),
        ("/dev/sda", "r"),
        ("/dev/mem", "r"),
        ("/dev/tty1", "r"),
        ("/sys/class/gpio/export", "w"),
        ("/proc/42/mem", "r"),
        ("/proc/42/environ", "r"),
        ("/usr/bin/curl", "x"),
        ("/usr/lib/atrund/atrund/daemon.py", "w"),
        ("/usr/lib/atrund/atrund/__pycache__/daemon.cpython-311.pyc", "w"),
        ("/run/dbus/system_bus_socket", "w"),
    ],
)
def test_what_it_does_not_grant(path: str, mode: str) -> None:
    assert not RULES.allow(path, mode)


def test_nothing_leaves_it() -> None:
    """No command runs without the profile: under NoNewPrivileges= the kernel would refuse that."""
    given = re.findall(r"^ *(?:owner )?/\S+ ([a-zA-Z]+),", TEXT, re.MULTILINE)
    assert given
    assert not re.search("[UuPpCc]", "".join(given))
    assert re.findall(r"^ *capability (.*),", TEXT, re.MULTILINE) == ["net_admin"]
    assert "inet raw" not in RULES.networks
    assert "include if exists <local/atrund>" in TEXT


def test_its_own_parser_takes_it(tmp_path: Path) -> None:
    parser = shutil.which("apparmor_parser", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if parser is None:
        pytest.skip("there is no apparmor_parser")
    command = [parser, "--skip-kernel-load", "--skip-cache", str(PROFILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


TRACE = """\
7   openat(AT_FDCWD</>, "/lib/libz.so.1", O_RDONLY|O_CLOEXEC) = 4</usr/lib/libz.so.1.2>
7   openat(AT_FDCWD</>, "/etc/nowhere", O_RDONLY) = -1 ENOENT (No such file or directory)
7   mmap(NULL, 77824, PROT_READ|PROT_EXEC, MAP_PRIVATE|MAP_DENYWRITE, 4</usr/lib/libz.so.1.2>, 0x3000) = 0x7f26a163c000
7   mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f26a163c000
7   openat(AT_FDCWD</>, "/run/x/db", O_RDWR|O_CREAT|O_NOFOLLOW, 0600 <unfinished ...>
8   fcntl(9</run/x/db>, F_SETLK, {l_type=F_RDLCK, l_whence=SEEK_SET}) = 0
7   <... openat resumed>) = 10</run/x/db>
8   rename("/run/x/.new", "/run/x/at1") = 0
8   symlink("/dev/pts/1", "/run/x/.new") = 0
8   connect(8<socket:[86]>, {sa_family=AF_UNIX, sun_path="/run/systemd/notify"}, 22) = 0
8   bind(8<socket:[86]>, {sa_family=AF_UNIX, sun_path=@"atrund-3614"}, 42) = 0
8   socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC, IPPROTO_IP) = 23<socket:[86]>
7   +++ exited with 0 +++
"""


def test_what_a_trace_asks_for() -> None:
    assert {(need.path, need.mode) for need in wanted(TRACE) if need.call != "execve"} == {
        ("/usr/lib/libz.so.1.2", "r"),
        ("/usr/lib/libz.so.1.2", "m"),
        ("/run/x/db", "r"),
        ("/run/x/db", "w"),
        ("/run/x/db", "k"),
        ("/run/x/.new", "w"),
        ("/run/x/at1", "w"),
        ("/run/systemd/notify", "w"),
        ("inet stream", ""),
    }
    assert {need.mode for need in wanted(TRACE) if need.call == "execve"} == {"r", "m", "x"}
    assert Need("socket", "inet stream", "") in wanted(TRACE)


def test_how_patterns_are_read() -> None:
    rules = read_rules('@{a}=/x/ /y/\n@{b}="B"\n  owner @{a}/{,@{b}*}/?[0-9]/** rw,\n  deny /x/B/a1/** w,\n  unix,\n')
    assert rules.allow("/x/Bob/a1/deep/er", "w")
    assert not rules.allow("/x/Bob/aa/z", "r")
    assert not rules.allow("/x/Bob/a1/z", "k")
    assert rules.allow("/x/B/a1/z", "r")
    assert not rules.allow("/x/B/a1/z", "w")
    assert rules.networks == {"unix stream", "unix dgram"}
