"""Whether a front takes the next connection, or leaves it to a front that has fewer (FR3).

The fronts of a server share one listening socket, and the kernel wakes the busiest of them first. So
each looks at the counts of the others before it accepts. This module knows counts of connections only:
no socket and no clock. The caller leaves out a front whose count is old.

Laws:

* The front with the fewest connections always takes; so somebody takes each connection.
* A front that exceeds the lowest by more than ``max(SLACK, SHARE * lowest)`` does not take any.
* A front in between lets the others try first, for a moment.
* A front that is full could take a connection only by closing an idle one. So it leaves it while any front has room; and where none has, one
  of them takes first, for one newcomer must not cost a connection at each.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

__all__ = ["SHARE", "SLACK", "Turn", "exceeds", "turn", "turn_when_full"]

SLACK = 4
"""Connections that a front may have more than the lowest."""
SHARE = 0.25
"""The same as a part of the lowest count; the larger of both holds."""


class Turn(enum.Enum):
    """What a front does about a connection that waits in the kernel's queue."""

    TAKE = "take"
    LAST = "last"
    """Take it if no other front has taken it in a moment."""
    LEAVE = "leave"
    """The listening socket is not watched until the counts are closer."""


def turn(own: int, others: Iterable[int]) -> Turn:
    """Decide for an active front with ``own`` connections, which has room.

    :param others: the counts of the other active fronts that have room. (Those that show life.)
    """
    lowest = min(others, default=own)
    if own <= lowest:
        return Turn.TAKE
    return Turn.LEAVE if exceeds(own, lowest) else Turn.LAST


def turn_when_full(own: tuple[int, int], others: Iterable[tuple[int, int]], *, room_elsewhere: bool) -> Turn:
    """Decide for an active front that has as many connections as it may have.

    :param own: its count and its number. :param others: the same of each other active front.
    :param room_elsewhere: whether any other front may have one more. (If it is not active, it will be.)
    """
    if room_elsewhere:
        return Turn.LEAVE
    return Turn.TAKE if own <= min(others, default=own) else Turn.LAST


def exceeds(own: int, lowest: int) -> bool:
    """Whether a front with ``own`` connections has too many, beside one with ``lowest``."""
    return own - lowest > max(SLACK, SHARE * lowest)
