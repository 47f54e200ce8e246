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
    :param is_slow: whether reading the deadline takes long now. If so, it is read once for all facts of one pass of the
        event loop, because a thousand requests for a thousand applications may come in one pass (OP5).
    """

    def __init__(
        self,
        next_deadline: Callable[[], float],
        tick: Callable[[float], None],
        is_slow: Callable[[], bool] = lambda: False,
    ) -> None:
        self._next_deadline = next_deadline
        self._tick = tick
        self._is_slow = is_slow
        self._is_stale = False
        self._sleep: trio.CancelScope | None = None
        self._earliest = -math.inf
        self._stopped = False

    def recheck(self) -> None:
        """Read the deadline again, because it may have changed."""
        if self._sleep is not None:
            if self._is_slow():
                self._is_stale = True
                self._sleep.cancel()
                return
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
            self._is_stale = False
            deadline = self._deadline
            with trio.CancelScope(deadline=deadline) as self._sleep:
                await trio.sleep_forever()
            self._sleep = None
            if self._stopped:
                return
            now = trio.current_time()
            if (
                self._is_stale and now < deadline
            ):  # an old deadline that is due is still served, however many facts come
                continue
            self._earliest = now + _FLOOR
            self._tick(now)
