"""The application of one test, in a process of its own (TH2, TH3).

The process is forked when the test begins, after the fixtures that it asked for before, and is gone when the test has
ended: no state passes from one test to the next. ``LiveApp`` looks for what passes all the same, and for what the
test leaves behind (``leaks``).
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from passenger_trio.testing.clients import async_client, http_client, open_websocket
from passenger_trio.testing.forked_processes import ForkedProcesses, interface_of
from passenger_trio.testing.leaks import Held, error_lines, family, grown, look, outlived
from passenger_trio.testing.reachable import Reachable
from passenger_trio.testing.servers import ServerUnderTest

__all__ = ["THRESHOLD", "DoesNotStart", "LiveApp", "MakeProcesses", "as_record", "options_for_object", "options_of"]

_SOON = 2.0
"""Seconds in which what has ended is gone."""
THRESHOLD = 4
"""New descriptors or threads of the application that are no leak."""


class MakeProcesses(Protocol):
    """Makes the copies of the test's process; ``ForkedProcesses`` with all but its last argument."""

    def __call__(self, begun: Callable[[], None] = ...) -> ForkedProcesses: ...


class DoesNotStart(AssertionError):
    """The application does not start. The text has the server's explanation."""


class LiveApp(Reachable):
    """The application of a test. Made by the fixtures, and by ``PassengerTestCase``."""

    def __init__(self, address: str | tuple[str, int], server: ServerUnderTest | None) -> None:
        """:param server: None: a server that is not ours (``--passenger-server``)."""
        self._server = server
        self._address = address
        self.url = "http://localhost" if isinstance(address, str) else f"http://{address[0]}:{address[1]}"
        self._log_from = len(server.log) if server is not None else 0
        self._forked: ForkedProcesses | None = None
        self._before: dict[int, Held] = {}
        self._settled: tuple[list[int], int] | None = None

    @classmethod
    def of(cls, server: ServerUnderTest) -> LiveApp:
        """The application of a server that the plugin has started."""
        address = server.address
        return cls(address, server)

    # Facts

    @property
    def address(self) -> tuple[str, int] | str:
        """Where the clients of the test connect: the path of a Unix socket, or host and port."""
        return self._address

    @address.setter
    def address(self, address: tuple[str, int] | str) -> None:
        self._address = address

    @property
    def is_ours(self) -> bool:
        """Whether the plugin has started the server."""
        return self._server is not None

    @property
    def server(self) -> ServerUnderTest:
        """The server, as ``passenger_trio.testing.Supervisor`` shows it: ``status()``, ``pids``, ``send_signal()`` ...

        :raises AssertionError: the server was not started by the plugin.
        """
        assert self._server is not None, (
            "--passenger-server names a server that runs already: only its answers are known"
        )
        return self._server

    @property
    def socket(self) -> str:
        """The path of the server's Unix socket; of ``address``, if that is one."""
        assert isinstance(self.address, str), "the server of --passenger-server has no Unix socket"
        return self.address

    @socket.setter
    def socket(self, path: str) -> None:
        self.address = path

    @property
    def pids(self) -> list[int]:
        """The application's processes that serve."""
        return self.server.pids

    @property
    def log(self) -> list[dict[str, Any]]:
        """The server's log since the test began, each line as its JSON object: ``level``, ``logger``, ``event`` ..."""
        if self._server is None:
            return []
        return [as_record(line) for line in self.server.log[self._log_from :]]

    def output(self) -> list[str]:
        """The lines that the application has written to standard output and standard error."""
        return [line["event"] for line in self.log if line.get("logger") == "passenger_trio.app"]

    # Clients

    def client(self, **options: Any) -> Any:
        """A new ``httpx2.Client`` (or ``httpx.Client``, if only that is installed). The caller closes it."""
        return http_client(self.address, self.url, **options)

    def async_client(self, **options: Any) -> Any:
        """A new ``httpx2.AsyncClient``, for Trio and asyncio. Use it in ``async with``."""
        return async_client(self.address, self.url, **options)

    @asynccontextmanager
    async def open_websocket(self, path: str = "/", **options: Any) -> AsyncIterator[Any]:
        """A ``trio_websocket.WebSocketConnection``, for tests that run in Trio."""
        async with open_websocket(self.address, path, **options) as websocket:
            yield websocket

    # Life

    def begin(self, make_processes: MakeProcesses | None = None) -> None:
        """Fork the process of this test.

        :param make_processes: forks the test's process, for an application that is an object.
        :raises DoesNotStart: the application does not start.
        """
        server = self.server
        server.in_use = True
        try:
            if make_processes is None:
                server.begin_test()
                pid = server.spawn()
            else:
                pid = self._spawn_copy(server, make_processes)
        except BaseException as error:
            self._close_forked()
            server.in_use = False
            if isinstance(error, AssertionError):
                raise DoesNotStart(str(error)) from None
            raise
        assert (pid, _started(pid)) not in server.used, f"process {pid} served a test before: state may have leaked"
        self._before = {pid: look(pid)}

    def _spawn_copy(self, server: ServerUnderTest, make_processes: MakeProcesses) -> int:
        if server.is_troubled:  # what makes it well again may take the copy into use at once
            self._forked = make_processes()
            self._forked.wait_listening()
            self._forked.fork_next()
            server.begin_test()
            pid = server.spawn()
        else:
            # The server reads the order while the copy is forked, and prepares what the copy needs while that begins to listen. Meanwhile there is time for
            # the next one.
            pid = server.spawn(lambda send: self._fork(partial(make_processes, send)), self._fork_next)
        assert self._forked is not None
        self._forked.wait_next()
        return pid

    def _fork(self, make_processes: Callable[[], ForkedProcesses]) -> None:
        self._forked = make_processes()

    def _fork_next(self) -> None:
        assert self._forked is not None
        self._forked.fork_next()
        self._forked.wait_listening()

    def restart(self) -> None:
        """Replace the application's processes by fresh ones now, as a deploy that drops what is in flight would.

        :raises DoesNotStart: the application does not start.
        """
        self.server.end_processes(self.pids)
        self._start(more=False)

    def start_process(self) -> int:
        """Start one more process of the application, without waiting for the load that would; ``max_pool_size`` must have room for it. Returns its pid.

        :raises DoesNotStart: the application does not start, or ``max_pool_size`` has no room for one more.
        :raises AdminError: a process takes any number of requests, as those of Node.js do.
        """
        return self._start(more=True)

    def _start(self, *, more: bool) -> int:
        try:
            pid = self.server.spawn(more=more)
        except AssertionError as error:
            raise DoesNotStart(str(error)) from None
        self._before[pid] = look(pid)
        return pid

    def settle(self) -> None:
        """Wait until what is on its way has come or gone, and note what the test has left open. ``end`` calls it, if
        nobody has: what stands between clients and server closes their connections.
        """
        if self._server is not None and self._settled is None and self._server.process.poll() is None:
            self._settled = self._server.settle(_SOON)

    def end(
        self, allow_log: Iterable[str] = (), allow_leak: Iterable[str] = (), threshold: int = THRESHOLD
    ) -> list[str]:
        """End the processes of the test, and return what it left behind: one text for each finding.

        :param allow_log: patterns of error lines that are expected.
        :param allow_leak: kinds of leaks that are expected (``leaks.KINDS``).
        """
        if self._server is None:
            return []
        found: dict[str, str] = {}
        children: dict[int, str] = {}
        server = self.server
        server.in_use = False
        if server.process.poll() is not None:
            return [f"the server ended during the test, with exit code {server.process.returncode}:\n{server.log_tail}"]
        self.settle()
        assert self._settled is not None
        pids, connections = self._settled
        if connections:
            found["sockets"] = f"{connections} connections to the server are still open: close what the test has opened"
        for pid in pids:
            now = look(pid)
            found.update(grown(self._before.get(pid, now), now, threshold))
            children.update(family(pid))
            server.used.add((pid, _started(pid)))
        server.end_processes(pids)
        self._close_forked()
        survivors = outlived(children)
        if survivors:
            listed = ", ".join(f"{pid} ({command})" for pid, command in survivors.items())
            found["processes"] = f"processes that the application started outlived it: {listed}"
            for pid in survivors:
                _kill(pid)
        allowed = set(allow_leak)
        findings = [text for kind, text in found.items() if kind not in allowed]
        if lines := error_lines(self.log, allow_log):
            findings.append("the log has lines of level error: " + "\n".join(lines))
        if surplus := server.surplus_descriptors(_SOON):
            findings.append(f"the server has descriptors that it had not before: {', '.join(surplus)}")
        return findings

    def _close_forked(self) -> None:
        if self._forked is not None:
            self._forked.close()
            self._forked = None


def as_record(line: str) -> dict[str, Any]:
    """The JSON object of a log line; one of level info for a line that is none."""
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"level": "info", "logger": "", "event": line}


def _started(pid: int) -> str:
    """When the process started, in ticks since the boot."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has ended meanwhile


def options_of(app: object, base: Path) -> Mapping[str, Any] | None:
    """The options that name an application: a directory, or ``module:object``. None: it is an object.

    :raises ValueError: a text that is neither.
    """
    if not isinstance(app, (str, os.PathLike)):
        return None if callable(app) else _refuse(app)
    text = os.fspath(app)
    if text and (base / text).is_dir():
        return {"root": str((base / text).resolve())}
    where, colon, target = text.rpartition(":")
    if colon and (base / where).is_dir():
        return {"root": str((base / where).resolve()), "target": target}
    if colon or (text and (base / text).is_file()):
        return {"root": str(base), "target": text}
    return _refuse(app)


def options_for_object(application: object, base: Path, socket: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a server that takes copies of the test's process into use."""
    return {
        "app_type": interface_of(application),
        **options,
        "root": str(base),
        "target": "passenger_trio.testing:application",
        "name": "app",
        "spawn_method": "direct",
        "preloader_socket": str(socket),
    }


def _refuse(app: object) -> Mapping[str, Any]:
    raise ValueError(
        f"{app!r} is no application: give a directory, 'module:object' or an object, as in @pytest.mark.passenger('shop:app'), "
        "or passenger_app in the ini file"
    )
