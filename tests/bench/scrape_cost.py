"""What a scrape costs with a thousand applications: how long it takes, and how long it holds up the event loop (issue 18).

    python tests/bench/scrape_cost.py [APPLICATIONS]

A real server, its applications from a configuration file, with no process. Each application begins with counts of four kinds of
requests, as after a day of traffic, and one in ``BUSY`` has a new request at each scrape. The steps of the event loop are measured in
processor time of its thread, so that other programs of the machine show less; of each figure it is the median. The goals: under 100 ms, and no step over 5 ms. Not a
test: the tests count (``test_metrics.py``).
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import table

from passenger_trio.testing import eventually

KINDS = ((b"GET", 200), (b"GET", 304), (b"POST", 303), (b"GET", 404))
BUSY = 4
ROUNDS = 30


def serve(steps: str, arguments: list[str]) -> None:
    """The server, with what each scrape took written down: the sum of its steps, and the longest."""
    import trio

    from passenger_trio.cli.main import main
    from passenger_trio.core.metric_counts import RequestTally

    count_none, stamp, made = RequestTally.__init__, RequestTally.stamp.fget, itertools.count()
    busy = set()

    def count_some(tally: RequestTally) -> None:
        count_none(tally)
        for method, status in KINDS:
            tally.finished((method, status, 0.02, 0.004, 0.01))
        if next(made) % BUSY == 0:
            busy.add(id(tally))

    def count_one_more(tally: RequestTally) -> tuple[int, int, int]:
        if id(tally) in busy:
            tally.finished((*KINDS[0], 0.02, 0.004, 0.01))
        return stamp(tally)

    RequestTally.__init__, RequestTally.stamp = count_some, property(count_one_more)

    class Steps(trio.abc.Instrument):
        def __init__(self) -> None:
            self.begun = 0.0
            self.file = os.open(steps, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            self.steps: dict[trio.lowlevel.Task, list[float]] = {}

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.begun = time.thread_time()

        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            if task.name.endswith("metrics_listener._Desk._attend"):
                self.steps.setdefault(task, []).append(1000 * (time.thread_time() - self.begun))

        def task_exited(self, task: trio.lowlevel.Task) -> None:
            if found := self.steps.pop(task, None):
                os.write(self.file, json.dumps([sum(found), max(found)]).encode() + b"\n")

    run = trio.run

    def measured(*args, **kwargs):  # type: ignore[no-untyped-def]
        return run(*args, instruments=[Steps()], **kwargs)

    trio.run = measured
    main(["start", *arguments])


def measure(applications: int) -> None:
    with tempfile.TemporaryDirectory() as home:
        root = Path(home, "app")
        root.mkdir()
        (root / "passenger_wsgi.py").write_text("def application(environ, start_response): ...\n")
        place, steps, config = f"{home}/metrics", Path(home, "steps"), Path(home, "passenger-trio.toml")
        tables = "".join(
            f'[[app]]\nroot = "{root}"\nname = "app{number}"\nbase_uri = "/{number}"\nmin_instances = 0\n'
            for number in range(applications)
        )
        user = 'user = "root"\n' if os.geteuid() == 0 else ""
        config.write_text(f'[server]\nport = 0\nmetrics_listen = "unix:{place}"\n{user}{tables}')
        environment = {**os.environ, "XDG_RUNTIME_DIR": home, "PASSENGER_TRIO_LIFELINE": str(os.getpid())}
        words = [sys.executable, __file__, "--serve", str(steps), "--config", str(config), "--access-log", "off"]
        with open(f"{home}/log", "wb") as log:
            server = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
        try:
            eventually(lambda: b"passenger_trio_ready 1" in scrape(place), timeout=120)
            for _ in range(5):  # the start has ended then
                scrape(place)
                time.sleep(1)
            steps.write_text("")
            times, size = [], 0
            for _ in range(ROUNDS):
                begun = time.perf_counter()
                size = len(scrape(place))
                times.append(time.perf_counter() - begun)
            time.sleep(1)
            sums, longest = zip(*map(json.loads, steps.read_text().splitlines()), strict=True)
            table(
                f"a scrape of {applications} applications",
                ("median ms", "worst ms", "processor ms", "longest step ms", "MB"),
                {
                    "passenger_trio": (
                        f"{1000 * statistics.median(times):.1f}",
                        f"{1000 * max(times):.1f}",
                        f"{statistics.median(sums):.1f}",
                        f"{statistics.median(longest):.1f}",
                        f"{size / 1e6:.1f}",
                    )
                },
            )
        except BaseException:
            print(Path(home, "log").read_text()[-3000:])
            raise
        finally:
            server.terminate()
            server.wait(60)


def scrape(place: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        if client.connect_ex(place):
            return b""  # the server starts
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        found = []
        while more := client.recv(1 << 20):
            found.append(more)
    return b"".join(found)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], sys.argv[3:])
    else:
        measure(int(sys.argv[1]) if sys.argv[1:] else 1000)
