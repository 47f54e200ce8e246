"""Several fronts on one pool (FR3): what they cost a request, what they do to its latency and its place in the queue, and how connections spread.

The rates beside the peers are works of ``works.py``. More fronts than cores are fine here: what is compared is the processor time of a request.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from measure import Figures, command_of, cpu, median, own, table, wrk
from peers import APPS, GTHREAD, PASSENGER, Peer, Running, ours, present, running

LIGHT = 50
"""Requests a second of the lightly loaded server."""
SETTLES = 5.0
"""Seconds after its start in which a server does things for the last time: classes are built, garbage is collected once."""
CONTENDING = 24
_LATENCY = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s)$", re.MULTILINE)
_US = {"us": 1.0, "ms": 1e3, "s": 1e6}


def peer_of(fronts: int, *more: str) -> Peer:
    name = "passenger_trio" if fronts == 1 else f"passenger_trio, {fronts} fronts"
    return ours(sys.executable, name, *(("--fronts", str(fronts)) if fronts > 1 else ()), *more)


TWO_FRONTS = peer_of(2)


# -- the processor time of a request ---------------------------------------------------------------------------------


def cost(rounds: int, seconds: int) -> Figures:
    """CPU of fronts and owner for a request of hello WSGI with 1, 2, 4 and 8 fronts: the same 8 processes of 4 threads each, some seconds after the start."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for _ in range(rounds):
        for fronts in (1, 2, 4, 8):
            peer = peer_of(fronts, "--thread-count", "4")
            with running(peer, APPS / "hello", processes=8) as server:
                wrk(server.url, peer.warm_up)
                time.sleep(SETTLES)
                wrk(server.url, peer.warm_up)
                mine = own(server.processes())
                before = cpu(mine)
                count, took = wrk(server.url, seconds)
                rates, costs = found.setdefault(peer.name, ([], []))
                rates.append(count / took)
                costs.append(1e6 * (cpu(mine) - before) / count)
    first = median(found["passenger_trio"][1])
    rows: Figures = {
        name: {
            "requests_per_second": median(rates),
            "own_cpu_us": median(costs),
            "to_one_front": median(costs) / first,
            "all": costs,
        }
        for name, (rates, costs) in found.items()
    }
    table(
        "CPU of a request",
        ("requests/s", "server CPU us", "to one front"),
        {
            name: (f"{row['requests_per_second']:.0f}", f"{row['own_cpu_us']:.0f}", f"{row['to_one_front']:.2f}")
            for name, row in rows.items()
        },
    )
    return {"rows": rows}


# -- latency ---------------------------------------------------------------------------------------------------------


def latency(rounds: int, seconds: int) -> Figures:
    """Latency of hello WSGI with 1, 4 and 32 keep-alive connections, two processes each, some seconds after the start of each server and a second after that of the load."""
    counts = (1, 4, 32)
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for peer in (*present(), TWO_FRONTS, *present(PASSENGER, GTHREAD)[len(present()) :]):
            with running(peer, APPS / "hello") as server:
                wrk(server.url, peer.warm_up)
                time.sleep(SETTLES)
                for count in counts:
                    _percentiles(server.url, peer.warm_up, count)
                    for part, us in _percentiles(server.url, max(1, seconds // 2), count).items():
                        found.setdefault(peer.name, {}).setdefault(f"p{part}_of_{count}_us", []).append(us)
    rows: Figures = {
        name: {figure: median(values) for figure, values in figures.items()} for name, figures in found.items()
    }
    table(
        "p50 / p99, us",
        tuple(f"{count} connections" for count in counts),
        {
            name: tuple(f"{row[f'p50_of_{count}_us']:.0f} / {row[f'p99_of_{count}_us']:.0f}" for count in counts)
            for name, row in rows.items()
        },
    )
    return {"rows": rows}


def _percentiles(url: str, seconds: int, connections: int) -> dict[int, float]:
    out = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", url], check=True, capture_output=True, text=True
    ).stdout
    return {int(part): float(value) * _US[unit] for part, value, unit in _LATENCY.findall(out)}


def light(rounds: int, seconds: int) -> Figures:
    """A lightly loaded server: one process, 50 requests a second over 8 keep-alive connections, one front and four."""
    samples: dict[str, list[float]] = {}
    for _ in range(rounds):
        for fronts in (1, 4):
            peer = peer_of(fronts)
            with running(peer, APPS / "hello", processes=1) as server, ExitStack() as stack:
                clients = [stack.enter_context(_connected(server)) for _ in range(8)]
                taken = samples.setdefault(peer.name, [])
                time.sleep(SETTLES)
                for client in clients:
                    _ask(client)
                begun = time.perf_counter()
                for number in range(LIGHT * max(4, 2 * seconds)):
                    time.sleep(max(0.0, begun + number / LIGHT - time.perf_counter()))
                    sent = time.perf_counter()
                    _ask(clients[number % len(clients)])
                    taken.append(1e3 * (time.perf_counter() - sent))
    rows: Figures = {
        name: {"p50_ms": _part(taken, 0.5), "p99_ms": _part(taken, 0.99), "all": taken}
        for name, taken in samples.items()
    }
    table(
        "light load",
        ("p50 ms", "p99 ms"),
        {name: (f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}") for name, row in rows.items()},
    )
    return {"rows": rows}


# -- the order of service --------------------------------------------------------------------------------------------


def order(rounds: int, seconds: int) -> Figures:
    """Two processes, 5 ms a request, 24 clients: by how much what was served first was younger than a request that waited. With one front: 0 but for the kernel."""
    del rounds
    rows: Figures = {}
    for fronts in (1, 2, 4):
        peer = peer_of(fronts)
        with running(peer, APPS / "moment") as server:
            moments: list[tuple[float, float]] = []
            ends = time.perf_counter() + max(3, seconds)
            threads = [threading.Thread(target=_contend, args=(server, ends, moments)) for _ in range(CONTENDING)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        moments.sort(key=lambda moment: moment[1])
        overtaken, waits, youngest = [], [], 0.0
        for sent, began in moments:
            overtaken.append(1e3 * max(0.0, youngest - sent))
            waits.append(1e3 * (began - sent))
            youngest = max(youngest, sent)
        rows[peer.name] = {
            "overtaken_p99_ms": _part(overtaken, 0.99),
            "overtaken_most_ms": max(overtaken),
            "wait_p50_ms": _part(waits, 0.5),
            "wait_p99_ms": _part(waits, 0.99),
        }
    table(
        "order of service",
        ("younger first by, p99 ms", "at most ms", "wait p50 ms", "wait p99 ms"),
        {name: tuple(f"{value:.1f}" for value in row.values()) for name, row in rows.items()},
    )
    return {"rows": rows}


def _contend(server: Running, ends: float, moments: list[tuple[float, float]]) -> None:
    with _connected(server) as client:
        while time.perf_counter() < ends:
            sent = time.monotonic()
            moments.append((sent, float(_ask(client).rpartition(b"\r\n\r\n")[2])))


# -- connections -----------------------------------------------------------------------------------------------------


def spread(rounds: int, seconds: int) -> Figures:
    """How 8, 32 and 128 connections spread over 4 fronts, with ``--front-balance count``: the busiest one's part of its share. (By load, idle ones are at one front.)"""
    del seconds
    rows: Figures = {}
    for count in (8, 32, 128):
        worst = []
        for _ in range(rounds):
            with (
                running(peer_of(4, "--front-balance", "count"), APPS / "hello", processes=4) as server,
                ExitStack() as stack,
            ):
                fronts = [pid for pid in server.processes() if b"passenger_trio.fronts.process" in command_of(pid)]
                for _ in range(count):
                    stack.enter_context(_connected(server))
                counts = [_connections(pid, server.port) for pid in fronts]
                assert sum(counts) == count, counts
                worst.append(max(counts) / (count / len(fronts)))
        rows[f"{count} connections"] = {"busiest": median(worst), "all": worst}
    table(
        "4 fronts", ("the busiest has of its share",), {name: (f"{row['busiest']:.2f}",) for name, row in rows.items()}
    )
    return {"rows": rows}


def _connections(pid: int, port: int) -> int:
    """Established connections of clients that a process has."""
    mine = set()
    for descriptor in os.scandir(f"/proc/{pid}/fd"):
        try:
            mine.add(os.readlink(descriptor.path))
        except OSError:
            continue
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(
        fields[3] == "01" and int(fields[1].rpartition(":")[2], 16) == port and f"socket:[{fields[9]}]" in mine
        for fields in lines
    )


# -- a client --------------------------------------------------------------------------------------------------------


def _connected(server: Running) -> socket.socket:
    """A connection that has had one answer."""
    client = socket.create_connection(("127.0.0.1", server.port), 30)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _ask(client)
    return client


def _ask(client: socket.socket) -> bytes:
    client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = b""
    while True:
        head, end, body = answer.partition(b"\r\n\r\n")
        if end and len(body) >= int(re.findall(rb"(?i)content-length: (\d+)", head)[0]):
            return answer
        more = client.recv(65536)
        if not more:
            raise ConnectionError("a connection ended")
        answer += more


def _part(values: list[float], part: float) -> float:
    return sorted(values)[int((len(values) - 1) * part)]


WORKS = {
    "fronts_cost": cost,
    "fronts_latency": latency,
    "fronts_light": light,
    "fronts_order": order,
    "fronts_spread": spread,
}
