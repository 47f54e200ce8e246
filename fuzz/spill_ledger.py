"""Whatever comes, is written, fails and goes, in any order: what comes out of a buffer is what went in, and its bounds hold.

The input is a script of steps (``tests/core/spill_world.py``). Run: ``python fuzz/spill_ledger.py --seconds 60``.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests" / "core")]

from driver import main  # noqa: E402
from spill_world import drive  # noqa: E402

CORPUS = HERE / "corpora" / "spill_ledger"


def spill_ledger(data: bytes) -> None:
    drive(data)


if __name__ == "__main__":
    main(spill_ledger, CORPUS)
