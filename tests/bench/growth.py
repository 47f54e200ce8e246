"""What a request costs the supervisor as groups, processes and connections grow; and a decision of the pool, as it grows. With a plot."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measure import Figures, cpu, table, wrk
from peers import APPS, OURS_ALL
from plot import Line, plot
from policy_cost import a_pool, fast_lane

from passenger_trio.testing import Supervisor, eventually

GROUPS = (1, 4, 16)
PROCESSES = (1, 4, 16)
CONNECTIONS = (1, 8, 32, 128, 512)
POOL = (1, 10, 50, 200)


def work(rounds: int, seconds: int) -> Figures:
    """Supervisor CPU for each request as groups, processes and connections grow, and the pool's decision as its processes do."""
    del rounds
    lines: list[Line] = []
    rows: Figures = {}
    for one in OURS_ALL:
        sweeps = {
            "groups": {count: _cost(one.program, count, 2, 32, seconds) for count in GROUPS},
            "processes": {count: _cost(one.program, 1, count, 32, seconds) for count in PROCESSES},
            "connections": {count: _cost(one.program, 1, 2, count, seconds) for count in CONNECTIONS},
        }
        for what, costs in sweeps.items():
            rows[f"{one.name}, {what}"] = {str(count): cost for count, cost in costs.items()}
            lines.append(Line(f"{one.name}: {what}", list(costs.items())))
    decisions = {count: fast_lane(*a_pool(1, count, 1)) for count in POOL}
    rows["decision of the pool, processes"] = {str(count): cost for count, cost in decisions.items()}
    lines.append(Line("decision of the pool: processes", list(decisions.items())))
    table(
        "CPU as these grow",
        ("us: number",),
        {name: ("  ".join(f"{cost:.1f}: {count}" for count, cost in costs.items()),) for name, costs in rows.items()},
    )
    path = Path(".bench/growth.svg")
    path.parent.mkdir(exist_ok=True)
    path.write_text(plot("CPU for each request, by the number of ...", "us", lines))
    print(f"plot: {path}")
    return {"rows": rows}


def _cost(python: str, groups: int, processes: int, connections: int, seconds: int) -> float:
    """Microseconds of the supervisor for each request to the first of so many groups."""
    with _serving(python, groups, processes) as server:
        wrk(server.url, 1, connections)
        before = cpu([server.pid])
        count, _ = wrk(server.url, max(2, seconds // 2), connections)
        return 1e6 * (cpu([server.pid]) - before) / count


@contextmanager
def _serving(python: str, groups: int, processes: int) -> Iterator[Supervisor]:
    """Groups of one application each; the first, at the root, has so many processes, the others have one."""
    with tempfile.TemporaryDirectory() as home:
        text = f"[pool]\nmax_pool_size = {processes + groups - 1}\n"
        for number in range(groups):
            wanted = f"min_instances = {processes}\nmax_instances = {processes}\n" if number == 0 else ""
            text += f'\n[[app]]\nroot = "{APPS / "hello"}"\nname = "app{number}"\nenvironment = "production"\nmax_request_queue_size = 0\n'
            text += wanted + (f'base_uri = "/app{number}"\n' if number else "")
        (Path(home) / "passenger-trio.toml").write_text(text)
        environment = {"PASSENGER_TRIO_PYTHON": OURS_ALL[0].program, "PASSENGER_TRIO_ACCESS_LOG": "off"}
        with Supervisor.start(home, "--max-requests-per-connection", "0", env=environment, python=python) as server:
            wanted_processes = processes + groups - 1
            eventually(lambda: len(server.pids) == wanted_processes, 90)
            yield server
