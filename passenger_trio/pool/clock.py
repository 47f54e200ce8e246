"""The pool's only timer: it sleeps until the policy's next deadline, then passes the time to the
policy.

The pool calls ``recheck`` after every fact that may have made the deadline earlier.

Law: the clock never spins. If a deadline does not move after a tick, the next tick comes after
``_FLOOR`` seconds at the earliest.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

__all__ = ["Clock"]

_FLOOR = 0.01


class Clock:
    """:param next_deadline: monotonic seconds, or infinity.
    :param tick: called with the time when the deadline is reached.
    """

    def __init__(self, next_deadline: Callable[[], float], tick: Callable[[float], None]) -> None:
        self._next_deadline = next_deadline
        self._tick = tick
        self._sleep: trio.CancelScope | None = None
        self._earliest = -math.inf
        self._stopped = False

    def recheck(self) -> None:
        """Read the deadline again, because it may have changed."""
        if self._sleep is not None:
            deadline = self._deadline
            if deadline != self._sleep.deadline:
                self._sleep.deadline = deadline

    @property
    def _deadline(self) -> float:
        return -math.inf if self._stopped else max(self._next_deadline(), self._earliest)

    def stop(self) -> None:
        """End ``run``. ``tick`` is not called again."""
        self._stopped = True
        if self._sleep is not None:
            self._sleep.cancel()

    async def run(self) -> None:
        """Run until stopped or cancelled."""
        while True:
            with trio.CancelScope(deadline=self._deadline) as self._sleep:
                await trio.sleep_forever()
            self._sleep = None
            if self._stopped:
                return
            now = trio.current_time()
            self._earliest = now + _FLOOR
            self._tick(now)
