# SPDX-License-Identifier: Apache-2.0
"""What a daemon has on its disk, whether it runs or was killed."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any


def rows(state: Path, sql: str, *values: str) -> list[tuple[Any, ...]]:
    """Look into the ledger below a state directory."""
    with closing(sqlite3.connect(f"file:{state / 'ledger.db'}?mode=ro", uri=True)) as db:
        return db.execute(sql, values).fetchall()
