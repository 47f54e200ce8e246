"""The Front: the state that all connections of one server share. Options, counters, the table of open connections.

The Front is plain state, and each number in it has one owner. It starts no task. It must be made within a Trio run, because it reads the run's clock (R50).
Its parts that connections use have modules of their own: ``date_and_ids``, ``log_limits``, ``mounts``, ``trusted_proxies``, ``spill``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from passenger_trio.codecs.head import HttpLimits
from passenger_trio.codecs.websocket_frames import FrameLimits
from passenger_trio.core.accept_gate import Turn
from passenger_trio.core.buffer_sizes import RECEIVE_SIZE
from passenger_trio.core.descriptors import Descriptors
from passenger_trio.core.fronts.share import ALONE, Share
from passenger_trio.core.metric_counts import RequestTally
from passenger_trio.core.model import GroupKey
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.options import MAX_WEBSOCKET_MESSAGE, ServerOptions
from passenger_trio.pool.interface import PoolInterface
from passenger_trio.server.answers.custom_page import ErrorPage
from passenger_trio.server.date_and_ids import DateAndIds
from passenger_trio.server.flood_turns import FloodTurns
from passenger_trio.server.health_paths import HealthPaths
from passenger_trio.server.http.deadline_scanner import DeadlineScanner, HasDeadline
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.http.peer import Peer
from passenger_trio.server.http.stage import Stage
from passenger_trio.server.log_limits import LogLimits
from passenger_trio.server.logs.access_record import AccessRecord
from passenger_trio.server.logs.tee import Records
from passenger_trio.server.mounts import Mounts, Route
from passenger_trio.server.spill.spill_storage import SpillStorage
from passenger_trio.server.tracing.tracing import TraceMaker, Tracing
from passenger_trio.server.trusted_proxies import TrustedProxies
from passenger_trio.system.poller import Poller
from passenger_trio.system.raw_stream import RawStream

__all__ = ["AcceptGate", "Front", "OpenConnection"]

_JUST_COME = 1.0
"""Seconds that a new client has to send its first request before it counts as idle."""
_SHORT = 10.0
"""Seconds for which a front counts as full when it had no descriptor."""


class OpenConnection(HasDeadline, Protocol):
    """A connection, as the front and the admin API see it."""

    peer: Peer
    exchange: Exchange | None
    """The current request."""
    stage: Stage
    since: float
    """When the stage began, in monotonic seconds."""
    served: int
    """How many requests of the connection have begun."""

    @property
    def is_idle(self) -> bool:
        """Whether the connection is between two requests and was not told to end."""

    def close_idle(self) -> None:
        """End the connection, which must be idle."""

    @property
    def opened(self) -> float:
        """When the connection was accepted, in monotonic seconds."""

    @property
    def is_movable(self) -> bool:
        """Whether another process could serve the connection instead."""

    @property
    def stream(self) -> RawStream:
        """The connection itself."""

    def hand_over(self) -> None:
        """Another process has the connection: end our part of it."""


class AcceptGate(Protocol):
    """Says whether this front takes the next connection."""

    def turn(self) -> Turn: ...

    def connection_ended(self) -> None:
        """A connection of this front has ended."""

    async def wait_open(self) -> None:
        """Return when the front takes connections at all."""


class Front:
    """The state that all connections of one server share."""

    def __init__(
        self,
        options: ServerOptions,
        pool: PoolInterface,
        routes: Sequence[Route],
        access_log: Records | None,
        descriptors: Descriptors | None = None,
        kernel: ErrorKernel | None = None,
        share: Share = ALONE,
    ) -> None:
        """:param descriptors: limits the descriptors that clients may hold; None: no limit.
        :param share: this front's share of limits that all fronts have together. (The limits in ``options`` are this front's own.)
        """
        self.kernel: ErrorKernel = kernel or ErrorKernel()
        self.pool = pool
        self._descriptors = descriptors or Descriptors.measured(-1, options.max_connections, 0, 0)
        self._configure(options, routes)
        self.access_log = access_log
        self.tracing: Tracing | None = TraceMaker() if options.tracing == "make" else None
        """Finds each request's position in its trace. The composing code replaces it if spans are made."""
        self.health: HealthPaths | None = None
        """The paths at which public listeners answer the server's health. Set by the composing code."""
        self.error_page: ErrorPage | None = None
        """Makes the pages of failed requests, if the embedding program has its own."""
        self.connections: set[OpenConnection] = set()
        self.give_away: Callable[[object], None] | None = None
        """Called with each connection that has become idle, while those are to be served by other fronts; None: they stay."""
        self.move_elsewhere: Callable[[object], bool] | None = None
        """Called with a connection that is idle, and would be closed to make room. Returns whether another front has it now."""
        self.deadline_scanner: DeadlineScanner = DeadlineScanner(self.connections)
        self.current_time: Callable[[], float] = trio.lowlevel.current_clock().current_time
        """Monotonic seconds, as ``trio.current_time`` with fewer calls."""
        self.poller: Poller = Poller(self.current_time, self.kernel)
        self.spill: SpillStorage = SpillStorage(
            options.data_buffer_dir,
            options.data_buffer_max,
            self.current_time,
            takes_file=self._takes_file,
            make_room=self.make_room,
        )
        self.receive_buffer: memoryview = memoryview(bytearray(RECEIVE_SIZE))
        """Shared by all connections, for bytes that are consumed before the next checkpoint."""
        self.flood_turns: FloodTurns = FloodTurns(self.current_time, lambda: self.poller.time)
        """Streams of many small pieces take turns (KE7). Each request begins in the poller, so the poller's
        time tells whether other clients are served beside floods.
        """
        self.accepted = 0
        self.requests = 0
        self.rejected: Counter[str] = Counter()
        """Refused requests, by the code of the refusal."""
        self.draining: bool = False
        self._short_until = 0.0
        self.gate: AcceptGate | None = None
        """Set if other fronts accept from the same sockets."""
        prepared = DateAndIds()
        self.date: Callable[[], bytes] = prepared.date
        self.new_id_pairs: Callable[..., bytes] = prepared.new_id_pairs
        self._log_limits = LogLimits(self.current_time, share)
        self.warn_rarely: Callable[[str], None] = self._log_limits.warn_rarely
        self.refused: RequestTally = RequestTally()
        """Requests that were refused before they had an application."""

    def _configure(self, options: ServerOptions, routes: Sequence[Route]) -> None:
        self.options = options
        self.limits: HttpLimits = HttpLimits.from_options(options)
        self.frame_limits: FrameLimits = FrameLimits(min(options.websocket_max_message_size, MAX_WEBSOCKET_MESSAGE))
        self.mounts: Mounts = Mounts(routes)
        self.trusted: TrustedProxies = TrustedProxies(options)

    def reconfigure(self, options: ServerOptions, routes: Sequence[Route], descriptors: Descriptors) -> None:
        """Use other options from now on. Open connections keep the limits on heads and frames that
        they began with; requests in flight keep their routes.
        """
        if options.data_buffer_max:
            self.spill.quota.limit = options.data_buffer_max
        self._descriptors = descriptors
        before = {route.key: route for route in self.mounts.routes}
        for route in routes:
            if route.key in before:
                route.go_on(before[route.key])
        self._configure(options, routes)

    def is_asked_for(self, key: GroupKey) -> bool:
        """Whether a request for an application is on its way to a process."""
        return any(
            exchange.route.key == key and not exchange.pid
            for connection in self.connections
            if (exchange := connection.exchange) is not None
        )

    @property
    def most_connections(self) -> int:
        """The most connections at a time."""
        return self._descriptors.connections

    @property
    def active(self) -> int:
        """Requests in progress."""
        return sum(1 for connection in self.connections if connection.exchange is not None)

    @property
    def upgraded(self) -> int:
        """Connections that are being relayed."""
        return sum(1 for c in self.connections if c.exchange is not None and c.exchange.relay is not None)

    def log_refusal(self, record: AccessRecord) -> None:
        """Count a request that was refused before it had a route, and log it, within a limit (ED14)."""
        self.refused.finished((record.method, record.status, record.duration, 0.0, 0.0))
        if self.access_log is not None and self._log_limits.takes_refusal():
            self.access_log.record(record)

    @property
    def takes_connection(self) -> bool:
        """Whether one more connection may be accepted (R36)."""
        return self._descriptors.takes_connection(len(self.connections), self.spill.open_files)

    @property
    def fullness(self) -> float:
        """How full the fullest of its limits is, from 0 to 1: connections, and bytes of the buffers on disk. 1: it takes no more connections."""
        if not self.takes_connection or self.current_time() < self._short_until:
            return 1.0
        quota = self.spill.quota
        disk = quota.used / quota.limit if quota.limit else 0.0
        return min(1.0, max(disk, len(self.connections) / max(1, self.most_connections)))

    def _takes_file(self) -> bool:
        return self._descriptors.takes_file(len(self.connections), self.spill.open_files)

    def make_room(self, wanted: int = 1) -> int:
        """Close the connections that have been idle longest (R36), or give them to fronts that have room. Returns
        their number. A client that has just connected is about to send a request, so its connection is spared.
        """
        newest = self.current_time() - _JUST_COME
        idle = sorted(
            (c for c in self.connections if c.is_idle and (c.served or c.since < newest)), key=lambda c: c.since
        )[: max(wanted, len(self.connections) // 50)]
        for connection in idle:
            if self.move_elsewhere is None or not self.move_elsewhere(connection):
                connection.close_idle()
        return len(idle)

    def short_of_descriptors(self, problem: str) -> None:
        """There was no descriptor for a connection (R36): close some that are idle, and count as full for a moment, so that other fronts take more."""
        self.rejected["fd_exhausted"] += 1
        self.warn_rarely(problem)
        self._short_until = self.current_time() + _SHORT
        self.make_room(8)

    def reopen_logs(self) -> None:
        """Reopen the log files, after a rotation. Returns at once."""
        if self.access_log is not None:
            self.access_log.reopen()

    def drain(self) -> None:
        """Let no connection serve another request after its current one. Idle ones close now;
        upgraded ones and event streams get the drain time (R45).
        """
        self.draining = True
        for connection in self.connections:
            if connection.is_idle:
                connection.close_idle()
            elif (exchange := connection.exchange) is not None and exchange.relay is not None:
                exchange.relay.end_soon()
            elif exchange is not None and exchange.end_soon is not None:
                exchange.end_soon()
