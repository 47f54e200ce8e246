"""``kill -9`` of the supervisor at random moments: while it spawns, restarts, drains, serves. One second later nothing of it runs, daemons that its application
started (``setsid``) included where the supervisor has a cgroup of its own (KE12).

    python tests/storms/kill_supervisor.py [times]

It prints how long it took until everything was gone. Goal: no descendant and no listening port 1 s later; the directory that is left is removed by the next start.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import attrs
from storm_tools import Load, listens, write_version

from passenger_trio.admin.client import order
from passenger_trio.errors import AdminError
from passenger_trio.testing import Supervisor

DAEMON = """
import subprocess
subprocess.Popen(["sh", "-c", "trap '' HUP TERM; while :; do sleep 10; done"], start_new_session=True)
"""
_MOST = 5.0
"""Seconds for which it is waited for what is late."""
MOMENTS = ("starting", "serving", "restarting", "draining")


@attrs.define
class Outcome:
    moments: Counter[str]
    processes: list[str]
    ports: int
    slowest: list[float]
    """Seconds until everything was gone."""
    directories: int
    """Of the default place, after one more start."""

    @property
    def is_good(self) -> bool:
        return not self.processes and not self.ports and not self.directories


def storm(times: int, seed: int = 1, *, within: float = 1.0) -> Outcome:
    """:param within: seconds after which nothing may be left. One is promised (KE12), and measured by this program on a quiet machine."""
    choice = random.Random(seed)
    outcome = Outcome(Counter(), [], 0, [], 0)
    with (
        tempfile.TemporaryDirectory(prefix="pt-storm-") as directory,
        tempfile.TemporaryDirectory(prefix="pt-") as runtime,
    ):
        root = Path(directory)
        write_version(root, "v1")
        with (root / "passenger_wsgi.py").open("a") as file:
            file.write(DAEMON)
        env = {"XDG_RUNTIME_DIR": runtime}
        options = ("--min-instances", "2", "--instance-dir", "", "-e", "production")
        for number in range(times):
            moment = MOMENTS[number % len(MOMENTS)]
            outcome.moments[moment] += 1
            server = Supervisor.start(root, *options, env=env, wait=moment != "starting")
            try:
                _strike(server, moment, choice)
                server.process.wait()
                killed = time.monotonic()
                late: list[str] = []
                while (left := server.marked_processes()) and time.monotonic() < killed + max(_MOST, within + 1.0):
                    if time.monotonic() >= killed + within:
                        late = late or left
                    time.sleep(0.02)
                outcome.slowest.append(time.monotonic() - killed)
                outcome.processes += late
                outcome.ports += bool(server.ready) and listens(server)
            finally:
                server.kill()
                server._clean()
        with Supervisor.start(root, *options, env=env):
            base = Path(runtime) / "passenger-trio"
            # What was killed while it made its directory may be less than a minute old and look unfinished.
            outcome.directories = len(list(base.iterdir())) - 1
        shutil.rmtree(base, ignore_errors=True)
    return outcome


def _strike(server: Supervisor, moment: str, choice: random.Random) -> None:
    if moment == "starting":
        time.sleep(choice.uniform(0.2, 1.0))
        server.process.kill()
        return
    with Load(server, 4, paths=("/slow",)):
        try:
            if moment == "restarting":
                order(str(server.ready["admin_socket"]), "/v1/restart", {})
            elif moment == "draining":
                server.send_signal(signal.SIGTERM)
        except AdminError:
            pass
        time.sleep(choice.uniform(0.0, 0.3))
        server.process.kill()


def main() -> int:
    outcome = storm(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
    print(f"kills        {dict(outcome.moments)}")
    print(
        f"left after 1 s: {len(outcome.processes)} processes, {outcome.ports} ports; after the next start {outcome.directories} directories"
    )
    times = sorted(outcome.slowest)
    print(f"gone after    {times[len(times) // 2]:.2f} s (median), {times[-1]:.2f} s (slowest)")
    for line in outcome.processes:
        print(f"  {line}")
    print("good" if outcome.is_good else "MISSED")
    return 0 if outcome.is_good else 1


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
