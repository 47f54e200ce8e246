"""The applications of this process that no fixture opens: those of drop-in clients and of unittest.

A client may be made anywhere, also when a module is imported. Its application is served from its first request on, and
ends when ``end_all`` is called: the plugin does that after each test. The next request finds a fresh process.

Servers are shared by all of them, and end with this process.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from passenger_trio.testing.forked_processes import ForkedProcesses, interface_of
from passenger_trio.testing.live_app import THRESHOLD, LiveApp, options_for_object, options_of
from passenger_trio.testing.run_directory import HOME, run_directory, temporary_directory
from passenger_trio.testing.servers import Servers

__all__ = ["DropIn", "end_all", "serve"]

_servers: dict[int, Servers] = {}
_open: list[DropIn] = []


def serve(app: object, options: Mapping[str, Any]) -> LiveApp:
    """A live application; the caller calls its ``end``.

    :param app: a directory, ``"module:object"``, or an object.
    """
    base, servers = Path.cwd(), _shared()
    named = options_of(app, base)
    if named is not None:
        live_app = LiveApp.of(servers.get(named, options))
        live_app.begin()
        return live_app
    interface = interface_of(app)
    server = servers.get_for_object(
        lambda socket: options_for_object(app, base, socket, options), (interface, repr(sorted(options.items())))
    )
    live_app = LiveApp.of(server)
    environment = {name: str(value) for name, value in dict(options.get("env", {})).items()}
    live_app.begin(partial(ForkedProcesses, app, interface, server.home / "p", environment))
    return live_app


def _shared() -> Servers:
    """The servers of this process; not those of a process from which it was forked."""
    if os.getpid() not in _servers:
        run_directory()  # its removal is registered first, and so comes last
        servers = _servers[os.getpid()] = Servers({}, lambda: temporary_directory(HOME))
        atexit.register(servers.close)
    return _servers[os.getpid()]


class DropIn:
    """The application of one client, which is served when it is first needed."""

    def __init__(self, app: object, options: Mapping[str, Any], close: Callable[[], None] = lambda: None) -> None:
        """:param close: called before the application ends: closes the client's connections."""
        self._app = app
        self._options = options
        self._close = close
        self._live_app: LiveApp | None = None

    @property
    def live_app(self) -> LiveApp:
        """The running application; starts it."""
        if self._live_app is None:
            self._live_app = serve(self._app, self._options)
            _open.append(self)
        return self._live_app

    @property
    def is_served(self) -> bool:
        return self._live_app is not None

    def end(
        self, allow_log: Iterable[str] = (), allow_leak: Iterable[str] = (), threshold: int = THRESHOLD
    ) -> list[str]:
        """End the application. Returns what it left behind, as ``LiveApp.end``."""
        live_app, self._live_app = self._live_app, None
        if live_app is None:
            return []
        _open.remove(self)
        self._close()
        return live_app.end(allow_log, allow_leak, threshold)


def end_all(allow_log: Iterable[str], allow_leak: Iterable[str], threshold: int) -> list[str]:
    """End the applications of all drop-in clients. Returns what they left behind."""
    return [finding for one in list(_open) for finding in one.end(allow_log, allow_leak, threshold)]
