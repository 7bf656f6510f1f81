#!/usr/bin/python3 -I
# SPDX-License-Identifier: Apache-2.0
"""Talks to the daemon atrund."""

import sys

sys.path.insert(0, "/usr/lib/atrund")

from atrund.ctl.main import main

if __name__ == "__main__":
    sys.exit(main())
