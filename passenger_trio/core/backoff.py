"""How long a group that does not start is left alone, and when those who wait for it are told so.

It knows the failures of one group and when they were; it never knows processes, waiters or limits on numbers of them.

A *failure* is a spawn that failed, a spawn that ended for no reason that we gave, or a *crash*: a process that went
away by itself before it had served a session and before it was ``backoff_max`` seconds old. A program that is ready
and then dies at once would otherwise be spawned as fast as the machine can.

Laws:

* Each failure in a row multiplies the wait by ``backoff_factor``, from ``backoff_first`` to at most ``backoff_max``
  seconds. The jitter only shortens a wait, so the longest is the one that was promised.
* What fails while a failure is waited for was begun before that one, for nothing begins then. It is the same trouble
  seen twice (spawns run in parallel; a machine out of memory kills several processes at once): it does not count again.
* Success is a process that began to serve after the last failure and was *proven* (it served a session, or lived long
  enough). Older processes prove nothing: they may run code that is on the disk no more.
* While ``failures`` is not 0, one attempt at a time is the rule (a half-open circuit); ``scaling`` keeps it.
* The circuit is *open* after a failed spawn at once, for that comes with evidence that a person should see, and after
  a few crashes in a row. With an open circuit a group that has no process refuses; with a closed one its waiters wait
  for the retry, so that one unlucky request does not cost those behind it an error.
"""

from __future__ import annotations

import math

import attrs

from passenger_trio.core.limits import PoolLimits
from passenger_trio.core.model import SpawnFailure

CRASHES_TOLERATED = 3
"""So many crashes in a row leave the circuit closed. With the usual limits their waits are 0.1, 0.3 and 0.9 seconds."""
SPREAD = 0.25
"""The part of a wait that the jitter may take off."""
NOT_IN_FORCE = -math.inf


@attrs.define
class Backoff:
    """The failures of one group since its last success. Times are monotonic seconds."""

    failures: int = 0
    """In a row. 0: nothing is wrong."""
    step: float = 0.0
    """The wait that the last failure asked for, before the jitter: seconds."""
    until: float = NOT_IN_FORCE
    """No spawn before this time. ``NOT_IN_FORCE`` once its end was seen, so that no deadline is told twice."""
    failed_at: float = -math.inf
    attempt_ended_at: float = -math.inf
    """When a spawn last ended, well or badly."""
    opened: bool = False
    """Whether a group with no process at all refuses while the back-off is in force."""
    failure: SpawnFailure | None = None
    """Evidence of the last failure, if it left any. Forgotten at the next success."""

    def in_force(self, now: float) -> bool:
        return now < self.until

    def record(
        self, now: float, jitter: float, limits: PoolLimits, *, failure: SpawnFailure | None, crash: bool
    ) -> bool:
        """A failure happened.

        :param jitter: in [0, 1).
        :param crash: a process went away, it was not a spawn that failed.
        :returns: whether it counted, or was the last one seen again.
        """
        if failure is not None or crash:
            self.failure = failure
        if failure is not None and not crash:
            self.opened = True
        if self.in_force(now):
            return False
        self.failures += 1
        # Multiplied step by step: a power of the number of failures would overflow after a weekend.
        self.step = min(limits.backoff_max, self.step * limits.backoff_factor or limits.backoff_first)
        self.until = now + self.step * (1 - SPREAD * jitter)
        self.failed_at = now
        self.opened = self.opened or self.failures > CRASHES_TOLERATED
        return True

    def expire(self, now: float) -> None:
        """The back-off, if it is over, is a deadline no more."""
        if self.until <= now:
            self.until = NOT_IN_FORCE

    def lift(self) -> None:
        """Try again now. The failures still count: the next one is waited for longer."""
        self.until = NOT_IN_FORCE

    def proven(self, since: float) -> bool:
        """A process that serves ``since`` then has proven itself. Returns whether that was a success after failures."""
        if not self.failures or since < self.failed_at:
            return False
        self.succeed()
        return True

    def succeed(self) -> None:
        """All is well again."""
        self.failures = 0
        self.step = 0.0
        self.until = NOT_IN_FORCE
        self.opened = False
        self.failure = None
