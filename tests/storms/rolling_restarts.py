"""20 rolling restarts under a load of 32 connections, 5 of them to a broken version: 0 failed requests is the goal.

    python tests/storms/rolling_restarts.py [restarts] [connections]

Prints the counts; exit code 1 if the goal is missed. ``tests/faces/test_restarts.py`` runs a short one.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import attrs
from storm_tools import Load, write_version

from passenger_trio.admin.client import order
from passenger_trio.testing import Supervisor


@attrs.define
class Outcome:
    answers: Counter[str]
    results: Counter[str]
    serving: set[str]
    expected: str
    processes: int
    seconds: float

    @property
    def is_good(self) -> bool:
        return set(self.answers) == {"200"} and self.serving == {self.expected}


def storm(restarts: int, connections: int, *arguments: str) -> Outcome:
    """Every fourth restart is to a broken version."""
    with tempfile.TemporaryDirectory(prefix="pt-storm-") as directory:
        root = Path(directory)
        write_version(root, "v0")
        results: Counter[str] = Counter()
        good = "v0"
        begun = time.monotonic()
        with Supervisor.start(
            root, "--min-instances", "3", "--max-pool-size", "4", "-e", "production", *arguments
        ) as server:
            with Load(server, connections, paths=("/", "/", "/slow")) as load:
                for number in range(1, restarts + 1):
                    broken = number % 4 == 0
                    write_version(root, f"v{number}", broken=broken)
                    answer = order(str(server.ready["admin_socket"]), "/v1/restart", {"wait": True}, for_long=True)
                    result = answer["groups"][0]["result"]
                    assert result == ("rejected" if broken else "restarted"), (number, answer)
                    results[result] += 1
                    good = good if broken else f"v{number}"
            serving = {server.get().body.split()[0].decode() for _ in range(20)}
            processes = len(server.pids)
        # Leaving the block has checked that no process, socket or directory is left.
        return Outcome(load.outcomes, results, serving, good, processes, time.monotonic() - begun)


def main() -> int:
    restarts = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    connections = int(sys.argv[2]) if len(sys.argv) > 2 else 32
    outcome = storm(restarts, connections)
    print(f"restarts   {dict(outcome.results)} in {outcome.seconds:.1f} s")
    print(f"answers    {dict(outcome.answers)}")
    print(
        f"serving    {sorted(outcome.serving)} with {outcome.processes} processes; expected {outcome.expected}; nothing is left"
    )
    print("good" if outcome.is_good else "MISSED")
    return 0 if outcome.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
