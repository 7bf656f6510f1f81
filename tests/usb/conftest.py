# SPDX-License-Identifier: Apache-2.0
"""What the tests of USB share."""

from pathlib import Path

import pytest

from tests.usb.tree import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)
