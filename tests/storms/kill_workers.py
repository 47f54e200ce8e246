"""``kill -9`` of random workers under a load of GETs: who is hit may get a 502, the others nothing but 200.

    python tests/storms/kill_workers.py [seconds] [connections]

Goal: every answer is a 200 or a well-formed 502, at least 99 % are 200, and the pool is back at its minimum 2 s after the last kill.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import attrs
from storm_tools import Load, write_version

from passenger_trio.testing import Supervisor, eventually

MINIMUM = 3


@attrs.define
class Outcome:
    answers: Counter[str]
    kills: int
    recovered: float

    @property
    def good_part(self) -> float:
        return self.answers["200"] / max(1, sum(self.answers.values()))

    @property
    def is_good(self) -> bool:
        return set(self.answers) <= {"200", "502"} and self.good_part >= 0.99 and self.recovered <= 2.0


def storm(seconds: float, connections: int, period: float = 0.2, seed: int = 1) -> Outcome:
    choice = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="pt-storm-") as directory:
        root = Path(directory)
        write_version(root, "v1")
        options = ("--min-instances", str(MINIMUM), "--max-pool-size", "6", "-e", "production")
        with Supervisor.start(root, *options) as server:
            kills = 0
            with Load(server, connections, pause=0.005) as load:
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    pids = server.pids
                    if pids:
                        try:
                            os.kill(choice.choice(pids), signal.SIGKILL)
                            kills += 1
                        except ProcessLookupError:
                            pass
                    time.sleep(period)
                last = time.monotonic()
                eventually(lambda: len(server.pids) >= MINIMUM, 30, "the minimum")
                recovered = time.monotonic() - last
            return Outcome(load.outcomes, kills, recovered)


def main() -> int:
    outcome = storm(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0, int(sys.argv[2]) if len(sys.argv) > 2 else 16)
    print(f"kills      {outcome.kills}")
    print(f"answers    {dict(outcome.answers)}: {outcome.good_part:.3%} are 200")
    print(f"minimum    back {outcome.recovered:.2f} s after the last kill; nothing is left")
    print("good" if outcome.is_good else "MISSED")
    return 0 if outcome.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
