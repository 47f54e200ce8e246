"""Which callers may stay at a private socket when there are more than are served at a time.

A caller is a connection to one of the server's own sockets. This module knows of each caller a number
(in order of arrival), its pid, whether it is expected, and whether it has spoken (said what it wants).
It never knows a socket or a clock: the server of the socket sends away a caller that stays silent for
too long.

Laws, when there are too many callers:

* An unexpected caller goes before an expected one; then a silent one before one that has spoken. The
  newest caller counts as one that has spoken, because it has had no time yet.
* Among equals, a caller of the process with the most callers goes: its oldest one. So a process that
  fills the places pushes out itself.
* A caller that stays for long (it follows events, or waits for a restart) is counted apart, under
  the same rule. So it keeps no other caller out.
"""

from __future__ import annotations

from collections import Counter

import attrs

from passenger_trio.late_classes import define

__all__ = ["CallerLimit"]


@define(eq=False)
class _Caller:
    pid: int
    expected: bool
    has_spoken: bool = False


@define(eq=False)
class CallerLimit:
    """:ivar most: callers at a time. :ivar most_staying: callers that stay for long, in addition."""

    most: int
    most_staying: int = 0
    _callers: dict[int, _Caller] = attrs.field(factory=dict)
    _staying: dict[int, _Caller] = attrs.field(factory=dict)

    def arrive(self, number: int, pid: int, *, expected: bool = False) -> int | None:
        """A caller arrives. Returns the caller that must go for it: another, itself, or None. That caller has left."""
        self._callers[number] = _Caller(pid, expected)
        return self._who_goes(self._callers, self.most, number)

    def speak(self, number: int) -> None:
        """A caller has said what it wants. Nothing happens if it was sent away before."""
        if number in self._callers:
            self._callers[number].has_spoken = True

    def stay(self, number: int) -> int | None:
        """A caller stays for as long as it likes. Returns the caller that must go for it, like ``arrive``."""
        caller = self._callers.pop(number, None)
        if caller is None:
            return None
        self._staying[number] = caller
        return self._who_goes(self._staying, self.most_staying, number)

    def leave(self, number: int) -> None:
        """A caller is gone. Nothing happens if it was sent away before."""
        self._callers.pop(number, None)
        self._staying.pop(number, None)

    @property
    def present(self) -> int:
        """The number of callers, without those that stay for long."""
        return len(self._callers)

    @staticmethod
    def _who_goes(callers: dict[int, _Caller], most: int, newest: int) -> int | None:
        if len(callers) <= most:
            return None

        def standing(number: int) -> tuple[bool, bool]:
            caller = callers[number]
            return caller.expected, caller.has_spoken or number == newest

        lowest = min(map(standing, callers))
        candidates = [number for number in callers if standing(number) == lowest]
        crowd = Counter(caller.pid for caller in callers.values())
        # max returns the first of equals, which is the oldest: a dictionary keeps the order of arrival.
        chosen = max(candidates, key=lambda number: crowd[callers[number].pid])
        del callers[chosen]
        return chosen
