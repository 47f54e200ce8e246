"""When a task of ours that failed is started again, and when its failing is more than an accident.

It knows the failures of one task, by their times; it never knows what failed, or how.

Laws:

* The first failure is waited for ``FIRST`` seconds, each one soon after it twice as long, up to ``LONGEST``.
* A task that ran for ``CALM`` seconds since its last failure begins anew: its next failure is a first one.
* More than ``INTENSITY`` failures without such a calm are past the intensity, and that is said once, until it was calm again.
"""

from __future__ import annotations

import math

import attrs

__all__ = ["CALM", "FIRST", "INTENSITY", "LONGEST", "Restarts", "Verdict"]

FIRST = 0.1
LONGEST = 30.0
CALM = 60.0
"""Seconds; longer than ``LONGEST``, so that a wait is no calm."""
INTENSITY = 5


@attrs.frozen
class Verdict:
    """What follows from a failure."""

    wait: float
    """Seconds until the task is started again."""
    escalates: bool
    """It has just passed the intensity."""


@attrs.define
class Restarts:
    """The failures of one task."""

    failures: int = 0
    """In a row, without a calm between two of them."""
    started: float = -math.inf
    """When it is, or was, started again: monotonic seconds."""

    def failed(self, now: float) -> Verdict:
        """The task failed."""
        if self.failures and now - self.started >= CALM:
            self.failures = 0
        self.failures += 1
        wait = min(LONGEST, FIRST * 2.0 ** min(self.failures - 1, 16))
        self.started = now + wait
        return Verdict(wait, self.failures == INTENSITY + 1)

    def is_failing(self, now: float) -> bool:
        """Whether it has passed the intensity, and was not calm since."""
        return self.failures > INTENSITY and now - self.started < CALM
