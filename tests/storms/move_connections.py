"""Connections that move between fronts many times a second, under load: no request is lost, none is served twice, and nothing is left (FR6).

    python tests/storms/move_connections.py [seconds]           # the number of active fronts changes all the time
    python tests/storms/move_connections.py kill [seconds]      # and a front is killed every second

The storm writes the number of active fronts to the shared page, as the owner does. Each client has one connection, and sends requests with ids that are
unique: GETs, POSTs with a length or in chunks, pipelined ones, heads byte by byte; between them it is quiet for a moment, so that its connection may move.
The application writes down each id.

Goals: each request is answered in its turn, with its own id; the application has seen each id once. With kills: who fails was connected to the front that was
killed then. At the end the fronts know as many connections as there are, have no descriptor more than before, and have reported no error of their own.
"""

from __future__ import annotations

import itertools
import mmap
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import attrs
from kill_fronts import client_ports, descriptors, serving
from storm_tools import percentile

from passenger_trio.fronts.heartbeats import Hint
from passenger_trio.testing import RawClient, Supervisor, eventually

FRONTS = 4
OPTIONS = (
    *("--fronts", str(FRONTS), "--max-pool-size", "8", "--min-instances", "4", "--max-instances", "4"),
    *("-e", "production", "--keep-alive-timeout", "600", "--max-requests-per-connection", "0"),
)
APP = """
import os, time
seen = os.open({seen!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def application(environ, start_response):
    body = environ["wsgi.input"].read()
    name = environ["PATH_INFO"].encode()
    os.write(seen, name + b"\\n")
    if name.endswith(b"77"):
        time.sleep(0.06)
    answer = name + b" " + body
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]
"""
_PAGE = (FRONTS + 1) * len(Hint) * 8
"""Bytes of the shared page."""


@attrs.define
class Outcome:
    flips: int
    moves: int
    """At least so many: counted from the numbers of connections that were seen."""
    kills: int
    answered: int
    failed: int
    """Requests that failed on connections of dead fronts."""
    p99: float
    slowest: float
    wrong: list[str]

    @property
    def is_good(self) -> bool:
        return not self.wrong and self.moves > 0


class Page:
    """The shared page of a server, as its owner sees it."""

    def __init__(self, server: Supervisor) -> None:
        fd = next(
            found for number in os.listdir(f"/proc/{server.pid}/fd") if (found := _opened(server.pid, number)) >= 0
        )
        self._words = memoryview(mmap.mmap(fd, _PAGE)).cast("Q")
        os.close(fd)

    def set_active(self, count: int) -> None:
        self._words[FRONTS * len(Hint)] = count

    def counts(self) -> list[int]:
        return [self._words[number * len(Hint) + Hint.CONNECTIONS] for number in range(FRONTS)]


def _opened(pid: int, number: str) -> int:
    """The page of a process, opened once more; -1: this descriptor of it is something else."""
    name = f"/proc/{pid}/fd/{number}"
    try:
        if "memfd:passenger_trio" in os.readlink(name) and os.stat(name).st_size == _PAGE:
            return os.open(name, os.O_RDWR)
    except FileNotFoundError:
        pass  # it has been closed meanwhile
    return -1


class Clients:
    """Each has one connection as long as it lives."""

    def __init__(self, server: Supervisor, count: int) -> None:
        self._server = server
        self._stop = threading.Event()
        self.answered: set[str] = set()
        self.failures: list[tuple[int, str, list[str]]] = []
        """The port, what happened, and the ids whose answers are missing."""
        self.latencies: list[float] = []
        self.open = 0
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._talk, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _talk(self, number: int) -> None:
        choice = random.Random(number)
        names = itertools.count()
        client: RawClient | None = None
        while not self._stop.is_set():
            ids: list[str] = []
            port = 0
            try:
                if client is None:
                    client = self._server.connect()
                    self._count(1)
                port = client.socket.getsockname()[1]
                begun = time.monotonic()
                for _ in range(choice.choice((1, 1, 1, 2, 3))):
                    ids.append(f"/{number}-{next(names)}")
                requests = [_request(one, choice) for one in ids]
                whole = b"".join(data for data, _ in requests)
                if len(whole) < 400 and choice.random() < 0.1:
                    for at in range(len(whole)):
                        client.send(whole[at : at + 1])
                        time.sleep(0.001)
                else:
                    client.send(whole)
                for one, (_, body) in zip(list(ids), requests, strict=True):
                    response = client.read_response()
                    if (response.status, response.body) != (200, f"{one} ".encode() + body) or not response.complete:
                        raise OSError(f"{one}: {response.status} {response.body[:60]!r}")
                    ids.remove(one)
                    self.answered.add(one)
                self.latencies.append(time.monotonic() - begun)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a result
                self.failures.append((port, f"{type(error).__name__}: {error}"[:120], ids))
                if client is not None:
                    client.close()
                    self._count(-1)
                client = None
            time.sleep(choice.choice((0.0, 0.02, 0.2, 0.6)))
        if client is not None:
            client.close()
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            self.open += change


def _request(name: str, choice: random.Random) -> tuple[bytes, bytes]:
    """The bytes of a request, and its body."""
    kind = choice.choice(("get", "get", "length", "chunks"))
    body = b"" if kind == "get" else choice.randbytes(choice.choice((1, 100, 5000)))
    if kind == "get":
        return f"GET {name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), b""
    if kind == "length":
        return f"POST {name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body, body
    head = f"POST {name} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n", body


class Flips:
    """Changes the number of active fronts, and counts the connections that are seen to move."""

    def __init__(self, page: Page, seed: int) -> None:
        self._page = page
        self._choice = random.Random(seed)
        self._stop = threading.Event()
        self.flips = self.moves = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        before = self._page.counts()
        active, until = 1, 0.0
        while not self._stop.is_set():
            if time.monotonic() > until:
                active = self._choice.choice((1, 1, 2, FRONTS))
                until = time.monotonic() + self._choice.choice((0.1, 0.15, 0.3))
                self.flips += 1
            self._page.set_active(active)
            now = self._page.counts()
            self.moves += sum(abs(new - old) for new, old in zip(now, before, strict=True)) // 2
            before = now
            time.sleep(0.005)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def kill(server: Supervisor, choice: random.Random) -> set[int]:
    """Kill a front. Returns the ports of the clients that it had."""
    alive = serving(server)
    if not alive:
        return set()
    pid: int = choice.choice(alive)["pid"]
    os.kill(pid, signal.SIGSTOP)
    stat = Path(f"/proc/{pid}/stat")
    eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", 5, "it stands still")
    address = server.address
    assert isinstance(address, tuple)
    had = client_ports(pid, address[1])
    os.kill(pid, signal.SIGKILL)
    return had


def storm(seconds: float, connections: int = 60, *, kills: bool = False, seed: int = 1) -> Outcome:
    choice = random.Random(seed)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="pt-storm-") as directory:
        seen = Path(directory, "seen")
        root = Path(directory, "app")
        root.mkdir()
        (root / "passenger_wsgi.py").write_text(APP.format(seen=str(seen)))
        with Supervisor.start(root, *OPTIONS) as server:
            eventually(lambda: len(serving(server)) == FRONTS, 30, "all fronts")
            page = Page(server)
            killed, doomed = 0, set[int]()
            flips = Flips(page, seed)
            try:
                warm = Clients(server, 8)  # streams of idle processes are kept from now on
                time.sleep(2)
                warm.stop()
                seen.write_bytes(b"")
                before = {front["pid"]: descriptors(front["pid"]) for front in serving(server)}
                clients = Clients(server, connections)
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    time.sleep(min(1.0, max(0.0, end - time.monotonic())))
                    if kills:
                        had = kill(server, choice)
                        doomed |= had
                        killed += 1
                if kills:
                    eventually(lambda: len(serving(server)) == FRONTS, 60, "all fronts are back")
                else:
                    try:
                        eventually(lambda: sum(page.counts()) == clients.open, 10, "each connection counts once")
                    except AssertionError as error:
                        wrong.append(f"{error}: {page.counts()} for {clients.open}")
                clients.stop()
            finally:
                flips.stop()
            try:
                eventually(lambda: sum(page.counts()) == 0, 15, "no connection is left")
                for front in serving(server):
                    pid, most = front["pid"], before.get(front["pid"], max(before.values())) + 8
                    eventually(lambda pid=pid, most=most: descriptors(pid) <= most, 15, f"{most} descriptors")
                eventually(lambda: all(p["sessions"] == 0 for p in server.group()["processes"]), 15, "all slots")
            except AssertionError as error:
                wrong.append(str(error))
            counted = Counter(seen.read_text().split())
            wrong += [f"{name} was served {times} times" for name, times in counted.items() if times > 1]
            wrong += [f"{name} was answered and never served" for name in clients.answered - set(counted)]
            others = [(what, ids) for port, what, ids in clients.failures if port not in doomed]
            wrong += [f"{what} [{', '.join(ids)}]" for what, ids in others]
            wrong += [line for line in server.log if "internal error" in line or "Traceback" in line]
            return Outcome(
                flips.flips,
                flips.moves,
                killed,
                len(clients.answered),
                len(clients.failures) - len(others),
                percentile(clients.latencies, 0.99),
                max(clients.latencies),
                wrong,
            )


def main() -> int:
    kills = sys.argv[1:2] == ["kill"]
    rest = sys.argv[2:] if kills else sys.argv[1:]
    outcome = storm(float(rest[0]) if rest else 60.0, kills=kills)
    print(f"moves      {outcome.moves} or more, after {outcome.flips} changes; {outcome.kills} fronts were killed")
    print(f"answers    {outcome.answered}; {outcome.failed} requests of dead fronts failed")
    print(f"time       99 % took {outcome.p99:.3f} s at most, the slowest {outcome.slowest:.2f} s")
    for line in outcome.wrong[:40]:
        print(f"  {line}")
    print("good" if outcome.is_good else "MISSED")
    return 0 if outcome.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
