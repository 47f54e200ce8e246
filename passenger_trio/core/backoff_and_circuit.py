"""How long to wait before spawning again after failures, and when to refuse the waiters meanwhile.

This module knows the failures of one group and their times. It never knows processes, waiters or
limits on their numbers.

A *failure* is one of three: a spawn that failed; a spawn that the shell abandoned although the policy
did not ask for that; a *crash*, which is a process that ended by itself before it had served a
session and before it was ``backoff_max`` seconds old. Without the last kind, a program that becomes
ready and then dies at once would be spawned as fast as the machine can.

Laws:

* Each failure in a row multiplies the wait by ``backoff_factor``, from ``backoff_first`` to at most
  ``backoff_max`` seconds. The jitter only shortens a wait, so no wait is longer than promised.
* A failure during a back-off began before the failure that started the back-off, because nothing
  begins during one. It has the same cause (spawns run in parallel; a machine out of memory kills
  several processes at once), so it does not count again.
* Success is a process that began to serve after the last failure and was *proven* (it served a
  session, or lived long enough). Older processes prove nothing: their code may no longer be on disk.
* While ``failures`` is not 0, only one attempt runs at a time (a half-open circuit); ``scaling``
  enforces that.
* A failed spawn *opens* the circuit at once, because it left evidence that operators should see. A
  few crashes in a row open it too. With an open circuit a group without processes refuses its waiters.
  With a closed one they wait for the retry, so that one request that crashes a process does not fail
  those behind it.
"""

from __future__ import annotations

import math

from passenger_trio.core.model import SpawnFailure
from passenger_trio.core.policy_limits import PoolLimits
from passenger_trio.late_classes import define

CRASHES_TOLERATED = 3
"""This many crashes in a row leave the circuit closed. With the default limits they wait 0.1, 0.3 and 0.9 seconds."""
SPREAD = 0.25
"""The part of a wait that the jitter may remove."""
NOT_IN_FORCE = -math.inf


@define
class Backoff:
    """The failures of one group since its last success. Times are monotonic seconds."""

    failures: int = 0
    """In a row. 0: none since the last success."""
    step: float = 0.0
    """The wait in seconds that the last failure caused, before the jitter."""
    until: float = NOT_IN_FORCE
    """No spawn before this time. ``NOT_IN_FORCE`` once its end was seen, so that it sets no deadline twice."""
    failed_at: float = -math.inf
    attempt_ended_at: float = -math.inf
    """When a spawn last ended, well or badly."""
    opened: bool = False
    """Whether the circuit is open: a group without any process then refuses during the back-off."""
    failure: SpawnFailure | None = None
    """Evidence of the last failure, if any. The next success clears it."""

    def in_force(self, now: float) -> bool:
        return now < self.until

    def record(
        self, now: float, jitter: float, limits: PoolLimits, *, failure: SpawnFailure | None, crash: bool
    ) -> bool:
        """Record a failure.

        :param jitter: in [0, 1).
        :param crash: a process went away; otherwise a spawn failed.
        :returns: whether it counted. False: it belongs to the failure before.
        """
        if failure is not None or crash:
            self.failure = failure
        if failure is not None and not crash:
            self.opened = True
        if self.in_force(now):
            return False
        self.failures += 1
        # Multiplied step by step: a power of the number of failures would overflow within days.
        self.step = min(limits.backoff_max, self.step * limits.backoff_factor or limits.backoff_first)
        self.until = now + self.step * (1 - SPREAD * jitter)
        self.failed_at = now
        self.opened = self.opened or self.failures > CRASHES_TOLERATED
        return True

    def expire(self, now: float) -> None:
        """Remove the deadline of a back-off that is over."""
        if self.until <= now:
            self.until = NOT_IN_FORCE

    def lift(self) -> None:
        """Allow a spawn now. The failures still count, so the next failure causes a longer wait."""
        self.until = NOT_IN_FORCE

    def proven(self, since: float) -> bool:
        """A process that serves since ``since`` was proven. Returns whether that is a success after failures."""
        if not self.failures or since < self.failed_at:
            return False
        self.succeed()
        return True

    def succeed(self) -> None:
        """Forget all failures."""
        self.failures = 0
        self.step = 0.0
        self.until = NOT_IN_FORCE
        self.opened = False
        self.failure = None
