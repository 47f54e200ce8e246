"""How many cores nobody uses, from one look at the machine after another (FR6). ``active_fronts`` compares it with what one more front needs.

This module knows counts of seconds, and the time of each look. It knows no file and no clock.

Laws:

* What is idle between two looks varies by more than what it is compared with. So the lower one of the last value and of an average is told.
* The average begins with none: the less is idle, the longer it takes to be sure. A load's first moments make no front active.
* Where the server has a quota, what is left of that counts, if it is less than what is idle of the machine.
* Unknown is infinite: then only the load decides.
"""

from __future__ import annotations

import math

__all__ = ["IdleCores"]

_SMOOTH = 8
"""Looks."""


class IdleCores:
    """One server's. A quiet server needs no other front, and is not looked at: its next look is a first one."""

    def __init__(self, quota: float = math.inf) -> None:
        """:param quota: cores that the server and its processes may use together."""
        self._quota = quota
        self._before: tuple[float, float, float | None] | None = None
        self._usually = 0.0

    def rest(self) -> None:
        """The server is quiet."""
        self._before = None

    def look(self, now: float, idle: float | None, used: float | None = None) -> float:
        """Take in a look at a busy server, at a time in seconds. Returns cores.

        :param idle: seconds for which the server's processors had nothing to do, added up. None: unknown.
        :param used: seconds of processor time that were used of the quota. None: unknown.
        """
        if idle is None:
            return math.inf
        before, self._before = self._before, (now, idle, used)
        if before is None or now <= before[0]:
            self._usually = 0.0
            return 0.0
        seconds = now - before[0]
        cores = (idle - before[1]) / seconds
        if used is not None and before[2] is not None:
            cores = min(cores, max(0.0, self._quota - (used - before[2]) / seconds))
        self._usually += (cores - self._usually) / _SMOOTH
        return min(cores, self._usually)
