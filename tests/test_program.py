# SPDX-License-Identifier: Apache-2.0
import gc
import sys

import pytest

from atrund import program


def test_once_started_no_thread_and_no_collection_keeps_an_answer_waiting_for_long() -> None:
    before = sys.getswitchinterval()
    try:
        program._settle()
        assert sys.getswitchinterval() == pytest.approx(program.SWITCH)
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        sys.setswitchinterval(before)
