"""Who may stay at a private socket when more come than are served at a time?

It knows of each caller a number (callers are numbered as they come), its pid, whether somebody expects it, and whether it has said what it wants. It never
knows a socket or a clock: whoever says nothing for too long is sent away by whoever serves it.

Laws, when there are too many:

* Who is not expected goes before who is; then who has said nothing goes before who has. The one who has just come counts as one who has: it had no time yet.
* Among equals the process goes that has the most callers there, and of these the oldest. So a process that fills the place pushes out itself.
* Who stays for long (it follows events, or waits for a restart) has left the lobby for a place of its own kind, by the same rule: it keeps nobody out.
"""

from __future__ import annotations

from collections import Counter

import attrs

__all__ = ["Lobby"]


@attrs.define(eq=False)
class _Caller:
    pid: int
    expected: bool
    has_spoken: bool = False


@attrs.define(eq=False)
class Lobby:
    """:ivar most: callers at a time. :ivar most_staying: of those who stay for long, besides them."""

    most: int
    most_staying: int = 0
    _callers: dict[int, _Caller] = attrs.field(factory=dict)
    _staying: dict[int, _Caller] = attrs.field(factory=dict)

    def arrive(self, number: int, pid: int, *, expected: bool = False) -> int | None:
        """A caller comes. Who is to go for it: another, itself, or None; that one has left by that."""
        self._callers[number] = _Caller(pid, expected)
        return self._who_goes(self._callers, self.most, number)

    def speak(self, number: int) -> None:
        """A caller has said what it wants. Nothing happens if it was sent away in the meantime."""
        if number in self._callers:
            self._callers[number].has_spoken = True

    def stay(self, number: int) -> int | None:
        """A caller stays for as long as it likes. Who is to go for that, as of ``arrive``."""
        caller = self._callers.pop(number, None)
        if caller is None:
            return None
        self._staying[number] = caller
        return self._who_goes(self._staying, self.most_staying, number)

    def leave(self, number: int) -> None:
        """A caller is gone; it may have been sent away before."""
        self._callers.pop(number, None)
        self._staying.pop(number, None)

    @property
    def present(self) -> int:
        """Callers, without those who stay."""
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
        # The first of the greatest: a dictionary keeps the order in which they came.
        chosen = max(candidates, key=lambda number: crowd[callers[number].pid])
        del callers[chosen]
        return chosen
