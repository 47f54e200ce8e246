"""``kill -9`` of a front every second under load, or of the owner of the fronts: who was connected to a dead front fails, and nobody else (FR4).

    python tests/storms/kill_fronts.py [seconds]            # a front every second; longer, if the machine is too busy for so many kills
    python tests/storms/kill_fronts.py owner [times]

Goals: every client whose request fails was connected to the front that was killed then, and is served again; each front is back; the pool has every slot and every
process it had. When the owner is killed no front, process or port is left one second later.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
from storm_tools import Load, listens, percentile, write_version

from passenger_trio.testing import RawClient, Supervisor, eventually

FRONTS = 3
OPTIONS = (
    *("--fronts", str(FRONTS), "--max-pool-size", "8", "--min-instances", "4", "--max-instances", "4"),
    *("-e", "production"),
)

_LONGER = 9
"""Times that a storm may last longer."""


@attrs.define
class Outcome:
    kills: int
    answers: Counter[str]
    doomed: int
    """Connections that the dead fronts had."""
    failed: int
    """Requests on them that failed."""
    others: list[str]
    """Requests that failed, and whose connection no dead front had."""
    slowest: float
    """The longest that a request took that did not fail, in seconds."""
    p99: float
    left: list[str]
    """What is not as it was before."""
    back: float
    """Seconds from the last kill until every front served."""

    @property
    def is_good(self) -> bool:
        return not self.others and not self.left


class Clients:
    """Keep-alive clients, each of which asks for one thing after another; a failure is kept with the port that it happened at."""

    def __init__(self, server: Supervisor, connections: int) -> None:
        self.server = server
        self.answers: Counter[str] = Counter()
        self.failures: list[tuple[int, str]] = []
        self.latencies: list[float] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._talk, args=(number,)) for number in range(connections)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _talk(self, turn: int) -> None:
        client: RawClient | None = None
        while not self._stop.is_set():
            turn += 1
            begun = time.monotonic()
            port = 0
            try:
                client = client or self.server.connect()
                port = client.socket.getsockname()[1]
                response = client.get("/slow" if turn % 4 == 0 else "/")
                if response.status != 200 or not response.complete:
                    raise OSError(f"{response.status}{'' if response.complete else ' cut short'}")
                self.answers["200"] += 1
                self.latencies.append(time.monotonic() - begun)
                if turn % 50 == 0:  # so that a front that has just come gets connections, too
                    client.close()
                    client = None
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a result
                self.failures.append((port, f"{type(error).__name__}: {error}"[:80]))
                if client is not None:
                    client.close()
                client = None
            time.sleep(0.002)
        if client is not None:
            client.close()


def client_ports(pid: int, port: int) -> set[int]:
    """The ports of the clients whose connections the process has."""
    ours = set()
    for descriptor in os.scandir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(descriptor.path)
        except OSError:
            continue
        if target.startswith("socket:["):
            ours.add(target[8:-1])
    ports = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[9] in ours and int(words[1].rpartition(":")[2], 16) == port:
            ports.add(int(words[2].rpartition(":")[2], 16))
    return ports - {0}


def serving(server: Supervisor) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.status()["fronts"]
    return [front for front in found if front["alive"]]


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def storm(seconds: float, connections: int = 16, period: float = 1.0, seed: int = 1) -> Outcome:
    choice = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="pt-storm-") as directory:
        root = Path(directory)
        write_version(root, "v1")
        with Supervisor.start(root, *OPTIONS) as server:
            eventually(lambda: len(serving(server)) == FRONTS, 30, "all fronts")
            address = server.address
            assert isinstance(address, tuple)
            with Clients(server, connections) as warm:  # streams of idle processes are kept from now on
                eventually(lambda: warm.answers["200"] > 50, 30, "a load")
            before = descriptors(server.pid)
            workers = set(server.pids)
            kills, doomed = 0, set[int]()
            connections_lost = 0
            with Clients(server, connections) as clients:
                end = time.monotonic() + seconds
                while time.monotonic() < end or (
                    kills < seconds / period and time.monotonic() < end + _LONGER * seconds
                ):
                    next_one = time.monotonic() + period
                    alive = serving(server)
                    if alive:
                        pid = choice.choice(alive)["pid"]
                        os.kill(pid, signal.SIGSTOP)  # so that it accepts nobody whom we do not see
                        eventually(lambda pid=pid: _state(pid) == "T", 5, "it stands still")
                        had = client_ports(pid, address[1])
                        doomed |= had
                        connections_lost += len(had)
                        os.kill(pid, signal.SIGKILL)
                        kills += 1
                    time.sleep(max(0.0, next_one - time.monotonic()))
                last = time.monotonic()
                eventually(lambda: len(serving(server)) == FRONTS, 30, "all fronts are back")
                back = time.monotonic() - last
                seen = clients.answers["200"]
                eventually(lambda: clients.answers["200"] > seen + 50, 30, "the load goes on")
            left = []
            if set(server.pids) != workers:
                left.append(f"processes {workers} are {set(server.pids)}")
            try:
                eventually(lambda: all(p["sessions"] == 0 for p in server.group()["processes"]), 15, "all slots")
                eventually(lambda: descriptors(server.pid) <= before + 4, 15, "no descriptor is left")
            except AssertionError as error:
                left.append(str(error))
            others = [what for port, what in clients.failures if port not in doomed]
            failed = len(clients.failures) - len(others)
            slowest = max(clients.latencies)
            return Outcome(
                kills,
                clients.answers,
                connections_lost,
                failed,
                others,
                slowest,
                percentile(clients.latencies, 0.99),
                left,
                back,
            )


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@attrs.define
class OwnerOutcome:
    kills: int
    left: list[str]
    """What still ran, or listened, a second after the owner had been killed."""
    slowest: float
    """Seconds until nothing was left."""

    @property
    def is_good(self) -> bool:
        return not self.left


def owner_storm(times: int, seed: int = 1, *, within: float = 1.0) -> OwnerOutcome:
    """Kill the owner while its fronts serve."""
    choice = random.Random(seed)
    outcome = OwnerOutcome(0, [], 0.0)
    with tempfile.TemporaryDirectory(prefix="pt-storm-") as directory:
        root = Path(directory)
        write_version(root, "v1")
        for _ in range(times):
            server = Supervisor.start(root, *OPTIONS)
            try:
                eventually(lambda server=server: len(serving(server)) == FRONTS, 30, "all fronts")
                with Load(server, 8, paths=("/slow", "/")):
                    time.sleep(choice.uniform(0.05, 0.5))
                    server.process.kill()
                    server.process.wait()
                    killed = time.monotonic()
                    late: list[str] = []
                    while (left := server.marked_processes()) and time.monotonic() < killed + within + 5:
                        if time.monotonic() >= killed + within:
                            late = late or left
                        time.sleep(0.02)
                    outcome.slowest = max(outcome.slowest, time.monotonic() - killed)
                outcome.kills += 1
                outcome.left += late
                if listens(server):
                    outcome.left.append("the port")
            finally:
                server.kill()
                server._clean()
    return outcome


def main() -> int:
    if sys.argv[1:2] == ["owner"]:
        ends = owner_storm(int(sys.argv[2]) if len(sys.argv) > 2 else 20)
        print(f"kills      {ends.kills} of the owner")
        print(f"left       {len(ends.left)} processes and ports after 1 s; nothing after {ends.slowest:.2f} s at most")
        for line in ends.left:
            print(f"  {line}")
        print("good" if ends.is_good else "MISSED")
        return 0 if ends.is_good else 1
    outcome = storm(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
    print(f"kills      {outcome.kills} of fronts, which had {outcome.doomed} connections")
    print(f"answers    {outcome.answers['200']} are 200; {outcome.failed} requests of dead fronts failed")
    print(
        f"others     {len(outcome.others)} failed; 99 % took {outcome.p99:.3f} s at most, the slowest {outcome.slowest:.2f} s"
    )
    print(f"back       every front {outcome.back:.2f} s after the last kill")
    for line in [*sorted(set(outcome.others)), *outcome.left]:
        print(f"  {line}")
    print("good" if outcome.is_good else "MISSED")
    return 0 if outcome.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
