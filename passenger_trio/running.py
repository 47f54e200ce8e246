"""A server that accepts connections, for its controllers: a program, the admin API, the signals.

This module uses the pool and the front. It does not depend on their composition (``tree``), nor on
the controllers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import attrs
import trio

from passenger_trio.app_handle import AppHandle, find_key
from passenger_trio.core.fronts.front_metrics import FrontMetrics
from passenger_trio.core.model import GroupKey
from passenger_trio.core.reload_plan import Plan
from passenger_trio.errors import NotFound, NotPossible
from passenger_trio.late_classes import define, frozen
from passenger_trio.options import AppOptions, Config
from passenger_trio.pool.events import Listener as EventListener
from passenger_trio.pool.pool import Pool
from passenger_trio.reload.reloading import Reloading
from passenger_trio.served_app import ServedApp
from passenger_trio.server.front import Front
from passenger_trio.server.front_statistics import front_counts, front_facts, requests_in_flight
from passenger_trio.spawning.detect import DetectedApp

if TYPE_CHECKING:
    from passenger_trio.codecs.openmetrics import Family
    from passenger_trio.fronts.fronts import Fronts
    from passenger_trio.status_types import ServerStatus

__all__ = ["Reports", "RunningServer"]


@frozen(eq=False)
class Reports:
    """The admin API's reports, for programs."""

    status: Callable[[], Awaitable[ServerStatus]]
    metrics: Callable[[], Awaitable[list[Family]]]


@define(eq=False)
class RunningServer:
    """A server that accepts connections."""

    admin_socket: str
    apps: list[DetectedApp]
    """In the order of ``config.apps``."""
    pool: Pool
    front: Front
    reloading: Reloading
    """The applications and options, and how they change."""
    started: bool = False
    """Whether the applications have been ready once."""
    clients: trio.Nursery | None = None
    """The nursery of the clients' connections, while they are accepted."""
    fronts: Fronts | None = None
    """The front processes, if there are several. ``front`` then serves the program's own requests only."""
    reports: Reports | None = None
    """What the admin API tells; set once it can."""
    _stop: trio.Event = attrs.field(factory=trio.Event)

    @property
    def config(self) -> Config:
        """What is served now."""
        return self.reloading.config

    @property
    def addresses(self) -> list[str]:
        """URLs, with the real port if the configured port was 0."""
        return self.reloading.addresses

    def stop(self) -> None:
        """Drain: accept no new connection, finish the requests in flight, then end. Returns at
        once; ``serve`` or the context manager ends when all is done.
        """
        self._stop.set()
        self.pool.notify_changed()  # wakes the tasks that wait for the start

    def restart(self, *apps: AppHandle, hard: bool = False) -> dict[AppHandle, int]:
        """Restart applications (default: every one), rolling, by one plan for all of them. Returns at once.

        :param hard: see ``AppHandle.restart``.
        :returns: the generation that each restart leads to, for ``AppHandle.wait_restarted``.
        :raises NotFound: one of them was removed.
        """
        every = [app for app in self.every_app() if app.key in self.pool.group_tasks]
        handles: dict[GroupKey, AppHandle] = {app.key: app for app in apps or every}
        try:
            targets = self.pool.restart_all(tuple(handles), hard=hard)
        except KeyError as error:
            raise NotFound(f"there is no application {str(error.args[0])!r}") from None
        return {handles[key]: generation for key, generation in targets.items()}

    async def reload(self, config: Config) -> Plan:
        """Serve what ``config`` says (LI2): applications are added, removed after their requests, changed while
        they run, or restarted, rolling; the others keep their processes. On an error nothing is changed. It is
        done to its end, also if the caller is cancelled.

        :returns: what was changed.
        :raises ReloadRefused: a change needs a new start of the server, or the server is starting or stopping.
        :raises OptionError: an option has an invalid value.
        :raises NothingToServe: a directory has no application.
        :raises BindError: cannot listen on a new address.
        """
        return await self.reloading.reload(config)

    async def add_app(self, app: AppOptions) -> ServedApp:
        """Serve one more application (LI2). Requests for it wait until it has started. Raises as ``reload``."""
        return self.app(str(await self.reloading.add_app(app)))

    async def remove_app(self, name: str) -> None:
        """Serve an application no more (LI2). Its requests in flight are finished.

        :param name: as for ``app``. :raises NotFound: there is no such application. Else raises as ``reload``.
        """
        await self.reloading.remove_app(find_key(self.reloading.served.specs, name))

    def app(self, name: str = "") -> ServedApp:
        """The handle of an application.

        :param name: its name, or ``name (environment)`` where several have the name; may be left out
            if there is only one.
        :raises NotFound: there is no such application, or the name means several.
        """
        handles = {app.key: app for app in self.every_app()}
        return handles[find_key(handles, name)]

    def every_app(self) -> list[ServedApp]:
        """The handles of all applications."""
        return [
            ServedApp(route.key, route.app, self.pool, self.front, lambda: self.clients)
            for route in self.front.mounts.routes
        ]

    def app_of(self, pid: int) -> ServedApp:
        """The application that a process belongs to.

        :raises NotFound: no process of the server that serves has that pid.
        """
        for process in self.pool.processes.values():
            if process.live.pid == pid and not process.detach_announced:
                return self.app(str(process.group))
        raise NotFound(f"no process {pid} serves")

    def drain(self) -> int:
        """Close idle connections, and the others after their response, until ``resume``: so clients connect to another
        server. New clients are still served. Returns the number of requests under way, at once.
        """
        self.front.drain()
        if self.fronts is not None:
            self.fronts.drain()
        return self.active

    def resume(self) -> None:
        """Keep connections alive again.

        :raises NotPossible: the server is stopping.
        """
        if self.stopping:
            raise NotPossible("the instance is stopping")
        self.front.draining = False
        if self.fronts is not None:
            self.fronts.resume()

    def reopen_logs(self) -> None:
        """As ``Front.reopen_logs``, of each front."""
        self.front.reopen_logs()
        if self.fronts is not None:
            self.fronts.reopen_logs()

    @property
    def active(self) -> int:
        """Requests in progress."""
        return self.front.active + (self.fronts.busy if self.fronts is not None else 0)

    async def status(self) -> ServerStatus:
        """What ``passenger-trio status --json`` prints, as values (``passenger_trio.status_types``). Measures memory in a thread."""
        assert self.reports is not None
        return await self.reports.status()

    async def metrics(self) -> list[Family]:
        """What ``GET /metrics`` of the admin API tells, as values: each ``Family`` has name, kind and samples."""
        assert self.reports is not None
        return await self.reports.metrics()

    async def front_facts(self) -> dict[str, Any]:
        """The counters of all fronts together, and a line for each front process."""
        own = front_facts(self.front)
        if self.fronts is None:
            return {**own, "fronts": []}
        return await self.fronts.facts(own)

    async def front_counts(self) -> FrontMetrics:
        """What the metrics tell of all fronts together."""
        own = await front_counts(self.front)
        if self.fronts is None:
            return own
        total = FrontMetrics()
        for counts in (own, *await self.fronts.counts()):
            for _ in total.add_in_parts(counts):
                await trio.lowlevel.checkpoint()
        return total

    async def requests_in_flight(self) -> list[dict[str, Any]]:
        """The requests in flight at all fronts."""
        own = requests_in_flight(self.front, trio.current_time())
        return own if self.fronts is None else own + await self.fronts.requests()

    def events(self) -> EventListener:
        """Listen to the pool: ``async for event in server.events()`` yields the events from now on,
        in order, until the server has ended. They are values of ``passenger_trio.events``.

        At most 1000 events wait. A slow reader loses the oldest ones, and ``lost_before`` has the
        number of missing events. For one task only. ``close`` the listener, use it in a ``with``
        block, or drop the reference.
        """
        return self.pool.events.listen()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    async def wait_stopping(self) -> None:
        """Return when ``stop`` was called."""
        await self._stop.wait()
