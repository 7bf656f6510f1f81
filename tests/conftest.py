# SPDX-License-Identifier: Apache-2.0
"""What all tests share: the hypothesis profiles, and no event loop that nobody made."""

import asyncio
import os
import signal

from hypothesis import settings

# The same input on every run, and no deadline: a slow machine is no fault of the program.
settings.register_profile("fixed", derandomize=True, deadline=None)
# New input on every run, and much of it; `make soak`.
settings.register_profile("soak", max_examples=10_000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

# Without this, pytest-asyncio asks Python 3.11 for "the" event loop, which makes one that nobody closes.
asyncio.set_event_loop(None)

# A shell starts what runs in its background with SIGINT ignored, and programs under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
