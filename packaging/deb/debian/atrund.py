#!/usr/bin/python3 -I
"""The daemon atrund."""

import sys

sys.path.insert(0, "/usr/lib/atrund")

from atrund.program import main

if __name__ == "__main__":
    sys.exit(main())
