"""The tests in the folders below share ``dummy_front``, ``failing_files`` and ``held_clock``, which are here, and the applications of two test modules."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE / "http"), str(HERE / "upgraded")]
