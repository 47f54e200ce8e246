"""The harness for unittest, without pytest: ``PassengerTestCase``, a counterpart of Django's LiveServerTestCase (TH9).

Servers are shared by all test cases of the process, and end with it.
"""

from __future__ import annotations

import unittest
from collections.abc import Mapping
from typing import Any, ClassVar

from passenger_trio.testing.leaks import KINDS
from passenger_trio.testing.live_app import THRESHOLD, LiveApp
from passenger_trio.testing.process_wide import serve

__all__ = ["PassengerTestCase"]


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
        app = vars(self).get("app", type(self).__dict__.get("app", type(self).app))
        self.live_app = serve(app.__func__ if isinstance(app, staticmethod) else app, self.options)
        self.addCleanup(self._end)
        self.client = self.live_app.client()
        self.addCleanup(self.client.close)

    def _end(self) -> None:
        findings = self.live_app.end(self.allow_log, self.allow_leak, THRESHOLD)
        if findings:
            self.fail("\n".join(findings))
