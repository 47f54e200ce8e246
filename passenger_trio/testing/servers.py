"""The servers of one pytest session: one for each application and set of options, started at its
first use, shared by all tests that ask for the same.

A server listens on a Unix socket in a directory of this session, so workers of pytest-xdist do not
meet. It keeps one preloader and no process between tests: a test orders a fresh one
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
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from passenger_trio.options import AppOptions, PoolOptions, ServerOptions
from passenger_trio.testing.harness import MARK, Supervisor

__all__ = ["ServerUnderTest", "Servers", "write_config"]

_LONGEST_HOME = 72
"""Bytes of a directory in which every socket of a server has room (``sun_path`` has 107)."""

DEFAULTS: dict[str, Any] = {
    "environment": "test",
    "min_instances": 0,
    "max_pool_size": 1,
    "max_preloader_idle_time": 0,
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
    def launch(cls, config: Path, home: Path) -> ServerUnderTest:
        """Start the server that a configuration file describes, with its sockets in ``home``. The caller waits until it is ready."""
        mark = secrets.token_hex(8)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PASSENGER_TRIO_")}
        environment |= {
            MARK: mark,
            "PASSENGER_TRIO_LOG_FORMAT": "json",
            "PASSENGER_TRIO_INSTANCE_DIR": str(home / "i"),
            "PASSENGER_TRIO_SOCKET": str(home / "s"),
        }
        with open(home / "log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "passenger_trio", "start", "--config", str(config)],
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

    @property
    def log(self) -> list[str]:
        """The lines of the log so far."""
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

    def close(self) -> None:
        """End the server, and check that nothing is left.

        :raises LeftBehind: something is left.
        """
        try:
            if self.process.poll() is None:
                self.stop(signal.SIGTERM)
        finally:
            self.kill()
            self._clean()
            self._source.close()


class Servers:
    """Starts servers at their first use, and ends them all at the end."""

    def __init__(self, config: Mapping[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
        """:param config: options of every server."""
        self._config = {**DEFAULTS, **config}
        self._factory = tmp_path_factory
        self._servers: dict[str, ServerUnderTest] = {}

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: object) -> None:
        failures = []
        for server in self._servers.values():
            try:
                server.close()
            except AssertionError as error:
                failures.append(str(error))
        self._servers.clear()
        if failures:
            raise AssertionError("\n".join(failures))

    def get(self, app: Mapping[str, Any], options: Mapping[str, Any]) -> ServerUnderTest:
        """The running server of an application with these options.

        :param app: the options that name the application: ``root``, ``target``.
        :raises AssertionError: the server does not start.
        """
        text = write_config({**self._config, **options, **app})
        server = self._servers.get(text)
        if server is None or server.process.poll() is not None:
            home = self._home()
            config = home / "passenger-trio.toml"
            config.write_text(text)
            server = self._servers[text] = ServerUnderTest.launch(config, home)
            server.wait_ready()
        return server

    def _home(self) -> Path:
        home = self._factory.mktemp("pt")
        if len(os.fsencode(home)) > _LONGEST_HOME:
            shutil.rmtree(home)
            home = Path(tempfile.mkdtemp(prefix="pt-"))
        return home


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
