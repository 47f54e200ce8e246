"""The servers that are measured: ours, and the real peers. Each starts an application on a free loopback port and is gone at the end.

A peer is a command line and the program that must be there for it; one whose program is missing is left out. Ours is there once for each
interpreter that the supervisor runs on (``--supervisor-python``); its applications run on this one.
"""

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
from measure import family

APPS = Path(__file__).resolve().parent / "apps"
BIN = Path(sys.executable).parent
"""Where the peers from PyPI are: in the environment of the benchmark."""


@attrs.frozen
class Peer:
    """A server. ``command`` makes its command line from an application's directory, a port, and a number of processes."""

    name: str
    command: Callable[[Path, int, int], Sequence[str]]
    program: str
    """What must be installed."""
    ours: bool = False
    short: str = ""
    """Its name at the head of a column."""
    warm_up: int = 1
    """Seconds of load before it is measured."""

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
        """The server's processes and the application's."""
        return family(self.pid, self.port)


def ours(python: str = sys.executable, name: str = "passenger_trio", *more: str) -> Peer:
    """passenger_trio, its supervisor run by ``python``; ``more`` are further options. PyPy has a compiler that wants to be warm."""

    def command(app: Path, port: int, processes: int) -> list[str]:
        words = [python, "-m", "passenger_trio", "start", str(app), "-p", str(port), "-e", "production"]
        words += ["--user", "root"] if os.geteuid() == 0 else []
        words += ["--access-log", "off", "--max-request-body", "0"]
        if any(app.glob("passenger_*.py")):
            words += ["--python", sys.executable]
        words += ["--spawn-method", "smart", "--max-pool-size", str(processes), "--min-instances", str(processes)]
        words += ["--max-requests-per-connection", "0"]  # the peers have no such limit, or a higher one
        return [*words, *more]

    short = "ours" if name == "passenger_trio" else name.replace("passenger_trio", "ours").rsplit(" ", 1)[0]
    return Peer(name, command, python, ours=True, short=short, warm_up=6 if "PyPy" in name else 1)


def passenger(app_type: str, startup_file: str, interpreter: tuple[str, str]) -> Callable[[Path, int, int], list[str]]:
    def command(app: Path, port: int, processes: int) -> list[str]:
        words = ["passenger", "start", "--engine", "builtin", "--address", "127.0.0.1", "--port", str(port)]
        words += ["--app-type", app_type, "--startup-file", startup_file, "--environment", "production"]
        words += ["--max-pool-size", str(processes), "--min-instances", str(processes), *interpreter]
        words += ["--spawn-method", "smart"] if app_type == "rack" else []
        return [*words, "--disable-turbocaching", "--disable-security-update-check", "--log-level", "2"]

    return command


def _gunicorn(worker: str, *more: str) -> Callable[[Path, int, int], list[str]]:
    return lambda app, port, processes: [
        *(str(BIN / "gunicorn"), "--bind", f"127.0.0.1:{port}", "--workers", str(processes), "--worker-class", worker),
        *("--chdir", str(app), *(["--no-control-socket"] if _has_control_socket() else []), *more),
        "passenger_wsgi:application",
    ]


def _has_control_socket() -> bool:
    """Newer versions of gunicorn open one, in the home directory, unless told otherwise."""
    told = subprocess.run([str(BIN / "gunicorn"), "--help"], capture_output=True, text=True, check=False).stdout
    return "--no-control-socket" in told


def _uwsgi(app: Path, port: int, processes: int) -> list[str]:
    # Of PyPI it has Python built in; Debian's loads it, and the router, as plugins.
    plugin = [] if (BIN / "uwsgi").exists() else ["--plugin", "http,python3"]
    return [
        *(_UWSGI, *plugin, "--http", f"127.0.0.1:{port}", "--http-keepalive", "--add-header", "Connection: Keep-Alive"),
        *("--master", "--processes", str(processes), "--wsgi-file", str(app / "passenger_wsgi.py"), "--need-app"),
        *("--disable-logging", "--die-on-term", "--listen", "100"),
    ]


_UWSGI = str(BIN / "uwsgi") if (BIN / "uwsgi").exists() else "uwsgi"


def _waitress(app: Path, port: int, processes: int) -> list[str]:
    # One process is all that it has; it gets a thread for each of the others' processes, and two more.
    return [
        *(str(BIN / "waitress-serve"), "--listen", f"127.0.0.1:{port}", "--threads", str(processes + 2)),
        "passenger_wsgi:application",
    ]


def _puma(app: Path, port: int, processes: int) -> list[str]:
    words = ["puma", "--workers", str(processes), "--threads", "4:4", "--environment", "production", "--quiet"]
    return [*words, "--bind", f"tcp://127.0.0.1:{port}", "config.ru"]


def _hypercorn(app: Path, port: int, processes: int) -> list[str]:
    words = [str(BIN / "hypercorn"), "--worker-class", "trio", "--workers", str(processes)]
    return [*words, "--bind", f"127.0.0.1:{port}", "passenger_asgi:application"]


def _uvicorn(app: Path, port: int, processes: int) -> list[str]:
    words = [str(BIN / "uvicorn"), "--workers", str(processes), "--host", "127.0.0.1", "--port", str(port)]
    return [*words, "--no-access-log", "--log-level", "warning", "passenger_asgi:application"]


OURS = ours()
OURS_ALL = [OURS]
"""One for each interpreter; the benchmark adds to it."""
PASSENGER = Peer(
    "Phusion Passenger WSGI", passenger("wsgi", "passenger_wsgi.py", ("--python", sys.executable)), "passenger"
)
PASSENGER_RACK = Peer(
    "Phusion Passenger Rack", passenger("rack", "config.ru", ("--ruby", "/usr/bin/ruby")), "passenger"
)
GUNICORN = Peer("gunicorn sync", _gunicorn("sync"), str(BIN / "gunicorn"))
GTHREAD = Peer("gunicorn gthread", _gunicorn("gthread", "--threads", "4"), str(BIN / "gunicorn"))
UWSGI = Peer("uWSGI http router", _uwsgi, _UWSGI)
WAITRESS = Peer("waitress", _waitress, str(BIN / "waitress-serve"))
PUMA = Peer("puma", _puma, "puma")
HYPERCORN = Peer("hypercorn trio", _hypercorn, str(BIN / "hypercorn"))
UVICORN = Peer("uvicorn", _uvicorn, str(BIN / "uvicorn"))
PEERS = [PASSENGER, PASSENGER_RACK, GUNICORN, GTHREAD, UWSGI, WAITRESS, PUMA, HYPERCORN, UVICORN]


def present(*peers: Peer) -> list[Peer]:
    """Ours, once for each interpreter, then those of the peers that are installed."""
    return [*OURS_ALL, *(peer for peer in peers if peer.installed)]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class DoesNotAnswer(Exception):
    """A peer was started, and is not there."""


@contextmanager
def running(peer: Peer, app: Path, processes: int = 2, timeout: float = 60.0) -> Iterator[Running]:
    """Start a peer and wait for its first answer."""
    port = free_port()
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile() as log:
        copy = Path(home) / app.name
        shutil.copytree(app, copy, symlinks=True)
        environment = {**os.environ, "TMPDIR": home, "RAILS_ENV": "production", "RACK_ENV": "production"}
        environment["PYTHONPATH"] = str(copy)
        command = peer.command(copy, port, processes)  # before the clock: gunicorn is asked for its options
        begun = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=copy,
            env=environment,
            start_new_session=True,
        )
        everything: list[int] = []
        try:
            while not _answers(port):
                if process.poll() is not None or time.perf_counter() - begun > timeout:
                    log.seek(0)
                    raise DoesNotAnswer(f"{peer.name} does not answer:\n{log.read().decode(errors='replace')[-2000:]}")
                time.sleep(0.002)
            yield Running(process.pid, port, time.perf_counter() - begun)
        finally:
            everything = family(process.pid, port)
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            _wait_gone(everything)


def _wait_gone(pids: list[int]) -> None:
    """The next one that is measured has the machine to itself."""
    end = time.perf_counter() + 10
    while any(_is_there(pid) for pid in pids):
        if time.perf_counter() > end:
            for pid in filter(_is_there, pids):
                os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.01)


def _is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 30) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return sock.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
