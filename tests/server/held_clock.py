"""Simulated time that stands still while a thread works.

The autojump clock jumps when every task waits, and a task that waits for a thread waits, too: so the next deadline, however far, would come before the thread has
done. Whoever enters a thread asks a limiter first and tells it afterwards, both in Trio's own thread: that is the place to hold the clock.
"""

from __future__ import annotations

import math

import trio
import trio.testing

__all__ = ["HeldClock", "NoThreads"]


class HeldClock:
    """Takes the place of a ``trio.CapacityLimiter``; outside simulated time it is one."""

    def __init__(self, threads: int = 4) -> None:
        self._limiter = trio.CapacityLimiter(threads)
        self._inside = 0
        self._threshold = 0.0

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        await self._limiter.acquire_on_behalf_of(borrower)
        clock = trio.lowlevel.current_clock()
        if isinstance(clock, trio.testing.MockClock):
            if not self._inside:
                self._threshold, clock.autojump_threshold = clock.autojump_threshold, math.inf
            self._inside += 1

    def release_on_behalf_of(self, borrower: object) -> None:
        self._limiter.release_on_behalf_of(borrower)
        clock = trio.lowlevel.current_clock()
        if isinstance(clock, trio.testing.MockClock):
            self._inside -= 1
            if not self._inside:
                clock.autojump_threshold = self._threshold


class NoThreads(HeldClock):
    """The same at a limit on processes: some of the times, counted from 1, no thread can be had, and the error is the interpreter's."""

    def __init__(self, *times: int) -> None:
        super().__init__()
        self._times = times
        self.asked = 0

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        self.asked += 1
        if self.asked in self._times:
            raise RuntimeError("can't start new thread")
        await super().acquire_on_behalf_of(borrower)
