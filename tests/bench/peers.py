"""The servers that are measured: ours, and the real peers. Each starts an application on a free loopback port and is gone at the end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

APPS = Path(__file__).resolve().parent / "apps"


@attrs.frozen
class Peer:
    """A server. ``command`` makes its command line from an application's directory, a port, and a number of processes."""

    name: str
    command: Callable[[Path, int, int], Sequence[str]]
    program: str
    """What must be installed."""

    @property
    def installed(self) -> bool:
        return shutil.which(self.program) is not None


@attrs.frozen
class Running:
    """A peer that answers."""

    pid: int
    port: int
    ready_after: float
    """Seconds from the command to the first answered request."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def processes(self) -> list[int]:
        """The server's process and all its descendants."""
        found, queue = [], [self.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                queue += [int(word) for word in children.read_text().split()]
        return found


def _ours(app: Path, port: int, processes: int) -> list[str]:
    command = [sys.executable, "-m", "passenger_trio", "start", str(app), "-p", str(port), "-e", "production"]
    return [
        *command,
        "--access-log",
        os.devnull,
        "--max-request-body",
        "0",
        "--max-pool-size",
        str(processes),
        "--min-instances",
        str(processes),
    ]


def _passenger(app: Path, port: int, processes: int) -> list[str]:
    command = ["passenger", "start", "--engine", "builtin", "--address", "127.0.0.1", "--port", str(port)]
    command += ["--app-type", "wsgi", "--startup-file", "passenger_wsgi.py", "--environment", "production"]
    command += ["--max-pool-size", str(processes), "--min-instances", str(processes), "--python", "/usr/bin/python3"]
    return [*command, "--disable-turbocaching", "--disable-security-update-check", "--log-level", "2"]


def _passenger_rack(app: Path, port: int, processes: int) -> list[str]:
    command = [word for word in _passenger(app, port, processes) if word not in ("--python", "/usr/bin/python3")]
    at = command.index("--app-type")
    return [
        *command[:at],
        "--app-type",
        "rack",
        "--startup-file",
        "config.ru",
        *command[at + 4 :],
        "--ruby",
        "/usr/bin/ruby",
    ]


OURS = Peer("passenger_trio", _ours, sys.executable)
PASSENGER = Peer("Phusion Passenger WSGI", _passenger, "passenger")

PASSENGER_RACK = Peer("Phusion Passenger Rack", _passenger_rack, "passenger")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def running(peer: Peer, app: Path, processes: int = 2, timeout: float = 60.0) -> Iterator[Running]:
    """Start a peer and wait for its first answer."""
    port = free_port()
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile() as log:
        copy = Path(home) / app.name
        shutil.copytree(app, copy)
        environment = {**os.environ, "TMPDIR": home}
        begun = time.perf_counter()
        process = subprocess.Popen(
            peer.command(copy, port, processes),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=copy,
            env=environment,
            start_new_session=True,
        )
        try:
            while not _answers(port):
                if process.poll() is not None or time.perf_counter() - begun > timeout:
                    log.seek(0)
                    raise RuntimeError(f"{peer.name} does not answer:\n{log.read().decode(errors='replace')[-2000:]}")
                time.sleep(0.002)
            yield Running(process.pid, port, time.perf_counter() - begun)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 30) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return sock.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
