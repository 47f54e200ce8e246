"""Runs ``passenger-trio start`` as a child process, waits until it is ready, collects its log, and
checks that nothing is left.

The environment of the server carries a mark, which every program that it starts inherits, however
far it forks away. When the server has ended, no process with that mark may exist (``LeftBehind``).
The harness chooses the instance directory. That directory must be gone as well, and so must the
socket of ``--socket``.

Two threads of the harness read the server's standard output and error, until both end. When a test
fails inside the ``with`` block, the end of the log goes to the test's standard error, where a test
framework shows it; the pytest plugin shows the requests and the log of the test instead (``watch``).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from passenger_trio.admin.client import fetch, fetch_status
from passenger_trio.errors import AdminError
from passenger_trio.testing import watch
from passenger_trio.testing.exchange import Exchange
from passenger_trio.testing.reachable import Reachable
from passenger_trio.testing.run_directory import HOME, environment_of_a_server, temporary_directory
from passenger_trio.testing.warm_start import start_server

__all__ = ["MARK", "LeftBehind", "Supervisor", "eventually", "is_running", "supervisor_python"]

MARK = "HARNESSMARK"
_STOP_TIME = 30.0
_TAIL = 60
"""Lines of the log that are shown after a failure."""
_NOTED = 1000
"""Requests that a server's clients remember."""

T = TypeVar("T")


class LeftBehind(AssertionError):
    """A server that has ended left something behind."""


def eventually(probe: Callable[[], T], timeout: float = 15.0, what: str = "") -> T:
    """Call ``probe`` until its result is true, and return that result.

    Between two calls it waits for 5 ms, and later for a twentieth of the time so far, at most 50 ms: a probe may ask the server,
    and so take the time from what it waits for.

    :raises AssertionError: no result was true within ``timeout`` seconds.
    """
    begun = time.monotonic()
    while True:
        value = probe()
        if value:
            return value
        waited = time.monotonic() - begun
        if waited > timeout:
            raise AssertionError(f"did not happen within {timeout:g} s: {what or probe}; last seen: {value!r}")
        time.sleep(min(max(waited / 20, 0.005), 0.05))


def supervisor_python() -> str:
    """The interpreter that runs servers: that of ``PASSENGER_TRIO_TEST_SUPERVISOR``, else this one."""
    return os.environ.get("PASSENGER_TRIO_TEST_SUPERVISOR") or sys.executable


def is_running(pid: int) -> bool:
    """Whether the process exists and has not ended. A zombie has ended.

    The first thread of a process may end before the others, which keep its files open: then the
    process is running.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        threads = len(os.listdir(f"/proc/{pid}/task"))
    except (FileNotFoundError, ProcessLookupError):
        return False
    return threads > 1 or stat[stat.rindex(b")") + 2 :][:1] not in b"ZX"


class Supervisor(Reachable):
    """A running server. Use it as a context manager: leaving it stops the server and checks that
    nothing is left.
    """

    def __init__(self, process: subprocess.Popen[bytes], home: Path, mark: str) -> None:
        self.process = process
        self.pid = process.pid
        self.home = home
        """A directory of the harness, removed at the end."""
        self.instance_dir = home / "i"
        self.output: list[str] = []
        """Lines of standard output."""
        self.exit_code: int | None = None
        self.exchanges: deque[Exchange] = deque(maxlen=_NOTED)
        """The last requests on connections of ``connect``, ``get`` and ``post``."""
        self._was_told = False
        """Whether it got a signal to drain."""
        self._log: list[str] = []
        self._ready: dict[str, Any] = {}
        self._mark = mark
        self._access: list[str] = []
        """The access log, when its directory is gone."""
        self._trace: dict[str, Any] | None = None
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in ((process.stdout, self.output), (process.stderr, self._log))
            if stream is not None
        ]
        for reader in self._readers:
            reader.start()

    @classmethod
    def start(
        cls,
        root: str | Path | None,
        *arguments: str,
        cwd: str | Path | None = None,
        env: Mapping[str, str | None] | None = None,
        timeout: float = 60.0,
        wait: bool = True,
        prefix: Iterable[str] = (),
        python: str = "",
    ) -> Supervisor:
        """Start a server for the application in ``root`` on a free port and wait until it is ready.

        :param root: directory of the application; None: as in ``arguments``, or the working
            directory.
        :param arguments: more arguments for ``passenger-trio start``.
        :param cwd: the server's working directory (default: this program's).
        :param env: more environment variables; None removes one.
        :param wait: False returns at once; the caller must call ``wait_ready``.
        :param prefix: words in front of the command, such as ``prlimit --nofile=64``. Then, and with ``python``, the
            server does not end when this process is killed.
        :param python: the interpreter that runs the server; passenger_trio must be installed for it
            (default: the one in ``PASSENGER_TRIO_TEST_SUPERVISOR``, else this one).
        """
        home = temporary_directory(HOME)
        mark = secrets.token_hex(8)
        prefix = list(prefix)
        interpreter = python or supervisor_python()
        lives_on = bool(prefix or python)  # in a namespace of its own, or as a program that is not ours
        words = ["start", *([] if root is None else [str(root)]), *arguments]
        # Arguments win over variables.
        settings = {
            "PASSENGER_TRIO_LOG_FORMAT": "json",
            "PASSENGER_TRIO_INSTANCE_DIR": str(home / "i"),
            "PASSENGER_TRIO_ACCESS_LOG": str(home / "access.log"),
            **({} if lives_on else environment_of_a_server(home)),
        }
        if os.geteuid() == 0 and "--user" not in arguments:
            settings["PASSENGER_TRIO_USER"] = "root"  # a test runs its applications as itself
        if not {"-S", "--socket"} & set(arguments):
            settings["PASSENGER_TRIO_PORT"] = "0"
        environment: dict[str, str | None] = {**os.environ, MARK: mark, **settings, **(env or {})}
        variables = {name: value for name, value in environment.items() if value is not None}
        if interpreter == sys.executable and not lives_on:
            process = start_server(words, variables, directory=cwd)
        else:
            module = "passenger_trio" if lives_on else "passenger_trio.testing.served"
            process = subprocess.Popen(
                [*prefix, interpreter, "-m", module, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=variables,
                start_new_session=True,
                cwd=cwd,
            )
        server = cls(process, home, mark)
        watch.started(server)
        if wait:
            try:
                server.wait_ready(timeout)
            except BaseException:
                server.abandon()
                raise
        return server

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Return when the server serves.

        :raises AssertionError: the server is not ready in time, or has ended.
        """
        try:
            eventually(lambda: self.ready or self.process.poll() is not None, timeout, "the server is ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log_tail}") from None
        if not self.ready:
            for reader in self._readers:
                reader.join(5)
            raise AssertionError(f"the server ended before it was ready:\n{self.log_tail}")

    # State

    @property
    def log(self) -> list[str]:
        """Lines of standard error."""
        return self._log

    @property
    def ready(self) -> dict[str, Any]:
        """The banner, as JSON; empty until the server serves."""
        return self._ready

    @property
    def url(self) -> str:
        """The first address, without a trailing slash."""
        return str(self.ready["addresses"][0]).rstrip("/")

    @property
    def address(self) -> tuple[str, int] | str:
        """The address of the first listener, for ``RawClient``."""
        if self.url.startswith("unix:"):
            return self.url.removeprefix("unix:")
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def status(self) -> dict[str, Any]:
        """The status from the admin socket."""
        return fetch_status(str(self.ready["admin_socket"]))

    def group(self) -> dict[str, Any]:
        """The first group in that status."""
        first: dict[str, Any] = self.status()["groups"][0]
        return first

    @property
    def pids(self) -> list[int]:
        """The serving processes of the application."""
        processes = [p for group in self.status()["groups"] for p in group["processes"]]
        return [process["pid"] for process in processes if process["state"] == "running"]

    @property
    def preloader_pid(self) -> int | None:
        """The preloader of the first group, if it has one."""
        preloader = self.group()["preloader"]
        return None if preloader is None else int(preloader["pid"])

    @property
    def log_tail(self) -> str:
        """The end of the log, for a message."""
        return "\n".join(self.log[-_TAIL:])

    def wait_log(self, text: str, timeout: float = 15.0, start: int = 0) -> str:
        """The first log line, from number ``start`` on, that contains ``text``."""
        return eventually(
            lambda: next((line for line in self.log[start:] if text in line), ""), timeout, f"a log line with {text!r}"
        )

    def access_log(self) -> list[str]:
        """Lines of the access log."""
        path = self.home / "access.log"
        return path.read_text().splitlines() if path.exists() else self._access

    def take_trace(self) -> dict[str, Any] | None:
        """The server's flight recorder (``passenger_trio.testing.replay``): as it is now, or as it was when a test failed in
        the ``with`` block. None if there is none.
        """
        if self._trace is None and self._ready and self.process.poll() is None:
            try:
                self._trace = fetch(str(self.ready["admin_socket"]), "/v1/trace")
            except (AdminError, KeyError):
                pass  # it is ending, or does not run
        return self._trace

    def exchanges_since(self, last: Exchange | None) -> list[Exchange]:
        """Those that came after ``last``; None: all."""
        found = list(self.exchanges)
        place = next((place for place, one in enumerate(found) if one is last), -1)
        return found[place + 1 :]

    def _note(self) -> Callable[[Exchange], None]:
        return self.exchanges.append

    def wait_access_log(self, text: str, timeout: float = 15.0) -> str:
        """The first line of the access log that contains ``text``. Lines are written a moment after
        the response.
        """
        return eventually(
            lambda: next((line for line in self.access_log() if text in line), ""),
            timeout,
            f"an access log line with {text!r}",
        )

    def descriptors(self) -> list[str]:
        """The open descriptors of the supervisor: the target of each."""
        found = []
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            try:
                found.append(os.readlink(link))
            except FileNotFoundError:
                continue
        return sorted(found)

    # Shutdown

    def send_signal(self, number: int) -> None:
        self._was_told |= number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
        self.process.send_signal(number)

    def interrupt(self) -> None:
        """Send SIGINT to the whole foreground process group, as a terminal does for Ctrl-C."""
        os.killpg(self.pid, signal.SIGINT)

    def stop(self, number: int = signal.SIGTERM, timeout: float = _STOP_TIME) -> int:
        """Stop the server, check that nothing is left, and return its exit code.

        :raises LeftBehind: something is left.
        """
        if self.process.poll() is None:
            self.send_signal(number)
        return self.wait(timeout)

    def wait(self, timeout: float = _STOP_TIME) -> int:
        """Wait until the server ends by itself, check that nothing is left, and return its exit
        code.

        :raises LeftBehind: something is left.
        """
        try:
            self.exit_code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server did not end within {timeout:g} s:\n{self.log_tail}") from None
        # Check first: a process that holds the server's output would block the reading threads.
        self.check_nothing_left()
        for reader in self._readers:
            reader.join(5)
        return self.exit_code

    def kill(self) -> None:
        """Send SIGKILL to the server, as the OOM killer would. All other processes must end by themselves."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def abandon(self) -> None:
        """End it and all that it has started at once, and remove what is left of it."""
        self.kill()
        self._clean()

    def marked_processes(self) -> list[str]:
        """All processes with this server's mark: ``"pid command"``."""
        wanted = f"{MARK}={self._mark}".encode()
        found = []
        for directory in Path("/proc").iterdir():
            if not directory.name.isdigit():
                continue
            try:
                if wanted in (directory / "environ").read_bytes().split(b"\0"):
                    command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found.append(f"{directory.name} {command}")
            except OSError:
                continue  # the process has ended, or belongs to another user
        return found

    def check_nothing_left(self) -> None:
        """:raises LeftBehind: a process, the instance directory, or the server's Unix socket is left."""
        if left := self.marked_processes():
            raise LeftBehind("processes are left: " + "; ".join(left) + "\n" + self.log_tail)
        if self.instance_dir.exists():
            raise LeftBehind(f"the instance directory is left, with {[p.name for p in self.instance_dir.iterdir()]}")
        if self.ready and isinstance(self.address, str) and os.path.lexists(self.address):
            raise LeftBehind(f"the socket {self.address} is left")

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        by_itself = self.process.poll() is not None
        try:
            if not by_itself and kind is None:
                cuts_off = self._was_told  # a second signal ends it at once, which is exit code 6
                code = self.stop()
                assert code == 0 or (cuts_off and code == 6), (
                    f"the server ended with exit code {code}:\n{self.log_tail}"
                )
        except BaseException:
            self._show_log()
            raise
        finally:
            if kind is not None:
                self.take_trace()
                self._show_log()
            self.kill()
            self._clean()

    def _show_log(self) -> None:
        if watch.somebody_watches():
            return  # and shows more
        print(f"the end of the log of the server (pid {self.pid}):\n{self.log_tail}", file=sys.stderr)

    def _clean(self) -> None:
        self._end_rest()
        self._access = self.access_log()
        shutil.rmtree(self.home, ignore_errors=True)

    def _end_rest(self) -> None:
        for line in self.marked_processes():
            try:
                os.kill(int(line.split()[0]), signal.SIGKILL)
            except ProcessLookupError:
                pass
        for reader in self._readers:
            reader.join(5)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def _read(self, stream: IO[bytes], lines: list[str]) -> None:
        for raw in stream:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            self._look_for_banner(lines, line)
            lines.append(line)

    def _look_for_banner(self, lines: list[str], line: str) -> None:
        if lines is self._log and not self._ready and '"addresses"' in line:
            self._ready = json.loads(line)
