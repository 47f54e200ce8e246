"""The life of one WebSocket, between a client and a worker: who has closed, who has to be told, and what is due when.

It knows two sides, each of which is told of the other's end, and the time. It never knows a socket, a frame or a task. Facts come in as calls, what is to be
done comes out as a list of orders; the shell (``server/upgraded/websocket``) does them at once and in their order.

The two sides::

    client  OPEN --we send Close--> CLOSING --its Close--> ENDING --let go--> GONE
            OPEN --its Close, which we answer; or it broke a rule-----> ENDING
            any  --its connection is lost, or a deadline----------------------> GONE
    worker  OPEN --we send C--> TOLD --its E, or its stream ends--> GONE

Laws:

* Whoever ends first, the other is told, once, and why. A client is told by a Close frame wherever its connection still takes one.
* A worker's ``C`` is always answered by a ``C``; after ours nothing is sent on the session.
* Nothing waits for ever on the client's side: a Close that is not answered, a client that takes nothing, and one that does not answer a ping are given up on.
* A client is not blamed for our not reading: while the worker takes nothing, no ping is waited for. A worker that takes nothing for too long loses the client (1013).
* Draining (a shutdown, or a process that is to go) gives a time to end by itself; then the client is told, early enough to be gone in that time; and the worker has as long again to let its application end.
"""

from __future__ import annotations

import enum
import math

import attrs

from passenger_trio.options import ServerOptions

__all__ = [
    "GOING_AWAY",
    "LOST",
    "SERVICE_RESTART",
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
"""Seconds for a client to answer our Close, and to take what is on its way to it."""
LINGER_TIME = 2.0
"""Seconds in which a client that broke a rule may read why (R29)."""

LOST = 1006
GOING_AWAY = 1001
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012
TRY_AGAIN_LATER = 1013


class Side(enum.Enum):
    """How far the end of one side has come."""

    OPEN = "open"
    CLOSING = "closing"
    """The client: it was sent a Close, and its answer is waited for."""
    ENDING = "ending"
    """The client: nothing is expected of it any more."""
    TOLD = "told"
    """The worker: it was told of the end, and ends its application's session."""
    GONE = "gone"


@attrs.frozen
class Times:
    """Seconds; a ping time of 0 is none."""

    ping_interval: float
    ping_timeout: float
    stall: float
    """How long a side may take nothing."""
    drain: float

    @classmethod
    def of(cls, options: ServerOptions) -> Times:
        """As the options of the server say."""
        return cls(
            options.websocket_ping_interval,
            options.websocket_ping_timeout,
            options.write_timeout,
            options.websocket_drain,
        )


@attrs.frozen
class Ping:
    """Send the client a Ping."""


@attrs.frozen
class TellClient:
    """Send the client a Close."""

    code: int
    reason: str


@attrs.frozen
class TellWorker:
    """Send the worker a ``C``."""

    code: int
    reason: str = ""


@attrs.frozen
class CutClient:
    """Close the client's connection: it had its time."""


@attrs.frozen
class AbortWorker:
    """The worker takes nothing: tell it by the end of its stream, and throw away what is on its way to it."""


@attrs.frozen
class LeaveWorker:
    """Give the process back although its application has not ended: the process is to go."""


Order = Ping | TellClient | TellWorker | CutClient | AbortWorker | LeaveWorker


class WebSocketLife:
    """``client`` and ``worker`` are for reading."""

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
        """When the client last showed that it is there; minus infinity: not since the Ping. The shell writes it: this is on the way of every message."""
        self.client_stuck = math.inf
        """Since when something waits for the client to take it; the shell writes it, and the next."""
        self.worker_stuck = math.inf
        self._pinged = 0.0
        """When the last Ping was sent."""
        self._close_due = math.inf
        """When the client is given up on."""
        self._drain_due = math.inf
        self._code = 0
        self._told = 0.0
        """When the worker was told."""
        self._leave_due = math.inf

    # -- facts ----------------------------------------------------------------------------------------------------

    def client_closes(self, code: int, reason: str, now: float) -> list[Order]:
        """The client's Close has come: the first one, which is answered, or the answer to ours."""
        orders: list[Order] = []
        if self.client is Side.OPEN:
            orders.append(TellClient(code, ""))
        return orders + self._client_ends(code, reason, now)

    def client_fails(self, code: int, reason: str, now: float) -> list[Order]:
        """The client broke a rule of the protocol, or a limit: it is told, and nothing that it sends is read any more (section 7.1.7)."""
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
        """The shell has closed the client's connection, in good order."""
        self.client = Side.GONE

    def worker_closes(self, code: int, reason: str, now: float) -> list[Order]:
        """The worker's ``C``. (One that crosses ours needs no answer.)"""
        return self._tell_worker(code, reason, now) + self._close_client(code, reason, now)

    def worker_ends(self) -> None:
        """The worker's ``E``, which can only come when it was told."""
        self.worker = Side.GONE

    def worker_lost(self, now: float, *, broken: bool = False) -> list[Order]:
        """The worker's stream has ended too early. ``broken``: what it sent breaks the session protocol."""
        self.worker = Side.GONE
        if broken:
            return self._close_client(INTERNAL_ERROR, "internal error", now)
        return self._close_client(SERVICE_RESTART, "service restart", now)

    def drain(self, code: int, now: float, spread: float) -> None:
        """It is to end: ``GOING_AWAY`` with the server, ``SERVICE_RESTART`` with its process.

        :param spread: a random number in [0, 1): clients that are told together come back together, so half of the time is shared out among them, and a quarter is left for their answers.
        """
        if self._drain_due == math.inf or code == GOING_AWAY:
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
                orders += [AbortWorker(), *self._close_client(TRY_AGAIN_LATER, "try again later", now)]
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
        """When to call ``tick`` next. It may be early, never late; ask again after any fact, and after a side got stuck."""
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
        """Whether the client's silence means anything: it is read, and has been given all that there is."""
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
        return self._tell_worker(LOST, "", now) + self._close_client(INTERNAL_ERROR, "ping timeout", now)

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


_REASONS = {GOING_AWAY: "going away", SERVICE_RESTART: "service restart"}
