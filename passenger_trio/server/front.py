"""The Front: the state that all connections of one server share. Counters, limits, the date,
request ids, the table of open connections.

It is plain state, with one owner for each number. It starts no task. Its only I/O is reading the
clocks: the wall clock for ``Date`` and the log, the monotonic clock for everything else (R50). It
must be made within a Trio run.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from email.utils import formatdate
from typing import Protocol

import trio

from passenger_trio.codecs.head import HttpLimits
from passenger_trio.codecs.request_marks import NO_MARKS, Marks, own_pairs
from passenger_trio.codecs.websocket_frames import FrameLimits
from passenger_trio.core.accept_gate import Turn
from passenger_trio.core.descriptors import Descriptors
from passenger_trio.core.fronts.share import ALONE, Share
from passenger_trio.core.model import GroupKey
from passenger_trio.core.tally import RequestTally
from passenger_trio.kernel import ErrorKernel
from passenger_trio.log_lines import requests as lines
from passenger_trio.options import MAX_WEBSOCKET_MESSAGE, ServerOptions
from passenger_trio.pool.seam import PoolSeam
from passenger_trio.server.answers.custom_page import ErrorPage
from passenger_trio.server.flood_turns import FloodTurns
from passenger_trio.server.health_paths import HealthPaths
from passenger_trio.server.http.deadline_scanner import DeadlineScanner, HasDeadline
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.http.peer import Peer
from passenger_trio.server.http.stage import RECEIVE_SIZE, Stage
from passenger_trio.server.logs.access_format import AccessRecord
from passenger_trio.server.logs.tee import Records
from passenger_trio.server.mounts import Mounts, Route
from passenger_trio.server.spill.spill_storage import SpillStorage
from passenger_trio.server.tracing.tracing import TraceMaker, Tracing
from passenger_trio.server.trusted_proxies import TrustedProxies
from passenger_trio.system.poller import Poller

__all__ = ["AcceptGate", "Front", "OpenConnection"]

_JUST_COME = 1.0
"""Seconds that a new client has to send its first request before it counts as idle."""


REFUSALS_A_SECOND = 100
"""Refused requests per second in the access log."""


class OpenConnection(HasDeadline, Protocol):
    """A connection, as the front and the admin API see it."""

    peer: Peer
    exchange: Exchange | None
    """The current request."""
    stage: Stage
    since: float
    """When the stage began, in monotonic seconds."""
    served: int
    """Requests that were begun."""

    @property
    def is_idle(self) -> bool:
        """Whether the connection is between two requests and was not told to end."""

    def close_idle(self) -> None:
        """End the connection, which must be idle."""


class AcceptGate(Protocol):
    """Says whether this front takes the next connection."""

    def turn(self) -> Turn: ...


class Front:
    """The state that all connections of one server share."""

    def __init__(
        self,
        options: ServerOptions,
        pool: PoolSeam,
        routes: Sequence[Route],
        access_log: Records | None,
        descriptors: Descriptors | None = None,
        kernel: ErrorKernel | None = None,
        share: Share = ALONE,
    ) -> None:
        """:param descriptors: limits the descriptors that clients may hold; None: no limit.
        :param share: this front's part of what all fronts have together. (Limits in ``options`` are this front's.)
        """
        self.kernel: ErrorKernel = kernel or ErrorKernel()
        self.pool = pool
        self._descriptors = descriptors or Descriptors.measured(-1, options.max_connections, 0, 0)
        self._configure(options, routes)
        self.access_log = access_log
        self.tracing: Tracing | None = TraceMaker() if options.tracing == "make" else None
        """Finds each request's place in its trace; whoever composes the server sets one that makes spans."""
        self.health: HealthPaths | None = None
        """Where the public listeners tell the server's health; set by whoever composes the server."""
        self.error_page: ErrorPage | None = None
        """Gives the pages of failed requests, if the embedding program has its own."""
        self.connections: set[OpenConnection] = set()
        self.deadline_scanner: DeadlineScanner = DeadlineScanner(self.connections)
        self.now: Callable[[], float] = trio.lowlevel.current_clock().current_time
        """Monotonic seconds, as ``trio.current_time`` with fewer calls."""
        self.poller: Poller = Poller(self.now, self.kernel)
        self.spill: SpillStorage = SpillStorage(
            options.data_buffer_dir,
            options.data_buffer_max,
            self.now,
            takes_file=self._takes_file,
            make_room=self.make_room,
        )
        self.receive_buffer: memoryview = memoryview(bytearray(RECEIVE_SIZE))
        """Shared by all connections, for bytes that are consumed before the next checkpoint."""
        self.flood_turns: FloodTurns = FloodTurns(self.now, lambda: self.poller.time)
        """Streams of many small pieces take turns (KE7). Each request begins in the poller, so its
        time tells whether others are served beside them.
        """
        self.accepted = 0
        self.requests = 0
        self.rejected: Counter[str] = Counter()
        """Refused requests, by the code of the refusal."""
        self.refused: RequestTally = RequestTally()
        """Requests that were refused before they had an application."""
        self.draining: bool = False
        self.gate: AcceptGate | None = None
        """Set where other fronts accept from the same sockets."""
        self._date_second = 0
        self._date = b""
        self._id_prefix = secrets.token_hex(4).encode()
        self._ids = itertools.count(1)
        self._second = 0
        self._new_marks = b""
        """The form of the own pairs of requests that begin in this second."""
        self._warned = 0.0
        self._quiet = float(share.fronts)
        """Seconds between two warnings."""
        self._most_refusals = share.part(REFUSALS_A_SECOND)
        self._refusal_second = self._refusals = 0

    def _configure(self, options: ServerOptions, routes: Sequence[Route]) -> None:
        self.options = options
        self.limits: HttpLimits = HttpLimits.from_options(options)
        self.frame_limits: FrameLimits = FrameLimits(min(options.websocket_max_message_size, MAX_WEBSOCKET_MESSAGE))
        self.mounts: Mounts = Mounts(routes)
        self.trusted: TrustedProxies = TrustedProxies(options)

    def reconfigure(self, options: ServerOptions, routes: Sequence[Route], descriptors: Descriptors) -> None:
        """Serve by other options from now on. Connections that are open keep the limits on heads and frames that
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

    def date(self) -> bytes:
        """The current value of the ``Date`` field (RFC 9110 section 6.6.1)."""
        now = int(time.time())
        if now != self._date_second:
            self._date_second = now
            self._date = formatdate(now, usegmt=True).encode()
        return self._date

    def new_marks(self, said: Marks = NO_MARKS) -> bytes:
        """The own pairs of a new request (``request_marks``): what a trusted proxy has said of it, and else a new id and the time."""
        now = time.time()
        if said is NO_MARKS:  # nearly always: in one step, with all that changes once a second prepared
            second = int(now)
            if second != self._second:
                self._second = second
                self._new_marks = b"HTTP_X_REQUEST_ID\0%b-%%x\0HTTP_X_REQUEST_START\0t=%d.%%06d\0" % (
                    self._id_prefix,
                    second,
                )
            return self._new_marks % (next(self._ids), (now - second) * 1e6)
        return own_pairs(
            said.request_id or b"%b-%x" % (self._id_prefix, next(self._ids)), said.start or b"t=%.6f" % now
        )

    def log_refusal(self, record: AccessRecord) -> None:
        """Write the access log line of a request that was refused before it had a route. At most
        ``REFUSALS_A_SECOND`` are written, because such requests cost their sender nothing (ED14).
        """
        self.refused.finished((record.method, record.status, record.duration, 0.0, 0.0))
        if self.access_log is None:
            return
        second = int(self.now())
        if second != self._refusal_second:
            if self._refusals > self._most_refusals:
                lines.refusals_unlogged(requests=self._refusals - self._most_refusals)
            self._refusal_second, self._refusals = second, 0
        self._refusals += 1
        if self._refusals <= self._most_refusals:
            self.access_log.record(record)

    def warn_rarely(self, reason: str) -> None:
        """Log at most one line per second, over all fronts, whatever the message (F31)."""
        now = time.monotonic()
        if now - self._warned >= self._quiet:
            self._warned = now
            lines.server_warning(reason=reason)

    @property
    def takes_connection(self) -> bool:
        """Whether one more connection may be accepted (R36)."""
        return self._descriptors.takes_connection(len(self.connections), self.spill.open_files)

    def _takes_file(self) -> bool:
        return self._descriptors.takes_file(len(self.connections), self.spill.open_files)

    def make_room(self, wanted: int = 1) -> int:
        """Close the connections that have been idle longest (R36). Returns their number. A client
        that has just connected is about to send a request, so its connection is spared.
        """
        newest = self.now() - _JUST_COME
        idle = sorted(
            (c for c in self.connections if c.is_idle and (c.served or c.since < newest)), key=lambda c: c.since
        )[: max(wanted, len(self.connections) // 50)]
        for connection in idle:
            connection.close_idle()
        return len(idle)

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
