"""What is measured. Each work is a function that prints its table and returns figures for the JSON file."""

from __future__ import annotations

import re
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import buffering
from peers import APPS, OURS, PASSENGER, PASSENGER_RACK, Peer, running

from passenger_trio.testing import Supervisor, eventually

Figures = dict[str, Any]


def hello(rounds: int, seconds: int) -> Figures:
    """Hello world over keep-alive connections, 32 of them, two processes each, in alternation with the peers."""
    return _compare([OURS, PASSENGER], "hello", rounds, seconds)


def rack(rounds: int, seconds: int) -> Figures:
    """Rack hello world over keep-alive connections, 32 of them, two processes each, in alternation with the peers."""
    return _compare([OURS, PASSENGER_RACK], "hello_rack", rounds, seconds)


def fork(rounds: int, seconds: int) -> Figures:
    """Sinatra: how long a further worker takes, forked and started, and the memory of three of them (PSS)."""
    del seconds
    figures: Figures = {}
    for method in ("smart", "direct"):
        times: list[float] = []
        sizes: list[float] = []
        for _ in range(rounds):
            with Supervisor.start(
                APPS / "sinatra", "--spawn-method", method, "--min-instances", "4", "--max-pool-size", "4"
            ) as server:
                eventually(lambda server=server: len(server.pids) == 4)
                # The first waited for the preloader; four start at the same time, on the cores that there are.
                found = [re.search(r"is ready after (\d+) ms", line) for line in server.log]
                times += sorted(float(match[1]) for match in found if match)[:3]
                sizes.append(sum(_pss(pid) for pid in server.pids[:3]) / 2**20)
        figures[method] = {
            "milliseconds": statistics.median(times),
            "all": times,
            "pss_of_three_mib": statistics.median(sizes),
        }
        print(
            f"{method:<8}{figures[method]['milliseconds']:>8.0f} ms a worker{figures[method]['pss_of_three_mib']:>10.1f} MiB PSS of three"
        )
    return figures


def _compare(wanted: list[Peer], app: str, rounds: int, seconds: int) -> Figures:
    peers = [peer for peer in wanted if peer.installed]
    rates: dict[str, list[float]] = {peer.name: [] for peer in peers}
    costs: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            rate, cost = _wrk(peer, APPS / app, seconds)
            rates[peer.name].append(rate)
            costs[peer.name].append(cost)
    ours = statistics.median(rates[OURS.name])
    print(f"{app + ', c=32':<28}{'requests/s':>12}{'spread':>16}{'ours / it':>11}{'server CPU us/request':>24}")
    figures: Figures = {}
    for peer in peers:
        median = statistics.median(rates[peer.name])
        spread = f"{min(rates[peer.name]):.0f}-{max(rates[peer.name]):.0f}"
        cpu = statistics.median(costs[peer.name])
        print(f"{peer.name:<28}{median:>12.0f}{spread:>16}{ours / median:>11.2f}{cpu:>24.0f}")
        figures[peer.name] = {
            "requests_per_second": median,
            "all": rates[peer.name],
            "ratio": ours / median,
            "server_cpu_us": cpu,
        }
    return figures


def start(rounds: int, seconds: int) -> Figures:
    """From the command to the first answered request of a hello-world application, and the supervisor's memory then."""
    del seconds
    times, memories = [], []
    for _ in range(max(rounds, 5)):
        with running(OURS, APPS / "hello", processes=1) as server:
            times.append(server.ready_after)
            memories.append(_rss(server.pid) / 2**20)
    median, memory = statistics.median(times), statistics.median(memories)
    print(f"from the command to the first answer: {median * 1000:.0f} ms (median of {len(times)}, goal < 1000 ms)")
    print(f"memory of the supervisor then: {memory:.1f} MiB RSS (goal < 60 MiB)")
    return {"first_answer_seconds": median, "all": times, "supervisor_rss_mib": memory}


WORKS = {"start": start, "hello": hello, "rack": rack, "fork": fork, **buffering.WORKS}


def _wrk(peer: Peer, app: Path, seconds: int) -> tuple[float, float]:
    """(requests/s, server CPU us per request) of one run. The server's CPU is that of its parent process, without the application's."""
    with running(peer, app) as server:
        subprocess.run(["wrk", "-t1", "-c32", "-d1", server.url], check=True, capture_output=True)
        before, begun = _cpu_outside_the_application(server.processes()), time.perf_counter()
        out = subprocess.run(
            ["wrk", "-t1", "-c32", f"-d{seconds}", server.url], check=True, capture_output=True, text=True
        ).stdout
        spent, took = _cpu_outside_the_application(server.processes()) - before, time.perf_counter() - begun
    if "Non-2xx" in out or "Socket errors" in out:
        raise RuntimeError(f"{peer.name}: errors under load\n{out}")
    match = re.search(r"([0-9]+) requests in", out)
    assert match is not None
    requests = int(match[1])
    return requests / took, 1e6 * spent / requests


def _cpu_outside_the_application(pids: list[int]) -> float:
    """Seconds of processor time of the server's own processes: those whose command line names no loader."""
    total = 0.0
    for pid in pids:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"loader" not in command and b"passenger_trio: " not in command and b"Passenger AppPreloader" not in command:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) / 100
    return total


def _pss(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
