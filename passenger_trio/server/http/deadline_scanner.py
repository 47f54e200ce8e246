"""The deadline scanner: one task that ends every stage whose deadline has passed.

A stage writes its deadline as a number (``Client.due``). Moving the deadline of a cancel scope would cost about 3 us,
several times a request; writing a number costs nothing. The scanner reads the numbers, and tells a connection whose
deadline has passed: the connection cancels its scope, or does what its stage has said.

* All connections are scanned every ``_SCAN`` seconds, which is exact enough for limits of seconds. While there is none, the task sleeps
  for ``_REST``, so that an idle server does not wake four times a second (OP5). Code that adds a connection calls ``wake``.
* Deadlines of the fast path are kept in a queue. They all have the same length, so they come due in the order in
  which they were set.

Laws: no stage times out before its deadline, and none later than ``_SCAN`` after it. A stage that has ended meanwhile
does not time out (``Client.stage_number`` shows that). A cancellation is delivered before anything is read, so no bytes are
lost. A fault at one connection's deadline ends that connection only (KE1)."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Protocol

import trio

__all__ = ["DeadlineScanner", "HasDeadline"]

_SCAN = 0.25
_REST = 5.0
_WINDOW = 30.0
_TICK = 0.005
"""The least seconds between two looks at the queue."""


class HasDeadline(Protocol):
    """What the deadline scanner knows of a connection."""

    due: float
    """When its stage must be over, in monotonic seconds; infinity: never."""
    stage_number: int
    """The number of its stage, which tells a stage from those before and after it."""

    def on_deadline(self, now: float) -> None:
        """The deadline of the stage has passed. Runs no task."""

    def expire(self) -> None:
        """The stage has timed out."""

    def on_fault(self, error: Exception) -> None:
        """One of the calls above has failed. Raises nothing."""


class DeadlineScanner:
    """``run`` is its task."""

    __slots__ = ("_connections", "_lags", "_next_scan", "_rests", "_sleep", "_soon", "_window")

    def __init__(self, connections: Collection[HasDeadline]) -> None:
        """:param connections: the open connections. Their owner adds and removes them."""
        self._connections = connections
        self._soon: deque[tuple[float, int, HasDeadline]] = deque()
        self._sleep = trio.CancelScope()
        self._next_scan = 0.0
        self._rests = False
        """Whether the task sleeps for longer than ``_SCAN``."""
        self._lags = [0.0, 0.0]
        """The longest delay of this task's wake-ups in the current window, and in the one before."""
        self._window = 0

    def wake(self) -> None:
        """A connection was added."""
        if self._rests:
            self._rests = False
            self._next_scan = min(self._next_scan, trio.current_time() + _SCAN)
            self._sleep.deadline = min(self._sleep.deadline, self._next_scan)

    def soon(self, connection: HasDeadline) -> None:
        """``connection.due`` is ``FAST_PATH_TIMEOUT`` from now, and is kept within ``_TICK``."""
        if not self._soon and connection.due < self._sleep.deadline:
            # The first deadline after a while without any: the task would sleep for longer. Never the case under load.
            self._sleep.deadline = connection.due
        self._soon.append((connection.due, connection.stage_number, connection))

    @property
    def lag(self) -> float:
        """The longest delay of a timer in the last minute, in seconds: for so long one step blocked the event loop."""
        return max(self._lags)

    def _observe_lag(self, now: float) -> None:
        window = int(now / _WINDOW)
        if window != self._window:
            self._lags = [0.0, self._lags[0] if window == self._window + 1 else 0.0]
            self._window = window
        if self._sleep.deadline < now:
            self._lags[0] = max(self._lags[0], now - self._sleep.deadline)

    async def run(self) -> None:
        """End the stages whose deadlines have passed, until cancelled."""
        soon = self._soon
        self._next_scan = trio.current_time() + _SCAN
        while True:
            now = trio.current_time()
            self._observe_lag(now)
            while soon and soon[0][0] <= now:
                _, number, connection = soon.popleft()
                if connection.stage_number == number:
                    try:
                        connection.expire()
                    except Exception as error:  # noqa: BLE001  the error kernel's
                        connection.on_fault(error)
            if now >= self._next_scan:
                # on_deadline() runs no task: the set does not change under the loop.
                for connection in self._connections:
                    try:
                        if connection.due <= now:
                            connection.on_deadline(now)
                    except Exception as error:  # noqa: BLE001  the error kernel's
                        connection.on_fault(error)
                self._rests = not self._connections
                self._next_scan = now + (_REST if self._rests else _SCAN)
            due = min(self._next_scan, soon[0][0]) if soon else self._next_scan
            with trio.CancelScope(deadline=max(now + _TICK, due)) as self._sleep:
                await trio.sleep_forever()
