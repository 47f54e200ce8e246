"""What the end-to-end tests share: where the applications are, a gate that requests wait at, a command that is run to its end, clients in threads."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from passenger_trio.testing import RawClient, Response, Supervisor
from passenger_trio.testing.warm_start import start_server

APPS = Path(__file__).resolve().parent.parent / "apps" / "python"
BEHAVIOURS = APPS / "behaviours"
FLASK = APPS / "flask_hello"
GATE = os.path.join(tempfile.gettempdir(), f"pt-gate-{os.getpid()}")
"""The socket of the fixture ``at_gate``: one path for all tests of this process, so that they can share a server."""
BEHAVES = pytest.mark.passenger(
    str(BEHAVIOURS),
    environment="development",
    friendly_error_pages="on",
    max_pool_size=6,
    access_log="-",
    access_log_format="json",
    env={"GATE": GATE},
)
"""A process of ``behaviours`` for each test, all of one server with (nearly) the options that the command has by itself."""
FRONTS = int(os.environ.get("PASSENGER_TRIO_FRONTS") or 1)
"""Front processes of each server of this run (``nox -s fronts``). A test says by it what one front knows at once and several do not."""
AS_OURSELVES = {"PASSENGER_TRIO_USER": "root"} if os.geteuid() == 0 else {}
"""The environment in which root's server runs applications as root, as the harness has it."""
HELLO = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""

_SIZES = itertools.count()
T = TypeVar("T")


def draining(requests: int) -> str:
    """In the log when a server drains. Several fronts tell their numbers ten times a second: it may be that of a moment ago."""
    return f"draining: {requests}" if FRONTS == 1 else "draining: "


class Gate:
    """Where requests for ``/gate`` wait: the test sees who has come, and lets them go on when it likes."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(256)
        self._waiting: list[socket.socket] = []

    @property
    def arguments(self) -> tuple[str, str]:
        """For ``passenger-trio start``."""
        return "--env", f"GATE={self.path}"

    def wait_arrival(self, timeout: float = 30.0) -> int:
        """The pid of the next that comes."""
        self._listener.settimeout(timeout)
        visitor, _ = self._listener.accept()
        visitor.settimeout(timeout)
        self._waiting.append(visitor)
        return int(visitor.makefile("rb").readline())

    def nobody_comes(self) -> bool:
        """Whether nobody has come since the last that was waited for."""
        self._listener.setblocking(False)
        try:
            self._listener.accept()[0].close()
        except BlockingIOError:
            return True
        return False

    def open(self, count: int | None = None) -> None:
        """Let those who wait go on, the first who came first."""
        for visitor in self._waiting[:count]:
            visitor.close()
        del self._waiting[:count]

    def close(self) -> None:
        self.open()
        self._listener.close()


@contextmanager
def gate() -> Iterator[Gate]:
    with tempfile.TemporaryDirectory(prefix="pt-gate-") as directory:
        it = Gate(os.path.join(directory, "gate"))
        try:
            yield it
        finally:
            it.close()


@contextmanager
def clients(count: int) -> Iterator[Callable[..., Future[Response]]]:
    """``send(server, path)``: a GET on a connection of its own, in a thread; its response comes by the future."""
    with ThreadPoolExecutor(count) as pool:
        yield lambda server, path, **headers: pool.submit(server.get, path, **headers)


def in_threads(count: int, work: Callable[[int], T]) -> list[T]:
    """``work(0)``, ``work(1)``, ... at the same time."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def keep_alive(server: Supervisor, path: str, connections: int, requests: int) -> list[Response | Exception]:
    """So many connections at the same time, so many requests on each; what came of every one of them."""

    def talk(number: int) -> list[Response | Exception]:
        got: list[Response | Exception] = []
        client: RawClient | None = None
        for _ in range(requests):
            try:
                client = client or server.connect()
                response = client.get(path)
                got.append(response)
                if not response.complete or response.header("Connection") == "close":
                    client.close()
                    client = None
            except Exception as error:  # noqa: BLE001  whatever it is, it is a result
                got.append(error)
                if client is not None:
                    client.close()
                client = None
        if client is not None:
            client.close()
        return got

    return [result for results in in_threads(connections, talk) for result in results]


def run_command(
    *arguments: str, env: Mapping[str, str | None] | None = None, cwd: str | Path | None = None, timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """``passenger-trio ARGUMENTS``, run to its end, in a process that is forked as those of the harness' servers are: to load the program
    is nearly all that an order or a message of error costs. (``test_cli`` and ``test_ending`` start it as a program as well.)
    """
    own = (
        AS_OURSELVES
        if arguments[:1] in (("start",), ("config",)) and not {"--user", "--app-user"} & {*arguments}
        else {}
    )
    environment: dict[str, str | None] = {**os.environ, **own, **(env or {})}
    variables = {name: value for name, value in environment.items() if value is not None}
    process = start_server([*arguments], variables, directory=cwd)
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout as stdout, process.stderr as stderr, ThreadPoolExecutor(2) as readers:
        texts = [readers.submit(stream.read) for stream in (stdout, stderr)]
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        # Also what it has started may hold its output no longer than it lives itself.
        out, err = (text.result(timeout).decode() for text in texts)
    return subprocess.CompletedProcess(["passenger-trio", *arguments], code, out, err)


def write_app(directory: Path, source: str = HELLO, name: str = "passenger_wsgi.py") -> Path:
    """A file in ``directory`` that holds ``source``; returns the directory.

    Each Python file has another size: Python takes a compiled file for fresh when the source has the
    same size and the same second as before.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(source + ("\n" + "#" * next(_SIZES) + "\n") * name.endswith(".py"))
    return directory


class Load:
    """Clients that send requests until they are told to stop; what came of each is kept. Use it as a context manager.

    Each rests for a moment after each answer: two of them are a load, and do not take a whole core from what is tested.
    """

    def __init__(self, server: Supervisor, path: str, connections: int, rest: float = 0.01) -> None:
        self.results: list[Response | Exception] = []
        self._rest = rest
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._talk, args=(server, path)) for _ in range(connections)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _talk(self, server: Supervisor, path: str) -> None:
        client: RawClient | None = None
        while not self._stop.is_set():
            try:
                client = client or server.connect()
                response = client.get(path)
                self.results.append(response)
                goes_on = response.complete and response.header("Connection") != "close"
            except Exception as error:  # noqa: BLE001  whatever it is, it is a result
                self.results.append(error)
                goes_on = False
            if client is not None and not goes_on:
                client.close()
                client = None
            self._stop.wait(self._rest)
        if client is not None:
            client.close()
