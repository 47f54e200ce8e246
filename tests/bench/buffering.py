"""What buffering costs and what it is good for: bulk in both directions, clients that stop or dawdle, chunks on their way."""

from __future__ import annotations

import hashlib
import re
import socket
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers import APPS, OURS, PASSENGER, Peer, Running, running

Figures = dict[str, Any]

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
    """20 clients that stop reading a response of 20 MiB each, 2 processes (goal: free in 1.2x of the time for fast readers; +16 MiB)."""
    del seconds
    figures: Figures = {}
    print(
        f"{'20 stalled clients':<28}{'to fast readers':>16}{'all free after':>16}{'ratio':>8}{'RSS grew by':>14}{'exact':>8}"
    )
    for peer in _peers():
        samples = []
        for _ in range(rounds):
            with running(peer, BULK) as server:
                samples.append(_stalled(server))
        fast, free = (statistics.median(sample[at] for sample in samples) for at in (0, 1))
        grown, exact = max(sample[2] for sample in samples), all(sample[3] for sample in samples)
        print(f"{peer.name:<28}{fast:>14.2f} s{free:>14.2f} s{free / fast:>8.2f}{grown / MIB:>10.1f} MiB{exact!s:>8}")
        figures[peer.name] = {
            "fast_seconds": fast,
            "free_seconds": free,
            "rss_growth": grown,
            "exact": exact,
            "all": samples,
        }
    return figures


def stream(rounds: int, seconds: int) -> Figures:
    """From the application's write of a chunk to the client, while the response goes on (goal: < 5 ms at the median)."""
    del seconds
    figures: Figures = {}
    print(f"{'chunk latency':<28}{'passed through':>16}{'after 8 MiB on disk':>22}")
    for peer in _peers():
        with running(peer, BULK) as server:
            plain = [delay for _ in range(rounds) for delay in _latencies(server, 0)]
            buffered = [delay for _ in range(rounds) for delay in _latencies(server, 8)]
        medians = [statistics.median(delays) * 1000 for delays in (plain, buffered)]
        print(f"{peer.name:<28}{medians[0]:>13.2f} ms{medians[1]:>19.2f} ms")
        figures[peer.name] = {"plain_ms": medians[0], "buffered_ms": medians[1]}
    return figures


def slow_readers(rounds: int, seconds: int) -> Figures:
    """200 clients that read 10 KB/s, and one healthy one (goal: its p99 grows by no more than 2x)."""
    del rounds
    figures: Figures = {}
    print(f"{'healthy client, p99':<28}{'alone':>12}{'beside 200':>14}{'ratio':>8}")
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
        print(f"{peer.name:<28}{alone * 1000:>9.2f} ms{beside * 1000:>11.2f} ms{beside / alone:>8.2f}")
        figures[peer.name] = {"alone_seconds": alone, "beside_seconds": beside, "ratio": beside / alone}
    return figures


def aborted(rounds: int, seconds: int) -> Figures:
    """Five thousand aborted downloads (goal: no descriptor, no disk space, no memory left)."""
    del rounds, seconds
    with running(OURS, BULK) as server:
        _download(server, 10)
        before = _descriptors(server.pid), _rss(server.pid)
        begun = time.perf_counter()
        for _ in range(5000):
            client = _ask(server, "/download?4", 32768)
            client.recv(1000)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
        took = time.perf_counter() - begun
        _download(server, 1)
        time.sleep(0.5)
        after = _descriptors(server.pid), _rss(server.pid)
        files = sum("deleted" in str(link.readlink()) for link in Path(f"/proc/{server.pid}/fd").iterdir())
    print(
        f"5000 aborted downloads in {took:.1f} s: descriptors {before[0]} -> {after[0]}, files {files}, RSS +{(after[1] - before[1]) / MIB:.1f} MiB"
    )
    return {"seconds": took, "descriptors": [before[0], after[0]], "files": files, "rss_growth": after[1] - before[1]}


WORKS = {work.__name__: work for work in (download, upload, stalled, stream, slow_readers, aborted)}


def _peers() -> list[Peer]:
    return [peer for peer in (OURS, PASSENGER) if peer.installed]


def _rates(title: str, rounds: int, work: Callable[[Running], float]) -> Figures:
    """Megabytes a second, in alternation."""
    peers = _peers()
    rates: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            with running(peer, BULK) as server:
                work(server)
                rates[peer.name] += [work(server), work(server)]
    ours = statistics.median(rates[OURS.name])
    print(f"{title:<28}{'MB/s':>10}{'spread':>16}{'ours / it':>11}")
    figures: Figures = {}
    for peer in peers:
        all_ = rates[peer.name]
        median = statistics.median(all_)
        print(f"{peer.name:<28}{median:>10.0f}{f'{min(all_):.0f}-{max(all_):.0f}':>16}{ours / median:>11.2f}")
        figures[peer.name] = {"mb_per_second": median, "all": all_, "ratio": ours / median}
    return figures


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
    pids = _core(server)
    before = sum(map(_rss, pids))
    begun = time.perf_counter()
    clients = [_ask(server, "/download?20", 65536) for _ in range(20)]
    # It is behind them in the queue; the second finds the process free that has answered last.
    for _ in range(2):
        with _ask(server, "/") as client:
            client.recv(65536)
    free = time.perf_counter() - begun
    grown = sum(map(_rss, pids)) - before
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


def _core(server: Running) -> list[int]:
    """The server's own processes."""
    found = []
    for pid in server.processes():
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"loader" not in command and b"Passenger AppPreloader" not in command:
            found.append(pid)
    return found


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
