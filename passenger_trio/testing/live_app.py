"""The application of one test, in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from passenger_trio.admin.client import order
from passenger_trio.testing.harness import eventually
from passenger_trio.testing.raw_client import RawClient, Response
from passenger_trio.testing.servers import Servers, ServerUnderTest

__all__ = ["LiveApp", "open_live_app"]


class LiveApp:
    """What a test knows of its application."""

    def __init__(self, server: ServerUnderTest) -> None:
        self.server = server
        self.socket = str(server.address)
        """The Unix socket that the clients of the test connect to."""
        self._log_from = len(server.log)

    @property
    def pids(self) -> list[int]:
        """The application's processes that serve."""
        return self.server.pids

    @property
    def log(self) -> list[dict[str, Any]]:
        """The server's log since the test began, each line as its JSON object: ``level``, ``logger``, ``event`` ..."""
        found = []
        for line in self.server.log[self._log_from :]:
            try:
                found.append(json.loads(line))
            except ValueError:
                found.append({"level": "info", "logger": "", "event": line})
        return found

    def connect(self, timeout: float = 30.0) -> RawClient:
        """A new connection for bytes."""
        return RawClient(self.socket, timeout)

    def get(self, path: str = "/", **headers: str) -> Response:
        """GET on a new connection. Fields as in ``Accept="..."``; an underscore in a name becomes a dash."""
        with self.connect() as client:
            return client.get(path, [(name.replace("_", "-"), value) for name, value in headers.items()])

    def post(self, path: str, body: bytes) -> Response:
        with self.connect() as client:
            return client.request("POST", path, body=body)

    def end(self) -> None:
        """End the application's processes."""
        for pid in self.pids:
            order(str(self.server.ready["admin_socket"]), "/v1/detach", {"pid": pid})
        eventually(lambda: not self.server.group()["processes"], what="the processes of the test are gone")


def _named(request: pytest.FixtureRequest) -> tuple[Any, dict[str, Any]]:
    """The application of a test, and the options of its marks, the nearest mark last."""
    app: Any = request.config.getoption("--passenger-app") or request.config.getini("passenger_app")
    options: dict[str, Any] = {}
    for mark in reversed(list(request.node.iter_markers("passenger"))):
        app = mark.args[0] if mark.args else app
        options.update(mark.kwargs)
    return app, options


def _app_options(app: Any, base: Path) -> dict[str, Any]:
    if isinstance(app, (str, Path)) and str(app):
        if (base / app).is_dir():
            return {"root": str((base / app).resolve())}
        if ":" in str(app):
            return {"root": str(base), "target": str(app)}
    raise pytest.UsageError(
        f"{app!r} is no application: give a directory or 'module:object', as in @pytest.mark.passenger('shop:app'), "
        "--passenger-app, or passenger_app in the ini file"
    )


@contextmanager
def open_live_app(request: pytest.FixtureRequest, servers: Servers) -> Iterator[LiveApp]:
    """The application that the marks of a test name, while the test runs.

    :raises AssertionError: a part of the plugin has a finding.
    """
    app, options = _named(request)
    request.config.hook.pytest_passenger_options(request=request, options=options)
    live_app = LiveApp(servers.get(_app_options(app, request.config.rootpath), options))
    request.config.hook.pytest_passenger_start(live_app=live_app, request=request)
    try:
        yield live_app
    finally:
        found = request.config.hook.pytest_passenger_end(live_app=live_app, request=request)
        live_app.end()
    findings = [text for texts in found for text in texts or ()]
    if findings:
        pytest.fail("\n".join(findings), pytrace=False)
