"""The servers of one pytest session: one for each application and set of options, started at its
first use, shared by all tests that ask for the same.

A server (TH3) listens on a Unix socket in the directory of its run, so workers of pytest-xdist do not
meet; a mark that says ``port=0`` has a free TCP port instead, which a browser needs. It ends with the process of the tests, whatever ends that, and then removes what is left of them (TH8). It keeps one preloader and no process between tests: a test orders a fresh one
(``live_app``). Its log goes to a file, because a thread that reads a pipe would stand in the way of
forking from the test's process.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from passenger_trio.admin.client import order
from passenger_trio.errors import AdminError
from passenger_trio.options import AppOptions, PoolOptions, ServerOptions
from passenger_trio.testing.harness import MARK, Supervisor, eventually, supervisor_python
from passenger_trio.testing.leaks import is_ending, look
from passenger_trio.testing.run_directory import HOME, environment_of_a_server, temporary_directory
from passenger_trio.testing.warm_start import start_server

__all__ = ["ServerUnderTest", "Servers", "write_config"]

_LONGEST_HOME = 72
"""Bytes of a directory in which every socket of a server has room (``sun_path`` has 107)."""

_START_TIME = 60.0
"""Seconds in which a process must serve, where requests wait for less."""
_EVIDENCE = 60
"""Lines of the log that explain a start that failed."""

DEFAULTS: dict[str, Any] = {
    "environment": "test",
    "start_timeout": 60,
    "min_instances": 0,
    "max_pool_size": 1,
    "pool_idle_time": 0,
    "stat_throttle_rate": 0,
    "max_drain_time": 1,
    "process_shutdown_timeout": 5,
    "shutdown_timeout": 5,
    "friendly_error_pages": "off",
    "access_log": "off",
}
"""Options of a server under test that differ from the command's defaults. No process is started but by order of a test."""


class ServerUnderTest(Supervisor):
    """A server whose log is a file."""

    @classmethod
    def launch(cls, config: Path, home: Path, more: Mapping[str, str]) -> ServerUnderTest:
        """Start the server that a configuration file describes, with its sockets in ``home``. The caller waits until it is ready.

        :param more: environment variables.
        """
        mark = secrets.token_hex(8)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PASSENGER_TRIO_")}
        environment |= {
            MARK: mark,
            "PASSENGER_TRIO_LOG_FORMAT": "json",
            "PASSENGER_TRIO_INSTANCE_DIR": str(home / "i"),
            **environment_of_a_server(home),
            **more,
        }
        text = config.read_text()
        if "\nport = " not in text:
            environment["PASSENGER_TRIO_SOCKET"] = str(home / "s")
        if os.geteuid() == 0 and "\nuser = " not in text:
            environment["PASSENGER_TRIO_USER"] = "root"  # a test runs its applications as itself
        with open(home / "log", "wb") as log:
            if supervisor_python() == sys.executable:
                process = start_server(["start", "--config", str(config)], environment, stdout=log, stderr=log)
            else:
                process = subprocess.Popen(
                    [supervisor_python(), "-m", "passenger_trio.testing.served", "start", "--config", str(config)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,
                )
        return cls(process, home, mark)

    def __init__(self, process: subprocess.Popen[bytes], home: Path, mark: str) -> None:
        super().__init__(process, home, mark)
        self._source = (home / "log").open("rb")
        self._rest = b""
        self.keeps_home = False
        self.used: set[tuple[int, str]] = set()
        """Pid and start of each process that served a test."""
        self.in_use = False
        """Whether an application of the running test has this server."""
        self._troubled = False
        self._stale = 0
        """Connections that earlier tests have left open."""
        self._descriptors: Counter[str] | None = None

    @property
    def log(self) -> list[str]:
        """The lines of the log so far; after ``close``, all of them."""
        if self._source.closed:
            return self._log
        *lines, self._rest = (self._rest + self._source.read()).split(b"\n")
        for raw in lines:
            line = raw.decode("utf-8", "replace")
            self._look_for_banner(self._log, line)
            self._log.append(line)
        return self._log

    @property
    def ready(self) -> dict[str, Any]:
        """The banner, as JSON; empty until the server serves."""
        if not self._ready:
            self.log  # noqa: B018  reads the file
        return self._ready

    # One test after another

    @property
    def is_troubled(self) -> bool:
        """Whether something is left of crashes or of starts that failed."""
        return self._troubled

    def begin_test(self) -> None:
        """Make the server as if no test had run: nothing is left of crashes and of starts that failed."""
        if self._troubled:
            self._order("restart", hard=True)
            self._troubled = False

    def spawn(
        self,
        before: Callable[[Callable[[], None]], None] | None = None,
        meanwhile: Callable[[], None] | None = None,
        *,
        more: bool = False,
    ) -> int:
        """Let a process be forked, or started, if none is free, and wait until it can serve. Returns its pid.

        :param before: called before the server begins, while it reads the order, with a function that lets it begin (``admin.client.order``).
        :param meanwhile: called while the server is at it.
        :param more: start one also if one is free.
        :raises AssertionError: the application does not start. The text has the server's explanation.
        """
        deadline = time.monotonic() + _START_TIME
        while True:
            [result] = self._order("spawn", for_long=True, before=before, meanwhile=meanwhile, more=more)["groups"]
            before = meanwhile = None
            # It waits as a request would, no longer than max_request_queue_time. The process goes on starting.
            waits_on = not more and result["pid"] is None and result["error"]["code"] == "queue_timeout"
            if not waits_on or time.monotonic() > deadline:
                break
        if result["pid"] is None:
            self._troubled = True
            raise AssertionError(self._explanation(result["error"]))
        return int(result["pid"])

    def settle(self, within: float) -> tuple[list[int], int]:
        """The application's processes, and the number of open connections of clients that are not known from an
        earlier call, when all that is on its way has come or gone.

        :param within: seconds to wait for that, at most.
        """
        deadline = time.monotonic() + within
        while True:
            status = self.status()
            group, connections = status["groups"][0], int(status["connections"]["open"])
            self._stale = min(self._stale, connections)
            moving = group["spawning"] or any(
                # The server may not know yet of an end that the client has seen: told to end it, it would not count it.
                process["state"] != "running" or is_ending(process["pid"])
                for process in group["processes"]
            )
            if not (moving or connections > self._stale) or time.monotonic() >= deadline:
                break
            time.sleep(0.005)
        self._troubled |= group["backing_off_for"] is not None or group["last_error"] is not None
        new, self._stale = connections - self._stale, connections
        return [process["pid"] for process in group["processes"]], new

    def end_processes(self, pids: Iterable[int]) -> None:
        """End processes of the application, and wait until they are gone."""
        for pid in pids:
            try:
                self._order("detach", for_long=True, pid=pid, wait=True)
            except AdminError:
                # It is ending already.
                eventually(lambda: all(one["pid"] != pid for one in self.group()["processes"]), what=f"{pid} is gone")  # noqa: B023  called at once

    def surplus_descriptors(self, within: float) -> list[str]:
        """The descriptors of the server that it had not after its first test."""
        deadline = time.monotonic() + within
        while True:
            now = look(self.pid).descriptors
            before = self._descriptors
            if before is None:
                before = self._descriptors = now
            surplus = sorted((now - before).elements())
            if not surplus or time.monotonic() >= deadline:
                return surplus
            time.sleep(0.005)

    def _order(
        self,
        what: str,
        *,
        for_long: bool = False,
        before: Callable[[Callable[[], None]], None] | None = None,
        meanwhile: Callable[[], None] | None = None,
        **members: Any,
    ) -> dict[str, Any]:
        socket = str(self.ready["admin_socket"])
        return order(socket, f"/v1/{what}", members, for_long=for_long, before=before, meanwhile=meanwhile)

    def _explanation(self, error: dict[str, Any]) -> str:
        cause = error["cause"]
        if cause is None:
            return f"no process can serve: {error['code']}\n{self.log_tail}"
        events = [json.loads(line)["event"] for line in self.log if line.startswith("{") and '"event"' in line]
        evidence = [event.split("] ", 1)[1] for event in events if event.startswith("[error ")]
        return "\n".join([cause["summary"], *evidence[-_EVIDENCE:]])

    def close(self) -> None:
        """End the server, and check that nothing is left.

        :raises LeftBehind: something is left.
        """
        try:
            if self.process.poll() is None:
                self.stop(signal.SIGTERM)
        finally:
            self.kill()
            self._end_rest()
            self.log  # noqa: B018  a report of the last test may ask for it later: the session ends before it is made
            self._source.close()
            if not self.keeps_home:
                shutil.rmtree(self.home, ignore_errors=True)


class Servers:
    """Starts servers at their first use, and ends them all at the end."""

    def __init__(self, config: Mapping[str, Any], make_directory: Callable[[], Path], keep: bool = False) -> None:
        """:param config: options of every server.
        :param make_directory: makes a new directory for a server.
        :param keep: let the directories stay: configuration and log.
        """
        self._config = {**DEFAULTS, **config}
        self._make_directory = make_directory
        self._keep = keep
        self._servers: dict[str, list[ServerUnderTest]] = {}
        """Of the same key: more than one, if a test asked for several applications of that key at the same time."""

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all servers.

        :raises AssertionError: something is left.
        """
        failures = []
        for server in self._all():
            try:
                server.close()
            except AssertionError as error:
                failures.append(str(error))
        self._servers.clear()
        if failures:
            raise AssertionError("\n".join(failures))

    @property
    def homes(self) -> list[Path]:
        """The directories of the servers that run."""
        return [server.home for server in self._all()]

    def _all(self) -> list[ServerUnderTest]:
        return [server for servers in self._servers.values() for server in servers]

    def get(self, app: Mapping[str, Any], options: Mapping[str, Any]) -> ServerUnderTest:
        """A running server of an application with these options, that no other application of the test uses.

        :param app: the options that name the application: ``root``, ``target``.
        :raises AssertionError: the server does not start.
        """
        wanted, environment = _split(options)
        text = write_config({**self._config, **wanted, **app})
        key = f"{text}{sorted(environment.items())}"
        return self._living(key) or self._start(key, text, self.directory(), environment)

    def get_for_object(self, options: Callable[[Path], Mapping[str, Any]], key: tuple[str, ...]) -> ServerUnderTest:
        """As ``get``, for application objects that are served in the same way.

        :param options: makes the server's options from the path where copies of the test's process wait.
        :param key: what distinguishes the server.
        """
        name = repr(key)
        server = self._living(name)
        if server is None:
            home = self.directory()
            wanted, environment = _split(options(home / "p"))
            server = self._start(name, write_config({**self._config, **wanted}), home, environment)
        return server

    def _living(self, key: str) -> ServerUnderTest | None:
        servers = self._servers.setdefault(key, [])
        return next((one for one in servers if not one.in_use and one.process.poll() is None), None)

    def _start(self, key: str, text: str, home: Path, environment: Mapping[str, str]) -> ServerUnderTest:
        config = home / "passenger-trio.toml"
        config.write_text(text)
        server = ServerUnderTest.launch(config, home, environment)
        self._servers.setdefault(key, []).append(server)
        server.keeps_home = self._keep
        server.wait_ready()
        return server

    def directory(self) -> Path:
        """A new directory in which every Unix socket of a server has room."""
        home = self._make_directory()
        if len(os.fsencode(home)) > _LONGEST_HOME:
            shutil.rmtree(home)
            home = temporary_directory(HOME)
        return home


def _split(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The options for the configuration, and ``server_environment``: variables of the server itself."""
    rest = dict(options)
    return rest, dict(rest.pop("server_environment", {}))


def write_config(options: Mapping[str, Any]) -> str:
    """The text of ``passenger-trio.toml`` with these options, each in its table.

    :raises ValueError: there is no such option.
    """
    tables: dict[str, dict[str, Any]] = {"[server]": {}, "[pool]": {}, "[[app]]": {}}
    owners = (("[server]", ServerOptions), ("[pool]", PoolOptions), ("[[app]]", AppOptions))
    for name, value in options.items():
        known, field = name, name
        if name == "process_shutdown_timeout":
            tables["[[app]]"]["shutdown_timeout"] = value
            continue
        table = next((table for table, owner in owners if field in attrs.fields_dict(owner)), None)
        if table is None:
            raise ValueError(f"passenger(): there is no option {known!r}; docs/options.md lists them")
        tables[table][field] = value
    lines = []
    for table, values in tables.items():
        lines.append(table)
        lines += [f"{name} = {_toml(value)}" for name, value in sorted(values.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """Strings, numbers, booleans and lists are written as in JSON."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(name)} = {json.dumps(str(inner))}" for name, inner in value.items()) + "}"
    if isinstance(value, (tuple, set, frozenset)):
        value = list(value)
    return json.dumps(str(value) if isinstance(value, os.PathLike) else value)
