# SPDX-License-Identifier: Apache-2.0
"""`python -m atrund` is `atrund`."""

import sys

from atrund.program import main

sys.exit(main())
