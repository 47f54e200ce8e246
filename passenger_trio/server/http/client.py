"""A client's connection: its stream, its codec, its stage and the stage's deadline. It knows no stage's code.

A stage begins with ``enter``, which is given how long it may last. When the deadline has passed, the deadline scanner
calls ``on_deadline``. That cancels the scope around the stage, unless the stage gave something else to do.
``connection.py`` looks up the next step.

Law: only ``enter`` and ``enter_fast_path`` begin a stage, and only they set its deadline (a relay moves its own). One exception: ``FastPath._next_request``
sets APP without a deadline, because nothing waits before the next ``enter_fast_path``."""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from passenger_trio.codecs.http1 import ClientSide
from passenger_trio.core.metric_counts import FOLD_AT
from passenger_trio.server.front import Front
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.http.interruptions import ClientGone
from passenger_trio.server.http.peer import Peer
from passenger_trio.server.http.stage import FAST_PATH_TIMEOUT, Stage
from passenger_trio.server.logs.access_record import exchange_record
from passenger_trio.system.raw_stream import RawStream

__all__ = ["TASK", "Client"]

TASK = "a connection"
"""The name of a connection's task, for the error kernel."""


class Client:
    """The state of one client connection. Its stages take it as their first argument."""

    __slots__ = (
        "_on_due",
        "broken",
        "codec",
        "current_time",
        "due",
        "exchange",
        "expired",
        "front",
        "opened",
        "peer",
        "refused_since",
        "scope",
        "served",
        "since",
        "stage",
        "stage_number",
        "stream",
    )

    def __init__(self, front: Front, stream: RawStream, peer: Peer) -> None:
        self.front = front
        self.stream = stream
        self.peer = peer
        self.codec = ClientSide(front.limits, plain_parser=front.options.plain_parser)
        self.exchange: Exchange | None = None
        """The request under way."""
        self.current_time = front.current_time
        """Reads the monotonic clock, in seconds."""
        self.stage = Stage.IDLE
        self.since = self.opened = self.current_time()
        """When the stage began, and when the connection was accepted, in monotonic seconds."""
        self.refused_since = math.inf
        """When the first byte of a head came that is refused, for the access log; infinity: none is."""
        self.due = math.inf
        """When the stage must be over. The deadline scanner reads it."""
        self._on_due: Callable[[float], bool] | None = None
        self.stage_number = 0
        """Counts stages, so that a deadline can tell whether its stage is still there."""
        self.scope = trio.CancelScope()
        """Around each step of the connection's task."""
        self.expired = False
        """Whether the stage has timed out, or was ended: the scope is cancelled."""
        self.broken = False
        """Whether a step for it has failed: the connection ends."""
        self.served = 0
        """Requests that were begun."""

    # -- the stage and its deadline -----------------------------------------------------------------------------

    def enter(
        self, stage: Stage, now: float, seconds: float = math.inf, on_due: Callable[[float], bool] | None = None
    ) -> None:
        """A stage begins, and may last for ``seconds``.

        :param on_due: called with the time when they are over; True: the stage has timed out. If it is not given, it has.
        """
        self.stage = stage
        self.since = now
        self.due = now + seconds
        self._on_due = on_due
        self.stage_number += 1

    def enter_fast_path(self, stage: Stage, now: float) -> None:
        """A stage of the fast path begins: it lasts for ``FAST_PATH_TIMEOUT``, which is kept more exactly."""
        self.stage = stage
        self.since = now
        self.due = now + FAST_PATH_TIMEOUT
        self._on_due = None
        self.stage_number += 1
        self.front.deadline_scanner.soon(self)

    def enter_write(self, now: float) -> None:
        """Wait until the client reads, for the write timeout at most (R27)."""
        self.enter(Stage.WRITE, now, self.front.options.write_timeout, self._stopped_reading)

    def _stopped_reading(self, now: float) -> bool:
        # If there is room, the task that waits for it is woken in this very step, and gives the client its whole time again.
        return not self.stream.takes_more

    def on_deadline(self, now: float) -> None:
        """The deadline of the stage has passed. Called by the deadline scanner; runs no task."""
        on_due = self._on_due
        if on_due is None or on_due(now):
            self.expire()

    @property
    def is_idle(self) -> bool:
        """Between two requests, and not told to end."""
        return self.stage is Stage.IDLE and not self.expired

    def close_idle(self) -> None:
        """End the connection, which must be idle."""
        self.expire()

    def expire(self) -> None:
        """End the stage, whatever it waits for."""
        self.expired = True
        self.scope.cancel()

    def give_up(self) -> None:
        """A step for it has failed: end the connection."""
        self.broken = True
        self.expire()

    def on_fault(self, error: Exception) -> None:
        """A step for it has failed: report the error, and end the connection. Raises nothing."""
        self.front.kernel.report(TASK, error, f"it is closed [{self.peer.address}]")
        with self.front.kernel.contain(TASK):
            self.give_up()

    # -- the response -------------------------------------------------------------------------------------------

    @property
    def ends_after_response(self) -> bool:
        """Whether the response under way is the connection's last, for reasons of ours."""
        options = self.front.options
        return (
            self.front.draining
            or 0 < options.max_requests_per_connection <= self.served
            or 0 < options.max_connection_age <= self.since - self.opened
        )

    async def send(self, data: bytes | memoryview) -> None:
        """Give bytes to the client; wait while it reads none, up to the write timeout (R27).

        :raises ClientGone: the connection is broken.
        """
        try:
            sent = self.stream.send_nowait(data)
            if sent < len(data):
                rest = memoryview(data)[sent:]
                stage = self.stage
                while rest:
                    self.enter_write(self.current_time())
                    await trio.lowlevel.wait_writable(self.stream.socket)
                    rest = rest[self.stream.send_nowait(rest) :]
                self.enter(stage, self.current_time())
        except trio.BrokenResourceError:
            raise ClientGone from None

    def log(self, exchange: Exchange) -> None:
        """An exchange is over: count it, and give the access log its record."""
        now = self.current_time()
        # This is ``route.tally.finished(...)`` without the call (OB2): ``route.to_fold`` is the tally's own list.
        to_fold = exchange.route.to_fold
        to_fold += (
            exchange.head.method,
            exchange.status,
            now - exchange.started,
            exchange.queue_time,
            exchange.app_time,
        )
        if len(to_fold) >= FOLD_AT:
            exchange.route.tally.fold()
        if exchange.spans is not None:
            exchange.spans.finish(exchange, exchange.client(self.peer.address), now)
        access_log = self.front.access_log
        if access_log is not None:
            access_log.record(exchange_record(exchange, self.peer.address, now))
