"""The pool's only timer: sleep until the policy's next deadline, then tell it the time.

``recheck`` is called after every fact that may have made the deadline earlier. Law: it never spins; a deadline that does not move after a tick
is looked at again after ``_FLOOR`` seconds at the earliest.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

__all__ = ["Clock"]

_FLOOR = 0.01


class Clock:
    """:param next_deadline: monotonic seconds or infinity. :param tick: told the time when that is reached."""

    def __init__(self, next_deadline: Callable[[], float], tick: Callable[[float], None]) -> None:
        self._next_deadline = next_deadline
        self._tick = tick
        self._sleep: trio.CancelScope | None = None
        self._earliest = -math.inf

    def recheck(self) -> None:
        """The deadline may have changed."""
        if self._sleep is not None:
            deadline = max(self._next_deadline(), self._earliest)
            if deadline != self._sleep.deadline:
                self._sleep.deadline = deadline

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with trio.CancelScope(deadline=max(self._next_deadline(), self._earliest)) as self._sleep:
                await trio.sleep_forever()
            self._sleep = None
            now = trio.current_time()
            self._earliest = now + _FLOOR
            self._tick(now)
