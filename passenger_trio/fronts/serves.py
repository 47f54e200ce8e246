"""What a front serves, and how that changes while it runs (FR4: a reload means the same, however many fronts there are).

The owner decides what changes, and has already tried each step that can fail. It sends each front the whole configuration. So a front that starts
later, or that gets the same order twice, serves the same.

Laws: connections stay open. When the front has answered the owner, no request is routed by the old configuration any more, and a removed
application gets no request. If the access log cannot be opened here, the front keeps the previous one.
"""

from __future__ import annotations

import resource

import trio

from passenger_trio.codecs.front_reports import Served
from passenger_trio.core.descriptors import Descriptors
from passenger_trio.errors import OptionError
from passenger_trio.fronts.leased_pool import LeasedPool
from passenger_trio.fronts.reports import set_log_level
from passenger_trio.log_lines import server as lines
from passenger_trio.server.front import Front
from passenger_trio.server.logs.access_log import AccessLog
from passenger_trio.server.mounts import Route

__all__ = ["ServedHere", "descriptors_of", "routes_of"]


def routes_of(served: Served) -> list[Route]:
    """The routes of all applications."""
    return [Route(key, app) for key, app in served.routes]


def descriptors_of(served: Served) -> Descriptors:
    """How many descriptors of this process clients may use."""
    return Descriptors.measured(
        resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        served.config.server.max_connections,
        served.sessions,
        served.max_pool_size,
    )


class ServedHere:
    """What this process's front serves now."""

    def __init__(
        self,
        served: Served,
        front: Front,
        pool: LeasedPool,
        access_log: AccessLog | None,
        page: int,
        tree: trio.Nursery,
    ) -> None:
        """:param page: locked while a batch of the access log is written. :param tree: for the writer of the log."""
        self.now = served
        self._front = front
        self._pool = pool
        self._access_log = access_log
        self._page = page
        self._tree = tree
        self._writer: trio.CancelScope | None = None
        self._write()

    def change(self, served: Served) -> None:
        """Serve this from now on."""
        before, self.now = self.now, served
        for key, app in served.routes:
            self._pool.add_group(key, app.max_request_queue_size)
        if _log_of(before) != _log_of(served):
            self._change_log(served)
        set_log_level(served.log_level)
        self._front.reconfigure(served.config.server, routes_of(served), descriptors_of(served))

    def _change_log(self, served: Served) -> None:
        try:
            self._access_log = AccessLog.open(served.config, self._front.kernel, lock=self._page)
        except OptionError as error:
            lines.front_keeps_access_log(reason=str(error))
            return
        self._front.access_log = self._access_log
        self._write()

    def _write(self) -> None:
        """Run the writer of the current log. The previous writer writes what it has, and ends."""
        if self._writer is not None:
            self._writer.cancel()
            self._writer = None
        if self._access_log is not None:
            self._writer = trio.CancelScope()
            self._tree.start_soon(_run_in, self._writer, self._access_log)


async def _run_in(scope: trio.CancelScope, access_log: AccessLog) -> None:
    with scope:
        await access_log.run()


def _log_of(served: Served) -> tuple[str, str]:
    return AccessLog.destination_of(served.config), served.config.server.access_log_format
