"""Two applications on two Pythons, each with a virtual environment of its own; one ends while it starts, again and again, and is asked for all the time.

    python tests/storms/crash_loop_beside.py [seconds] [interpreter of the crashing one]

Goal: the other has no error, and its p99 is at most twice that of when it is alone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import attrs
from storm_tools import Load, percentile, write_version

from passenger_trio.admin.client import order
from passenger_trio.testing import Supervisor

CRASHES = """
import os
os._exit(3)
def application(environ, start_response): ...
"""


@attrs.define
class Outcome:
    alone: float
    """p99, seconds."""
    beside: float
    answers: Counter[str]
    asked: Counter[str]
    """What the crashing one answered."""
    pythons: set[str]

    @property
    def is_good(self) -> bool:
        return set(self.answers) == {"200"} and self.beside <= 2 * self.alone


def storm(seconds: float, other_python: str) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="pt-storm-") as directory:
        root = Path(directory)
        for name, python in (("good", sys.executable), ("bad", other_python)):
            (root / name).mkdir()
            subprocess.run([python, "-m", "venv", "--without-pip", str(root / name / "venv")], check=True)
        write_version(root / "good", "good")
        write_version(root / "bad", "bad")
        (root / "passenger-trio.toml").write_text(
            "[pool]\nmax_pool_size = 4\n\n"
            f'[[app]]\nroot = "good"\npython = "{root}/good/venv/bin/python"\n\n'
            f'[[app]]\nroot = "bad"\nbase_uri = "/bad"\npython = "{root}/bad/venv/bin/python"\n'
        )
        with Supervisor.start(root, "-e", "production") as server:
            pythons = {str(Path(f"/proc/{pid}/exe").resolve()) for pid in server.pids}
            with Load(server, 4, pause=0.002) as alone:
                time.sleep(seconds)
            (root / "bad" / "passenger_wsgi.py").write_text(CRASHES)
            order(str(server.ready["admin_socket"]), "/v1/restart", {"group": "bad", "hard": True})
            with Load(server, 4, pause=0.002) as beside, Load(server, 2, paths=("/bad",), pause=0.02) as asking:
                time.sleep(seconds)
        return Outcome(
            percentile(alone.latencies, 0.99),
            percentile(beside.latencies, 0.99),
            beside.outcomes + alone.outcomes,
            asking.outcomes,
            pythons,
        )


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 15.0
    outcome = storm(seconds, sys.argv[2] if len(sys.argv) > 2 else "/usr/bin/python3")
    print(f"pythons    {sorted(outcome.pythons)}")
    print(f"answers    {dict(outcome.answers)}; of the crashing one {dict(outcome.asked)}")
    print(f"p99        alone {outcome.alone * 1000:.2f} ms, beside the crash loop {outcome.beside * 1000:.2f} ms")
    print("good" if outcome.is_good else "MISSED")
    return 0 if outcome.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
