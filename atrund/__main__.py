# SPDX-License-Identifier: Apache-2.0
"""`python -m atrund` is `atrund`."""

import sys

from atrund.daemon import main

sys.exit(main())
