"""Which servers ran during a test, of those that tests start themselves (``Supervisor.start``): the pytest plugin watches, and shows each in a failing test.

It knows the servers, and how much of its log and its requests each had when the test began. Nothing is kept where nobody watches.

This module is imported in every run of pytest, so it imports nothing (TH1).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections import deque
    from subprocess import Popen

    from passenger_trio.testing.exchange import Exchange

__all__ = ["Server", "Watch", "Watched", "begin", "somebody_watches", "started"]


class Server(Protocol):
    """What is watched of a ``Supervisor``."""

    pid: int
    process: Popen[bytes]
    exchanges: deque[Exchange]

    @property
    def log(self) -> list[str]: ...

    def access_log(self) -> list[str]: ...

    def exchanges_since(self, last: Exchange | None) -> list[Exchange]: ...

    def take_trace(self) -> dict[str, Any] | None: ...

    def abandon(self) -> None: ...


_servers: list[Server] | None = None
"""Those that were started and have not ended, or did so in the running test; None: nobody watches."""


class Watched(NamedTuple):
    """A server, and what it had when the test began: lines of its log, of its access log, its last request."""

    server: Server
    log: int = 0
    access: int = 0
    last: Exchange | None = None


class Watch:
    """What runs during one test."""

    def __init__(self, running: list[Server]) -> None:
        self.begun = time.time()
        self._before = [_as_it_is(server) for server in running]
        self._all = running
        self._own_from = len(running)

    @property
    def servers(self) -> list[Watched]:
        """Those that have run since the test began."""
        return self._before + [Watched(server) for server in self._all[len(self._before) :]]

    def end_fixture(self) -> None:
        """A fixture has started its servers, and will end them: what starts now is the test's own, as far as is known."""
        self._own_from = len(self._all)

    def left(self) -> list[Server]:
        """Those that the test itself has started and that still run."""
        return [server for server in self._all[self._own_from :] if server.process.poll() is None]


def begin() -> Watch:
    """A test begins, and the one before has ended."""
    global _servers
    _servers = [server for server in _servers or () if server.process.returncode is None]
    return Watch(_servers)


def started(server: Server) -> None:
    """A test, or a fixture, has started a server."""
    if _servers is not None:
        _servers.append(server)


def somebody_watches() -> bool:
    return _servers is not None


def _as_it_is(server: Server) -> Watched:
    return Watched(
        server, len(server.log), len(server.access_log()), server.exchanges[-1] if server.exchanges else None
    )
