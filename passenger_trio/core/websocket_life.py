"""The life of one WebSocket between a client and a worker: which side has closed, which side must be told,
and what is due when.

This module knows two sides and the time. It never knows a socket, a frame or a task. Facts come in as
calls; decisions come out as a list of orders, which the shell (``server/upgraded/websocket_state``) performs
at once and in order.

The two sides::

    client  OPEN --we send Close--> CLOSING --its Close--> ENDING --let go--> GONE
            OPEN --its Close, which we answer; or it broke a rule-----> ENDING
            any  --its connection is lost, or a deadline----------------------> GONE
    worker  OPEN --we send C--> TOLD --its E, or its stream ends--> GONE

Laws:

* When one side ends, the other is told once, with the reason. The client gets a Close frame if its
  connection can still take one.
* A ``C`` of the worker is always answered with a ``C``. After that the server sends nothing on the
  session.
* No wait on the client's side is unlimited: the server gives up on a client that does not answer a
  Close, does not read, or does not answer a ping.
* The client is not blamed while the server does not read it: as long as the worker does not read, no
  ping is waited for. If the worker does not read for too long, the client is closed (1013).
* Draining (a shutdown, or a process that is to be retired) gives the WebSocket time to end by itself.
  Then the server tells the client, early enough for the client to leave within that time. The worker
  gets the same time again to end its application.
"""

from __future__ import annotations

import enum
import math

from passenger_trio.core.lingering import LINGER_TIME
from passenger_trio.core.websocket_close_codes import (
    AFTER_FAILURE,
    AT_PROCESS_END,
    AT_SERVER_STOP,
    LOST,
    WHEN_NOT_READ,
)
from passenger_trio.late_classes import frozen
from passenger_trio.options import ServerOptions

__all__ = [
    "AbortWorker",
    "CutClient",
    "LeaveWorker",
    "Order",
    "Ping",
    "Side",
    "TellClient",
    "TellWorker",
    "Times",
    "WebSocketLife",
]

CLOSE_TIME = 5.0
"""Seconds for a client to answer our Close, and to read what is on its way."""


class Side(enum.Enum):
    """How far one side has ended."""

    OPEN = "open"
    CLOSING = "closing"
    """The client: we sent a Close and wait for the answer."""
    ENDING = "ending"
    """The client: we expect nothing more from it."""
    TOLD = "told"
    """The worker: it was told of the end, and ends its application's session."""
    GONE = "gone"


@frozen
class Times:
    """Seconds; a ping time of 0 means none."""

    ping_interval: float
    ping_timeout: float
    stall: float
    """How long a side may go without reading."""
    drain: float

    @classmethod
    def of(cls, options: ServerOptions) -> Times:
        """The times from the options of the server."""
        return cls(
            options.websocket_ping_interval,
            options.websocket_ping_timeout,
            options.write_timeout,
            options.websocket_drain,
        )


@frozen
class Ping:
    """Send the client a Ping."""


@frozen
class TellClient:
    """Send the client a Close."""

    code: int
    reason: str


@frozen
class TellWorker:
    """Send the worker a ``C``."""

    code: int
    reason: str = ""


@frozen
class CutClient:
    """Close the client's connection: its time is over."""


@frozen
class AbortWorker:
    """The worker does not read: shut down its stream, and discard what is on its way to it."""


@frozen
class LeaveWorker:
    """Give the process back although its application has not ended: the process is to be retired."""


Order = Ping | TellClient | TellWorker | CutClient | AbortWorker | LeaveWorker


class WebSocketLife:
    """``client`` and ``worker`` are read-only for others."""

    __slots__ = (
        "_close_due",
        "_code",
        "_drain_due",
        "_leave_due",
        "_pinged",
        "_times",
        "_told",
        "client",
        "client_stuck",
        "heard",
        "worker",
        "worker_stuck",
    )

    def __init__(self, times: Times, now: float) -> None:
        self._times = times
        self.client = Side.OPEN
        self.worker = Side.OPEN
        self.heard = now
        """When the client was last heard; minus infinity: not since the Ping. The shell sets it on every message."""
        self.client_stuck = math.inf
        """Since when something waits for the client to read. The shell sets it, and ``worker_stuck``."""
        self.worker_stuck = math.inf
        self._pinged = 0.0
        """When the last Ping was sent."""
        self._close_due = math.inf
        """When to give up on the client."""
        self._drain_due = math.inf
        self._code = 0
        self._told = 0.0
        """When the worker was told."""
        self._leave_due = math.inf

    # -- facts ----------------------------------------------------------------------------------------------------

    def client_closes(self, code: int, reason: str, now: float) -> list[Order]:
        """The client sent a Close: the first one, which is answered, or the answer to ours."""
        orders: list[Order] = []
        if self.client is Side.OPEN:
            orders.append(TellClient(code, ""))
        return orders + self._client_ends(code, reason, now)

    def client_fails(self, code: int, reason: str, now: float) -> list[Order]:
        """The client broke a rule of the protocol, or a limit: tell it, and read nothing more (section 7.1.7)."""
        orders: list[Order] = []
        if self.client is Side.OPEN:
            orders.append(TellClient(code, reason))
        return orders + self._client_ends(code, reason, now)

    def client_lost(self, now: float) -> list[Order]:
        """The client's connection has ended."""
        if self.client is Side.GONE:
            return []
        self.client = Side.GONE
        return self._tell_worker(LOST, "", now)

    def client_let_go(self) -> None:
        """The shell has closed the client's connection, without an error or a missed deadline."""
        self.client = Side.GONE

    def worker_closes(self, code: int, reason: str, now: float) -> list[Order]:
        """The worker sent ``C``. (If it crosses ours, it needs no answer.)"""
        return self._tell_worker(code, reason, now) + self._close_client(code, reason, now)

    def worker_ends(self) -> None:
        """The worker sent ``E``, which it only sends after a ``C`` from us."""
        self.worker = Side.GONE

    def worker_lost(self, now: float, *, broken: bool = False) -> list[Order]:
        """The worker's stream ended too early. ``broken``: the worker broke the session protocol."""
        self.worker = Side.GONE
        if broken:
            return self._close_client(AFTER_FAILURE, "internal error", now)
        return self._close_client(AT_PROCESS_END, "service restart", now)

    def drain(self, code: int, now: float, spread: float) -> None:
        """End the WebSocket: ``AT_SERVER_STOP`` with the server, ``AT_PROCESS_END`` with its process.

        :param spread: a random number in [0, 1). Clients that are told at the same time would reconnect at the same
            time. So half of the drain time is spread over them, and a quarter is left for their answers.
        """
        if self._drain_due == math.inf or code == AT_SERVER_STOP:
            self._code = code
        drain = self._times.drain
        self._drain_due = min(self._drain_due, now + drain * (0.75 - spread / 2))
        self._leave_due = min(self._leave_due, max(now, self._told) + 2 * drain)

    # -- time -----------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Order]:
        """Do what is due. Harmless at any time."""
        orders: list[Order] = []
        stall = self._times.stall
        if self.client is Side.OPEN:
            if self._drain_due <= now:
                orders += self._tell_worker(self._code, "", now)
                orders += self._close_client(self._code, _REASONS[self._code], now)
            elif self.client_stuck + stall <= now:
                self.client = Side.GONE
                orders += [CutClient(), *self._tell_worker(LOST, "", now)]
            elif self.worker_stuck + stall <= now:
                self.worker = Side.TOLD
                self._told = now
                orders += [AbortWorker(), *self._close_client(WHEN_NOT_READ, "try again later", now)]
            else:
                orders += self._ping(now)
        elif self.client is not Side.GONE and self._close_due <= now:
            self.client = Side.GONE
            orders.append(CutClient())
        if self.worker is Side.TOLD and self._leave_due <= now:
            self.worker = Side.GONE
            orders.append(LeaveWorker())
        return orders

    def due(self) -> float:
        """When to call ``tick`` next. It may be early, never late. Ask again after a fact or a stall."""
        due = math.inf
        if self.client is Side.OPEN:
            due = min(self._drain_due, self.client_stuck + self._times.stall, self.worker_stuck + self._times.stall)
            if self._times.ping_interval and self._reads:
                due = min(due, self._ping_due())
        elif self.client is not Side.GONE:
            due = self._close_due
        if self.worker is Side.TOLD:
            due = min(due, self._leave_due)
        return due

    @property
    def _reads(self) -> bool:
        """Whether silence of the client means anything: it is read, and has received all that there is."""
        return self.worker_stuck == math.inf and self.client_stuck == math.inf

    def _ping_due(self) -> float:
        if self.heard == -math.inf:
            return self._pinged + self._times.ping_timeout if self._times.ping_timeout else math.inf
        return self.heard + self._times.ping_interval

    def _ping(self, now: float) -> list[Order]:
        if not self._times.ping_interval:
            return []
        if not self._reads:
            self.heard = now
        if self._ping_due() > now:
            return []
        if self.heard > -math.inf:
            self.heard = -math.inf
            self._pinged = now
            return [Ping()]
        return self._tell_worker(LOST, "", now) + self._close_client(AFTER_FAILURE, "ping timeout", now)

    # -- steps ----------------------------------------------------------------------------------------------------

    def _client_ends(self, code: int, reason: str, now: float) -> list[Order]:
        self.client = Side.ENDING
        self._close_due = now + LINGER_TIME
        return self._tell_worker(code, reason, now)

    def _close_client(self, code: int, reason: str, now: float) -> list[Order]:
        if self.client is not Side.OPEN:
            return []
        self.client = Side.CLOSING
        self._close_due = now + CLOSE_TIME
        return [TellClient(code, reason)]

    def _tell_worker(self, code: int, reason: str, now: float) -> list[Order]:
        if self.worker is not Side.OPEN:
            return []
        self.worker = Side.TOLD
        self._told = now
        if self._leave_due < math.inf:
            self._leave_due = max(self._leave_due, now + self._times.drain)
        return [TellWorker(code, reason)]


_REASONS = {AT_SERVER_STOP: "going away", AT_PROCESS_END: "service restart"}
