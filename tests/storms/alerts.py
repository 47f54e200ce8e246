"""Prometheus itself scrapes a real server, and each alert that operators wait for fires when its cause is there, and no more when that is gone (issue 18).

    python tests/storms/alerts.py

The rules are those of docs/alerts.yml, with shorter times: ``for`` and each window.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "faces"))

from prometheus_tools import ALERTS, Prometheus, free_port, prometheus

from passenger_trio.testing import RawClient, Supervisor, eventually

APP = """
import time

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/slow":
        time.sleep(1)
    body = b"x" * (12_000_000 if path == "/big" else 2)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
BROKEN = APP + "raise ImportError('this version is broken')\n"
CONNECTIONS = 100
DISK = "16M"


def shortened() -> str:
    """The rules, with shorter times."""
    text = re.sub(r"for: \w+", "for: 3s", ALERTS.read_text())
    return re.sub(r"\[\d+m\]", "[20s]", text)


@contextmanager
def served(root: Path, listen: str) -> Iterator[Supervisor]:
    for name in ("good", "bad"):
        (root / name).mkdir()
        (root / name / "passenger_wsgi.py").write_text(APP)
    (root / "passenger-trio.toml").write_text(
        f'[server]\nmetrics_listen = "{listen}"\ndata_buffer_max = "{DISK}"\nmax_connections = {CONNECTIONS}\n\n'
        '[[app]]\nroot = "good"\nmax_instances = 1\n\n'
        '[[app]]\nroot = "bad"\nbase_uri = "/bad"\nmin_instances = 1\nspawn_method = "direct"\n'
    )
    with Supervisor.start(root, "-e", "production") as server:
        yield server


@contextmanager
def queue(server: Supervisor, root: Path) -> Iterator[None]:
    """Twenty requests at once, for a second each, of one process."""
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            with RawClient(server.address, 120) as client:
                client.get("/slow")

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@contextmanager
def broken(server: Supervisor, root: Path) -> Iterator[None]:
    """A version that does not start, without any process of the one before."""
    (root / "bad" / "passenger_wsgi.py").write_text(BROKEN)
    bad = next(group for group in server.status()["groups"] if group["name"] == "bad")
    for process in bad["processes"]:
        os.kill(process["pid"], signal.SIGKILL)
    try:
        yield
    finally:
        (root / "bad" / "passenger_wsgi.py").write_text(APP)
        server.get("/bad/")


@contextmanager
def disk(server: Supervisor, root: Path) -> Iterator[None]:
    """Clients that ask for much and take nothing."""
    with ExitStack() as stack:
        for _ in range(2):
            client = stack.enter_context(socket.create_connection(server.address, 60))  # type: ignore[arg-type]
            client.sendall(b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n")
        yield


@contextmanager
def connections(server: Supervisor, root: Path) -> Iterator[None]:
    """As many as there may be."""
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.address)
        yield


@contextmanager
def descriptors(server: Supervisor, root: Path) -> Iterator[None]:
    """A limit that is nearly reached."""
    pid = server.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")) + 3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


CAUSES: tuple[tuple[Callable[[Supervisor, Path], object], tuple[str, ...]], ...] = (
    (queue, ("PassengerQueueGrows",)),
    (broken, ("PassengerDoesNotStart", "PassengerCircuitOpen")),
    (disk, ("PassengerBufferDiskFull",)),
    (connections, ("PassengerDescriptorsRunOut",)),
    (descriptors, ("PassengerDescriptorsRunOut",)),
)


def watch(told: Prometheus, names: tuple[str, ...], *, fires: bool, timeout: float = 120) -> float:
    """Wait until the alerts fire, or none of them does. Returns after how many seconds."""
    begun = time.monotonic()
    eventually(lambda: set(names) <= told.firing() if fires else not set(names) & told.firing(), timeout=timeout)
    return time.monotonic() - begun


def storm() -> list[tuple[str, float, float]]:
    """Cause and alerts; seconds until they fired, and until they were quiet again."""
    found = []
    with tempfile.TemporaryDirectory(prefix="pt-storm-") as directory:
        root, home = Path(directory, "apps"), Path(directory, "prometheus")
        root.mkdir()
        home.mkdir()
        rules = Path(directory, "alerts.yml")
        rules.write_text(shortened())
        listen = f"127.0.0.1:{free_port()}"
        with served(root, listen) as server, prometheus(home, listen, rules) as told:
            assert not told.firing()
            for cause, names in CAUSES:
                with cause(server, root):  # type: ignore[attr-defined]
                    fired = watch(told, names, fires=True)
                    also = told.firing() - set(names)
                quiet = watch(told, names, fires=False)
                found.append(
                    (
                        f"{cause.__name__}: {', '.join(names)}" + (f" (and {', '.join(also)})" if also else ""),
                        fired,
                        quiet,
                    )
                )
                print(f"{found[-1][0]}: fires after {fired:.1f} s, quiet after {quiet:.1f} s", flush=True)
    return found


if __name__ == "__main__":
    storm()
