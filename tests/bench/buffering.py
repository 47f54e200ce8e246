"""What buffering costs and what it is good for: bulk in both directions, clients that stop or dawdle, chunks on their way."""

from __future__ import annotations

import hashlib
import os
import re
import runpy
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

from measure import Figures, own, rss, spread, table
from peers import APPS, OURS_ALL, PASSENGER, Peer, Running, present, running

BULK = APPS / "bulk"
MIB = 1024**2
BLOCK = bytes(range(256)) * 256


def download(rounds: int, seconds: int) -> Figures:
    """100 MiB to a fast client (goal: 800 MB/s, or twice Passenger's figure)."""
    del seconds
    return _rates("download of 100 MiB", rounds, lambda server: _download(server, 100))


def upload(rounds: int, seconds: int) -> Figures:
    """200 MiB from a fast client, buffered, and read by the application (goal: 1.5x Passenger's figure)."""
    del seconds
    return _rates("upload of 200 MiB", rounds, _upload)


def stalled(rounds: int, seconds: int) -> Figures:
    """20 clients that stop reading a response of 20 MiB each, 2 processes (goal: free in Passenger's time; +16 MiB)."""
    del seconds
    rows: Figures = {}
    for peer in _peers():
        samples = []
        for _ in range(rounds):
            with running(peer, BULK) as server:
                samples.append(_stalled(server))
        rows[peer.name] = {
            "fast_seconds": statistics.median(sample[0] for sample in samples),
            "free_seconds": statistics.median(sample[1] for sample in samples),
            "rss_growth_mib": max(sample[2] for sample in samples) / MIB,
            "exact": all(sample[3] for sample in samples),
            "all": samples,
        }
    table(
        "20 stalled clients, 20 MiB each",
        ("to fast readers s", "all free after s", "ratio", "RSS grew by MiB", "exact"),
        {
            name: (
                f"{row['fast_seconds']:.2f}",
                f"{row['free_seconds']:.2f}",
                f"{row['free_seconds'] / row['fast_seconds']:.2f}",
                f"{row['rss_growth_mib']:.1f}",
                str(row["exact"]),
            )
            for name, row in rows.items()
        },
    )
    return {"rows": rows}


def stream(rounds: int, seconds: int) -> Figures:
    """From the application's write of a chunk to the client, beside a direct connection to it (goal: +2 ms at the median)."""
    del seconds
    rows: Figures = {}
    with _direct() as server:
        delays = [delay for _ in range(rounds) for delay in _latencies(server, 0)]
        rows["direct connection to the application"] = {"plain_ms": statistics.median(delays) * 1000}
    for peer in _peers():
        with running(peer, BULK) as server:
            plain = [delay for _ in range(rounds) for delay in _latencies(server, 0)]
            buffered = [delay for _ in range(rounds) for delay in _latencies(server, 8)]
        rows[peer.name] = {
            "plain_ms": statistics.median(plain) * 1000,
            "buffered_ms": statistics.median(buffered) * 1000,
        }
    table(
        "chunk, from write to read",
        ("passed through ms", "after 8 MiB on disk ms"),
        {
            name: (f"{row['plain_ms']:.2f}", f"{row['buffered_ms']:.2f}" if "buffered_ms" in row else "")
            for name, row in rows.items()
        },
    )
    return {"rows": rows}


def slow_readers(rounds: int, seconds: int) -> Figures:
    """200 clients that read 10 KB/s, and one healthy one (goal: its p99 grows by no more than 2x)."""
    del rounds
    rows: Figures = {}
    for peer in _peers():
        with running(peer, BULK) as server:
            _healthy_p99(server, 1)
            alone = _healthy_p99(server, seconds)
            clients = []
            for _ in range(4):
                clients += [_ask(server, "/download?2", 16384) for _ in range(50)]
                _download(server, 1)  # those before it have been taken
            stop = threading.Event()
            thread = threading.Thread(target=_dawdle, args=(clients, stop))
            thread.start()
            try:
                beside = _healthy_p99(server, seconds)
            finally:
                stop.set()
                thread.join()
                for client in clients:
                    client.close()
        rows[peer.name] = {"alone_ms": alone * 1000, "beside_ms": beside * 1000, "ratio": beside / alone}
    table(
        "healthy client, p99",
        ("alone ms", "beside 200 ms", "ratio"),
        {
            name: (f"{row['alone_ms']:.2f}", f"{row['beside_ms']:.2f}", f"{row['ratio']:.2f}")
            for name, row in rows.items()
        },
    )
    return {"rows": rows}


def aborted(rounds: int, seconds: int) -> Figures:
    """Five thousand aborted downloads (goal: no descriptor, no disk space, no memory left)."""
    del rounds, seconds
    rows: Figures = {}
    for one in OURS_ALL:
        with running(one, BULK) as server:
            _download(server, 10)
            before = _descriptors(server.pid), rss([server.pid]), _unlinked(server.pid)
            begun = time.perf_counter()
            for _ in range(5000):
                client = _ask(server, "/download?4", 32768)
                client.recv(1000)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.close()
            took = time.perf_counter() - begun
            _download(server, 1)
            time.sleep(0.5)
            rows[one.name] = {
                "seconds": took,
                "descriptors_left": _descriptors(server.pid) - before[0],
                "files_left": _unlinked(server.pid) - before[2],
                "rss_growth_mib": (rss([server.pid]) - before[1]) / MIB,
            }
    table(
        "5000 aborted downloads",
        ("s", "descriptors left", "files left", "RSS grew by MiB"),
        {
            name: (
                f"{row['seconds']:.1f}",
                str(row["descriptors_left"]),
                str(row["files_left"]),
                f"{row['rss_growth_mib']:.1f}",
            )
            for name, row in rows.items()
        },
    )
    return {"rows": rows}


WORKS = {work.__name__: work for work in (download, upload, stalled, stream, slow_readers, aborted)}


def _peers() -> list[Peer]:
    return present(PASSENGER)


@contextmanager
def _direct() -> Iterator[Running]:
    """The application by itself, in a thread: the standard library's server, which sends each piece at once."""

    class Quiet(WSGIRequestHandler):
        def log_request(self, *_: object) -> None:
            """Nothing is written."""

    namespace = runpy.run_path(str(BULK / "passenger_wsgi.py"))
    with make_server("127.0.0.1", 0, namespace["application"], handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Running(os.getpid(), server.server_port, 0.0)
        finally:
            server.shutdown()
            thread.join()


def _rates(title: str, rounds: int, work: Callable[[Running], float]) -> Figures:
    """Megabytes a second, in alternation."""
    peers = _peers()
    rates: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            with running(peer, BULK) as server:
                work(server)
                rates[peer.name] += [work(server), work(server)]
    medians = {name: statistics.median(found) for name, found in rates.items()}
    rows = {
        name: {
            "mb_per_second": medians[name],
            "all": rates[name],
            "ratios": {one.name: medians[one.name] / medians[name] for one in OURS_ALL},
        }
        for name in medians
    }
    table(
        title,
        ("MB/s", "spread", *(f"{one.short} / it" for one in OURS_ALL)),
        {
            name: (
                f"{medians[name]:.0f}",
                spread(rates[name]),
                *(f"{medians[one.name] / medians[name]:.2f}" for one in OURS_ALL),
            )
            for name in medians
        },
    )
    return {"rows": rows}


def _ask(server: Running, path: str, buffer: int = 0) -> socket.socket:
    client = socket.socket()
    if buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    client.settimeout(120)
    client.connect(("127.0.0.1", server.port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    return client


def _download(server: Running, mebibytes: int) -> float:
    buffer = bytearray(MIB)
    begun, got = time.perf_counter(), 0
    with _ask(server, f"/download?{mebibytes}") as client:
        while count := client.recv_into(buffer):
            got += count
    if got < mebibytes * MIB:
        raise RuntimeError(f"{got} bytes came of {mebibytes} MiB")
    return got / (time.perf_counter() - begun) / 1e6


def _upload(server: Running) -> float:
    piece, count = bytes(MIB), 200
    with socket.create_connection(("127.0.0.1", server.port), 120) as client:
        begun = time.perf_counter()
        client.sendall(
            b"POST /upload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
            % (count * MIB)
        )
        for _ in range(count):
            client.sendall(piece)
        answer = b""
        while more := client.recv(65536):
            answer += more
        took = time.perf_counter() - begun
    if not answer.endswith(b"%d" % (count * MIB)):
        raise RuntimeError(f"the upload failed: {answer[-200:]!r}")
    return count * MIB / took / 1e6


def _stalled(server: Running) -> tuple[float, float, int, bool]:
    """(seconds for 20 fast readers, seconds until a further request is answered, growth of RSS, whether all were exact)"""
    _download(server, 20)
    begun = time.perf_counter()
    readers = [threading.Thread(target=_download, args=(server, 20)) for _ in range(20)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    fast = time.perf_counter() - begun
    pids = own(server.processes())
    before = rss(pids)
    begun = time.perf_counter()
    clients = [_ask(server, "/download?20", 65536) for _ in range(20)]
    # It is behind them in the queue; the second finds the process free that has answered last.
    for _ in range(2):
        with _ask(server, "/") as client:
            client.recv(65536)
    free = time.perf_counter() - begun
    grown = rss(pids) - before
    exact = True
    expected = hashlib.md5(BLOCK * (16 * 20)).digest()
    for client in clients:
        response = b"".join(iter(lambda client=client: client.recv(MIB), b""))  # type: ignore[misc]
        exact = exact and hashlib.md5(response.partition(b"\r\n\r\n")[2]).digest() == expected
        client.close()
    return fast, free, grown, exact


def _latencies(server: Running, mebibytes: int) -> list[float]:
    """Of the marked chunks. A client that has much to read first does not begin at once, so that it goes to disk."""
    found = []
    with _ask(server, f"/stream?{mebibytes}", 65536 if mebibytes else 0) as client:
        time.sleep(0.3 if mebibytes else 0)
        while data := client.recv(MIB):
            now = time.monotonic()
            found += [now - float(mark) for mark in re.findall(rb"@([0-9.]+)\n", data)]
    return found


def _healthy_p99(server: Running, seconds: int) -> float:
    delays = []
    with socket.create_connection(("127.0.0.1", server.port), 30) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < end:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while not answer.endswith(b"ok"):
                more = client.recv(65536)
                if not more:
                    raise RuntimeError("the healthy client's connection was closed")
                answer += more
            delays.append(time.perf_counter() - begun)
            time.sleep(0.001)
            if b"Connection: close" in answer:
                break
    return statistics.quantiles(delays, n=100)[98]


def _dawdle(clients: list[socket.socket], stop: threading.Event) -> None:
    while not stop.is_set():
        begun = time.monotonic()
        for client in clients:
            client.recv(1000)
        stop.wait(max(0.0, 0.1 - (time.monotonic() - begun)))


def _unlinked(pid: int) -> int:
    """Files without a name that it has open."""
    return sum("deleted" in str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir())


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
