"""The harness for unittest, without pytest: ``PassengerTestCase``, a counterpart of Django's LiveServerTestCase (TH9).

Servers are shared by all test cases of the process, and end with it.
"""

from __future__ import annotations

import atexit
import os
import tempfile
import unittest
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from passenger_trio.testing.forked_preloader import ForkedPreloader, interface_of
from passenger_trio.testing.leaks import KINDS
from passenger_trio.testing.live_app import THRESHOLD, LiveApp, options_for_object, options_of
from passenger_trio.testing.servers import Servers

__all__ = ["PassengerTestCase"]

_servers: dict[int, Servers] = {}


def _shared() -> Servers:
    """The servers of this process; of no process that was forked from it."""
    if os.getpid() not in _servers:
        servers = _servers[os.getpid()] = Servers({}, lambda: Path(tempfile.mkdtemp(prefix="pt-")))
        atexit.register(servers.close)
    return _servers[os.getpid()]


class PassengerTestCase(unittest.TestCase):
    """Serves an application to each test, from a process that is forked for it."""

    app: Any = None
    """A directory, ``"module:object"``, or an object (set it on the instance before ``super().setUp()``)."""
    options: ClassVar[Mapping[str, Any]] = {}
    """Options of the server; names as in passenger-trio.toml."""
    allow_log: ClassVar[tuple[str, ...]] = ()
    """Patterns of lines of level error that do not fail a test."""
    allow_leak: ClassVar[tuple[str, ...]] = ()
    """Kinds of leaks that do not fail a test: descriptors, threads, processes, sockets."""
    live_app: LiveApp
    client: Any
    """An ``httpx2.Client``."""

    def setUp(self) -> None:
        super().setUp()
        unknown = set(self.allow_leak) - set(KINDS)
        assert not unknown, f"allow_leak: {sorted(unknown)}; kinds are {', '.join(KINDS)}"
        base, app = Path.cwd(), vars(self).get("app", type(self).__dict__.get("app", type(self).app))
        app = getattr(app, "__func__", app) if isinstance(app, staticmethod) else app
        named = options_of(app, base)
        if named is not None:
            self.live_app = LiveApp.of(_shared().get(named, self.options))
            self.live_app.begin()
        else:
            interface = interface_of(app)
            server = _shared().get_for_object(
                lambda socket: options_for_object(app, base, socket, self.options), (interface, repr(self.options))
            )
            self.live_app = LiveApp.of(server)
            environment = {name: str(value) for name, value in dict(self.options.get("env", {})).items()}
            self.live_app.begin(partial(ForkedPreloader, app, interface, server.home / "p", environment))
        self.addCleanup(self._end)
        self.client = self.live_app.client()
        self.addCleanup(self.client.close)

    def _end(self) -> None:
        findings = self.live_app.end(self.allow_log, self.allow_leak, THRESHOLD)
        if findings:
            self.fail("\n".join(findings))
