# SPDX-License-Identifier: Apache-2.0
"""The udev rule that the package installed: what the system's udev makes of a module, which umockdev makes up."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.support.guest import check, run
from tests.support.mocked import DEVICE, PORTS, describe, is_ignored
from tests.system.inside import PATIENCE, say

NAME: Final = "60-atrund.rules"
MODULE: Final = Path("/run/module.umockdev")


def test() -> None:
    """Of all ports the secondary one alone is kept from ModemManager, and other devices are let be."""
    if not shutil.which("umockdev-run"):
        say("udev: not looked at, for there is no umockdev")
        return
    (rules,) = (name for name in run("dpkg", "--listfiles", "atrund").splitlines() if name.endswith(f"/{NAME}"))
    verified = "verify" in subprocess.run(["udevadm", "--help"], capture_output=True, text=True, check=False).stdout
    if verified:  # from systemd 254 on
        run("udevadm", "verify", rules)
    describe(MODULE)
    for name, (below, taken) in PORTS.items():
        said = udev(below)
        check(NAME in said, f"the rule was not read: {said}")
        check(is_ignored(said) is taken, f"{name}: {said}")
    secondary = PORTS["secondary"][0]
    check(is_ignored(udev(secondary, "change")), "a change")
    for vid, pid in (("1bc7", "ffff"), ("0403", "1201")):
        describe(MODULE, vid=vid, pid=pid)
        check(not is_ignored(udev(secondary)), f"{vid}:{pid}")
    MODULE.unlink()
    say(f"udev: {rules} takes the secondary port alone{', and is right for udevadm verify' if verified else ''}")


def udev(below: str, action: str = "add") -> str:
    """What udev says of a device below the module; it says so on both ways out."""
    command = ["umockdev-run", f"--device={MODULE}", "--", "udevadm", "test", f"--action={action}"]
    done = subprocess.run(
        [*command, f"/sys{DEVICE}{below}"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    check(done.returncode == 0, f"udevadm test: {done.stdout}{done.stderr}")
    return re.sub(r"(?m)^ +", "", done.stdout + done.stderr)
