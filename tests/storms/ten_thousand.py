"""Thousands of applications in one server, none of which is asked for; then each of some is, in any order.

    python tests/storms/ten_thousand.py [applications] [directories]

Each application is a file of --apps-dir with a path of its own, ``min_instances = 0``. By default each also has its own
directory. Goals for 10 000 (OP5): ready in 4 s, 10 KiB of the supervisor's memory each, under 0.5 % of a processor idle,
a cold first answer and a warm one as with one application, every visit answered. A busy machine shows in wall times,
so the times are seconds of processor, too.

Then files of --apps-dir come, change and go (OP4: within 2 s, and no other application feels it).
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import psutil

from passenger_trio.testing import Supervisor

APP = """
import os
def application(environ, start_response):
    body = environ["SCRIPT_NAME"].encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""
IDLE = 20.0
"""Seconds."""
REQUESTS = 3000
VISITS = 60


@attrs.define
class Figures:
    applications: int
    ready_wall: float
    ready_cpu: float
    memory: int
    idle: float
    """Of a processor, while nothing runs and before anything was asked for."""
    idle_warm: float
    """The same with one process."""
    cold: float
    """The median of first answers, seconds."""
    cold_cpu: float
    """The supervisor's part of one."""
    warm_wall: float
    warm_cpu: float
    """The supervisor's part of a request to a warm application, seconds."""
    failed: int
    """Visits of applications in any order that were not answered by the right one."""
    took_over: tuple[float, float, float]
    """Seconds until a file of --apps-dir that has come, changed or gone takes effect."""
    took_over_cpu: float
    """The supervisor's part of one, seconds."""
    lag: float
    """The longest time that a request to another application took meanwhile, seconds."""


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def write(root: Path, count: int, directories: int) -> None:
    for number in range(directories):
        (root / f"site{number}").mkdir()
        (root / f"site{number}" / "passenger_wsgi.py").write_text(APP)
    (root / "apps").mkdir()
    for number in range(count):
        (root / "apps" / f"a{number}.toml").write_text(
            f'root = "../site{number % directories}"\nbase_uri = "/a{number}"\nmin_instances = 0\n'
        )
    (root / "passenger-trio.toml").write_text('[server]\napps_dir = "apps"\n[pool]\nmax_pool_size = 6\n')


@contextmanager
def started(count: int, directories: int) -> Iterator[tuple[Supervisor, float, Path]]:
    with tempfile.TemporaryDirectory(prefix="many-") as place:
        root = Path(place)
        write(root, count, directories)
        begun = time.monotonic()
        with Supervisor.start(
            root,
            "--access-log",
            "off",
            timeout=300.0,
            # As installed: what the program was compiled to is kept (the first server of a run may have to write it).
            env={"PASSENGER_TRIO_LOG_LEVEL": "warning", "PYTHONDONTWRITEBYTECODE": None},
        ) as server:
            yield server, time.monotonic() - begun, root


def _ask(server: Supervisor, path: str, times: int) -> None:
    """One request after another. A connection takes a thousand of them."""
    for turn in range(0, times, 500):
        client = server.connect()
        for _ in range(min(500, times - turn)):
            assert client.get(path).status == 200
        client.close()


def _until(answers: Callable[[], bool]) -> float:
    begun = time.monotonic()
    while not answers():
        assert time.monotonic() - begun < 60, "it does not take effect"
        time.sleep(0.02)
    return time.monotonic() - begun


def _change_files(server: Supervisor, root: Path, busy: str) -> tuple[tuple[float, float, float], float]:
    """A file comes, changes, and goes, while somebody asks for another application. Seconds of each; the longest answer."""
    file, worst = root / "apps" / "new.toml", 0.0

    def found(status: int, body: str) -> Callable[[], bool]:
        def look() -> bool:
            nonlocal worst
            answer = server.get("/new")
            begun = time.monotonic()
            assert server.get(busy).status == 200
            worst = max(worst, time.monotonic() - begun)
            return answer.status == status and (not body or answer.body.decode() == body)

        return look

    text = 'root = "../site0"\nmin_instances = 0\nbase_uri = "/new"\n'
    file.write_text(text)
    came = _until(found(200, "/new"))
    file.write_text(text + "host_name = ['nowhere.example']\n")
    changed = _until(found(404, ""))
    file.write_text(text)
    _until(found(200, "/new"))
    file.unlink()
    return (came, changed, _until(found(404, ""))), worst


def measure(count: int, directories: int) -> Figures:
    chosen = random.Random(1)
    with started(count, directories) as (server, wall, root):
        process = psutil.Process(server.pid)
        ready_cpu, memory = cpu(process), process.memory_info().rss
        before = cpu(process)
        time.sleep(IDLE)
        idle = (cpu(process) - before) / IDLE
        before, colds = cpu(process), []
        for number in chosen.sample(range(count), min(5, count)):
            begun = time.monotonic()
            assert server.get(f"/a{number}").body == f"/a{number}".encode()
            colds.append(time.monotonic() - begun)
        cold_cpu = (cpu(process) - before) / len(colds)
        path = f"/a{number}"
        _ask(server, path, 200)
        before, begun = cpu(process), time.monotonic()
        _ask(server, path, REQUESTS)
        warm_cpu, warm_wall = (cpu(process) - before) / REQUESTS, (time.monotonic() - begun) / REQUESTS
        before = cpu(process)
        time.sleep(IDLE)
        idle_warm = (cpu(process) - before) / IDLE
        failed = 0
        for _ in range(VISITS if count > 1 else 0):
            number = chosen.randrange(count)
            answer = server.get(f"/a{number}")
            failed += answer.status != 200 or answer.body != f"/a{number}".encode()
        before = cpu(process)
        took_over, lag = _change_files(server, root, path)
        took_over_cpu = (cpu(process) - before) / 4
        assert server.stop() == 0
    return Figures(
        count, wall, ready_cpu, memory, idle, idle_warm, statistics.median(colds), cold_cpu, warm_wall, warm_cpu,
        failed, took_over, took_over_cpu, lag,
    )  # fmt: skip


def show(one: Figures, many: Figures) -> None:
    each = (many.memory - one.memory) / (many.applications - one.applications) / 1024
    rows = [
        ("ready, s of processor", f"{one.ready_cpu:.2f}", f"{many.ready_cpu:.2f}"),
        ("ready, s", f"{one.ready_wall:.2f}", f"{many.ready_wall:.2f}"),
        ("memory, MiB", f"{one.memory / 2**20:.1f}", f"{many.memory / 2**20:.1f} ({each:.1f} KiB each)"),
        ("idle, % of a processor", f"{one.idle:.2%}", f"{many.idle:.2%}"),
        ("idle with warm ones", f"{one.idle_warm:.2%}", f"{many.idle_warm:.2%}"),
        ("cold first answer, ms", f"{one.cold * 1000:.0f}", f"{many.cold * 1000:.0f}"),
        ("  supervisor's part, ms of processor", f"{one.cold_cpu * 1000:.1f}", f"{many.cold_cpu * 1000:.1f}"),
        ("warm request, us", f"{one.warm_wall * 1e6:.0f}", f"{many.warm_wall * 1e6:.0f}"),
        ("  supervisor's part, us of processor", f"{one.warm_cpu * 1e6:.0f}", f"{many.warm_cpu * 1e6:.0f}"),
        (f"{VISITS} visits of any: not served", "-", f"{many.failed}"),
        ("a file comes, changes, goes: s", *(" ".join(f"{s:.2f}" for s in of.took_over) for of in (one, many))),
        ("  supervisor's part of one, s", f"{one.took_over_cpu:.3f}", f"{many.took_over_cpu:.3f}"),
        ("  longest answer meanwhile, ms", f"{one.lag * 1000:.0f}", f"{many.lag * 1000:.0f}"),
    ]
    print(f"{'':40}{one.applications:>12}{many.applications:>26}")
    for name, first, second in rows:
        print(f"{name:40}{first:>12}{second:>26}")
    print(f"load average of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    directories = int(sys.argv[2]) if len(sys.argv) > 2 else count
    one, many = measure(1, 1), measure(count, min(directories, count))
    show(one, many)
    return 1 if many.failed else 0


if __name__ == "__main__":
    sys.exit(main())
