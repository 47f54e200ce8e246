"""``test_moving`` uses ``dummy_front``, which is beside the tests of ``server``."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "server"))
