# SPDX-License-Identifier: Apache-2.0
"""`atrunctl setup`: finds the module, asks or is told what is wanted, checks it, and writes one file of conf.d."""

import argparse
from typing import Final

DESCRIPTION: Final = """\
Finds the module and its free port, asks who may send commands by SMS, log in over TCP, and which MQTT broker there is,
tries the broker, checks the configuration as a whole, shows what would change, and writes it, all of it or nothing:

  /etc/atrund/conf.d/50-setup.toml       the settings
  /etc/atrund/setup-login.password       the password of the login, mode 0640, for the group atrund
  /etc/atrund/setup-broker.password      that at the broker, the same

It starts nothing, and opens no port. Run again, it proposes what the file says.
"""

EPILOG: Final = """\
--answers FILE:
  A TOML file instead of questions; what is not named keeps its door closed, and passwords are named by file. The same
  file a second time changes nothing, and says so.

    [module]
    port = ""                              # the free port of the only module; or as module.port names it
    [sms]
    numbers = ["+393401234567"]
    [tcp]
    user = "operator"
    password_file = "operator.password"    # beside this file; copied. May be left out once it has been
    listen = ["127.0.0.1"]                 # also port, firewall, trusted_interfaces
    [mqtt]
    host = "broker.example"
    tls = true                             # also port, insecure, ca_file, cert_file, key_file, prefix
    user = "gateway-17"
    password_file = "broker.password"
    remote_at = true
    check = true                           # false: the broker is not tried

exit codes:
  0  it is written, or nothing was to change
  1  it could not be: no module, no permission, a broker that refuses, a full disk; nothing was changed
  2  wrong usage, or a mistake in the answers or the configuration; nothing was changed

examples:
  sudo atrunctl setup
  sudo atrunctl setup --answers site.toml
  sudo atrunctl -n second setup
"""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "setup",
        help="make a first configuration",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("--answers", metavar="FILE", help="take the answers from FILE and ask nothing")
    parser.add_argument(
        "--config-dir", metavar="DIR", help="the folder of atrund.toml (default: /etc/atrund, or /etc/atrund/NAME)"
    )
    parser.add_argument(
        "--name", dest="one_of_several", metavar="NAME", default=argparse.SUPPRESS, help="one daemon of several"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Set up; return the exit code."""
    from atrund.ctl.setup.flow import set_up

    return set_up(args.answers, args.config_dir, args.one_of_several or "")
