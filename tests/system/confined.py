# SPDX-License-Identifier: Apache-2.0
"""The AppArmor profile: read by its own parser, and held against all that the daemon does.

Rules of this file: what a profile grants is as apparmor.d(5) has it; no kernel is asked, for the container's
may have no AppArmor. Looking at a file (stat) is always granted, and what is not there is so whatever a profile says.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.guest import check, run
from tests.system.inside import SETTINGS, Caller, is_up, over_mqtt, say, until

PROFILE: Final = "/etc/apparmor.d/atrund"
TRACE: Final = Path("/var/lib/atrund/trace")
DROP_INS: Final = Path("/etc/systemd/system/atrund.service.d")
ALSO: Final = SETTINGS.with_name("confined.toml")
CALLS: Final = "%file,%network,openat2,mmap,mprotect,fchmod,fchown,flock,fcntl,ftruncate"


def test() -> None:
    """Settings and unit are as before behind it, and the daemon runs."""
    if not shutil.which("apparmor_parser") or not shutil.which("strace"):
        say("AppArmor: not looked at, for there is no apparmor_parser or no strace")
        return
    run("apparmor_parser", "--skip-kernel-load", "--skip-cache", PROFILE)
    check(Path("/etc/apparmor.d/local/atrund").exists(), "no place for additions of one's own")
    rules = read_rules(run("apparmor_parser", "--skip-kernel-load", "--skip-cache", "--preprocess", PROFILE))
    check(not rules.allow("/etc/shadow", "r") and not rules.allow("/root/x", "r"), "it grants everything")
    with traced():
        for ask in (lambda: run("atrunctl", "at", "AT+CGMM"), lambda: over_mqtt("AT+CGMM", "confined")):
            check("CGMM" in str(ask()) or "OK" in str(ask()), "a door")
        with Caller() as caller:
            check("OK" in caller.asks("AT"), "the TCP door")
        sim = ("atrunctl", "sim", "--control", "/run/module.sock")
        before = run(*sim, "sent")
        run(*sim, "sms", "--from", "+393401234567", "AT+CGMM")
        until(lambda: run(*sim, "sent") != before, "an answer by SMS")
        run("atrunctl", "audit")
        run("systemctl", "reload", "atrund.service")
        run("atrunctl", "at", "AT#TCPATRUNFRWL?")
    needs = list(wanted(TRACE.read_text(errors="replace")))
    TRACE.unlink()
    files = {(need.path, need.mode): need.call for need in needs if need.mode}
    missing = [f"{path} {mode} ({call})" for (path, mode), call in files.items() if not rules.allow(path, mode)]
    check(not missing, "the profile lacks:\n" + "\n".join(sorted(missing)))
    sockets = {need.path for need in needs if not need.mode}
    check("inet stream" in sockets and sockets <= rules.networks, f"{sockets} are not all in {rules.networks}")
    check(len(files) > 200, f"only {len(files)} accesses were seen")
    say(f"AppArmor: the profile grants all {len(files)} accesses of a whole run, and {len(sockets)} kinds of sockets")


@contextlib.contextmanager
def traced() -> Iterator[None]:
    """The daemon under strace from its first moment on; with `-D` it is itself that systemd has started, and knows."""
    (DROP_INS / "zz-confined.conf").write_text(
        "[Service]\nExecStart=\n"
        f"ExecStart=/usr/bin/strace -D -f -y -s 300 -o {TRACE} -e trace={CALLS.replace('%', '%%')} -e signal=none"
        " /usr/sbin/atrund\n"
        "SystemCallFilter=\nWatchdogSec=0\nTimeoutStartSec=120s\n"
    )
    ALSO.write_text('[local]\nterminals = ["/run/atrund/at1"]\n')
    shutil.copy("/usr/share/doc/atrund/examples/terminals.conf", DROP_INS)
    try:
        run("systemctl", "daemon-reload")
        run("systemctl", "restart", "atrund.service")
        is_up()
        yield
    finally:
        run("systemctl", "stop", "atrund.service")  # while it still has the folder of the terminals to remove
        for file in (DROP_INS / "zz-confined.conf", DROP_INS / "terminals.conf", ALSO):
            file.unlink()
        run("systemctl", "daemon-reload")
        run("systemctl", "start", "atrund.service")
    is_up()


@dataclass(frozen=True, slots=True)
class Need:
    """What a call needs: a path and a letter of apparmor.d(5), or a family and a type of sockets in `path`."""

    call: str
    path: str
    mode: str


@dataclass(frozen=True, slots=True)
class Rules:
    """A profile: patterns of paths with their letters, those that deny among them, and `network` rules."""

    grants: tuple[tuple[re.Pattern[str], str], ...]
    denials: tuple[tuple[re.Pattern[str], str], ...]
    networks: frozenset[str]

    def allow(self, path: str, mode: str) -> bool:
        """Return whether a path may be used so."""
        if any(mode in letters and pattern.fullmatch(path) for pattern, letters in self.denials):
            return False
        return any(mode in letters and pattern.fullmatch(path) for pattern, letters in self.grants)


def read_rules(text: str) -> Rules:
    """Read a profile whose includes are in place. Whose a file is (`owner`) is not looked at: all of ours are ours."""
    names = dict(re.findall(r"^(@\{\w+\}) ?= ?(.+?) *$", text, re.MULTILINE))
    grants: list[tuple[re.Pattern[str], str]] = []
    denials: list[tuple[re.Pattern[str], str]] = []
    for denies, path, letters in re.findall(r"^ *(deny )?(?:owner )?([/@]\S+) +([a-zA-Z]+),", text, re.MULTILINE):
        (denials if denies else grants).append((re.compile(_pattern(path, names)), letters))
    networks = {" ".join(words.split()) for words in re.findall(r"^ *network ([a-z0-9 ]+),", text, re.MULTILINE)}
    if re.search(r"^ *unix,", text, re.MULTILINE):
        networks |= {"unix stream", "unix dgram"}
    return Rules(tuple(grants), tuple(denials), frozenset(networks))


def _pattern(glob: str, names: dict[str, str]) -> str:
    """Return a pattern of apparmor.d(5) as a regular expression."""
    while (name := re.search(r"@\{\w+\}", glob)) and name[0] in names:
        values = [value.strip('"').rstrip("/") for value in names[name[0]].split()]
        glob = glob.replace(name[0], "{" + ",".join(values) + "}")
    out, depth, place = "", 0, 0
    while place < len(glob):
        one, place = glob[place], place + 1
        if one == "*" and glob[place : place + 1] == "*":
            out, place = out + ".*", place + 1
        elif one == "[":
            end = glob.index("]", place)
            out, place = out + "[" + glob[place:end] + "]", end + 1
        elif one in "{}":
            depth += 1 if one == "{" else -1
            out += "(?:" if one == "{" else ")"
        else:
            out += {"*": "[^/]*", "?": "[^/]"}.get(one, "|" if one == "," and depth else re.escape(one))
    return out


def wanted(trace: str) -> Iterator[Need]:
    """Return what each call of a trace needs. What the kernel maps to run the interpreter is in none."""
    interpreter = os.path.realpath("/usr/bin/python3")
    yield from (Need("execve", interpreter, letter) for letter in "rmx")
    for call, given, came in re.findall(r"(?m)^\d+ +(\w+)\((.*)\) += (.*)$", _joined(trace)):
        if came.startswith("-1"):
            continue
        quoted = re.findall(r'"((?:[^"\\]|\\.)*)"', given)
        files = re.findall(r"\d+<(/[^>]*)>", given)
        if call in {"openat", "openat2"}:
            for path in re.findall(r"^\d+<(/[^>]*)>", came):
                yield from (Need(call, _as_folder(path, given), mode) for mode in _modes(given))
        elif call in {"mmap", "mprotect"} and "PROT_EXEC" in given and files:
            yield Need(call, files[0], "m")
        elif call == "flock" or (call == "fcntl" and "F_SETLK" in given):
            yield from (Need(call, _as_folder(path, ""), "k") for path in files)
        elif call in {"unlink", "unlinkat", "rename", "symlink", "chmod", "fchmod", "fchown", "chown", "ftruncate"}:
            named = quoted[1:] if call == "symlink" else quoted or files
            yield from (Need(call, path, "w") for path in named if path.startswith("/"))
        elif call in {"bind", "connect", "sendto", "sendmsg"} and 'sun_path="' in given:
            yield Need(call, re.findall(r'sun_path="([^"]+)"', given)[0], "w")
        elif call == "socket":
            family, kind = re.findall(r"AF_(\w+), SOCK_(\w+)", given)[0]
            yield Need(call, f"{family} {kind}".lower(), "")


def _joined(trace: str) -> str:
    """Put calls together that another thread's came between."""
    begun: dict[str, str] = {}
    lines = []
    for line in trace.splitlines():
        pid, _, rest = line.partition(" ")
        if rest.endswith("<unfinished ...>"):
            begun[pid] = rest.removesuffix("<unfinished ...>").rstrip()
        elif resumed := re.match(r" *<\.\.\. \w+ resumed>(.*)", rest):
            lines.append(f"{pid} {begun.pop(pid, '')}{resumed[1]}")
        else:
            lines.append(line)
    return "\n".join(lines)


def _modes(given: str) -> str:
    modes = "r" if "O_RDONLY" in given or "O_RDWR" in given else ""
    return modes + ("w" if re.search("O_WRONLY|O_RDWR|O_CREAT|O_TRUNC", given) else "")


def _as_folder(path: str, given: str) -> str:
    """Folders have a slash at their end, where AppArmor looks at them."""
    is_folder = "O_DIRECTORY" in given or Path(path).is_dir()
    return f"{path}/" if is_folder and not path.endswith("/") else path
