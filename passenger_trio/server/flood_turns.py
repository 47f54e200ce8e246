"""Turns of floods: streams of many small pieces take turns, so that one of them does one step in each pass of the event loop (KE7).

A flood calls ``take`` and does one step without a checkpoint. Then it calls ``take`` again, or ``end`` before it waits for something else.
``core.flood_share`` decides how long all floods rest between steps.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from passenger_trio.core.flood_share import FloodShare

__all__ = ["FloodTurns"]


class FloodTurns:
    """:param current_time: monotonic seconds. :param others: when a stream that is no flood was last served."""

    __slots__ = ("_current_time", "_lock", "_others", "_share")

    def __init__(self, current_time: Callable[[], float], others: Callable[[], float]) -> None:
        self._current_time = current_time
        self._others = others
        self._lock = trio.Lock()
        self._share = FloodShare()

    @property
    def waiting(self) -> int:
        """How many streams wait for their turn."""
        return self._lock.statistics().tasks_waiting

    async def take(self, *, is_heavy: bool) -> None:
        """End the previous step, and wait for the turn of the next one. Always a checkpoint.

        :param is_heavy: see ``ReadSize.is_heavy``.
        """
        self.end()
        async with self._lock:
            rest = self._share.rest(self._current_time(), self._others())
            if rest:
                await trio.sleep(rest)
            else:
                await trio.lowlevel.checkpoint()
        self._share.begin(self._current_time(), is_heavy=is_heavy)

    def end(self) -> None:
        """The step is over. Idempotent."""
        self._share.end(self._current_time())
