"""When a failed task of the server is started again, and when its failures are more than an accident.

This module knows the times of the failures of one task. It never knows what failed, or how.

Laws:

* After its first failure a task waits ``FIRST`` seconds. Each failure soon after it doubles the wait, up
  to ``LONGEST``.
* If a task ran for ``CALM`` seconds since its last failure, its next failure is a first one.
* A task that served for ``SERVED`` seconds before it failed starts again at once: its start works, so a wait would repair
  nothing. (Only tasks that report when they begin to serve, such as fronts, are restarted in this way. So they fail at most
  once in ``SERVED`` seconds.)
* More than ``INTENSITY`` failures without such a calm exceed the restart intensity. That is reported
  once, until the next calm.
"""

from __future__ import annotations

import math

from passenger_trio.late_classes import define, frozen

__all__ = ["CALM", "FIRST", "INTENSITY", "LONGEST", "SERVED", "TaskRestarts", "Verdict"]

FIRST = 0.1
LONGEST = 30.0
CALM = 60.0
"""Seconds; longer than ``LONGEST``, so that a wait is not a calm."""
SERVED = 0.5
INTENSITY = 5


@frozen
class Verdict:
    """The consequence of a failure."""

    wait: float
    """Seconds until the task starts again."""
    escalates: bool
    """The task has just exceeded the restart intensity."""


@define
class TaskRestarts:
    """The failures of one task."""

    failures: int = 0
    """In a row, without a calm between them."""
    started: float = -math.inf
    """When the task starts, or started, again: monotonic seconds."""

    def failed(self, now: float, served: float = 0.0) -> Verdict:
        """The task failed.

        :param served: seconds for which the task had served since its last start; 0: it does not report that.
        """
        if served >= SERVED:
            self.failures = 0
            self.started = now
            return Verdict(0.0, escalates=False)
        if self.failures and now - self.started >= CALM:
            self.failures = 0
        self.failures += 1
        wait = min(LONGEST, FIRST * 2.0 ** min(self.failures - 1, 16))
        self.started = now + wait
        return Verdict(wait, self.failures == INTENSITY + 1)

    def is_failing(self, now: float) -> bool:
        """Whether the task has exceeded the intensity, and has not been calm since."""
        return self.failures > INTENSITY and now - self.started < CALM
